"""One batch of 100,000 inputs in real slots, with `kill -9` of the set in the middle: each input has one result.

    DOCKER_HOST=… python -m tests.sets.api.large_batch [--inputs 100000] [--kills 2] [--image ncat:1]

It takes minutes, so `make test` has a batch of 150 inputs instead. It prints one line for each kill, and the figures.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.conftest import SetProcess

POLL_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--image", default="ncat:1")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process = SetProcess(Path(folder), f"large{uuid.uuid4().hex[:8]}", "").start()
        try:
            return _run(process, asked.inputs, asked.kills, asked.image)
        finally:
            process.stop()


def _run(process: SetProcess, inputs: int, kills: int, image: str) -> int:
    body = b"".join(b'{"input":"input %d"}\n' % number for number in range(1, inputs + 1))
    began, cpu_s, peak_kib = time.monotonic(), 0.0, 0
    with process.client() as http:
        taken = http.post(
            f"/v1/batches/{image}", content=body, headers={"Content-Type": "application/jsonl"}, timeout=600
        )
        taken.raise_for_status()
        batch = taken.json()
        print(f"{inputs} inputs are on disk after {time.monotonic() - began:.2f} s", flush=True)
        goals = [inputs * (number + 1) // (kills + 1) for number in range(kills)]
        while batch["ended_at"] is None:
            time.sleep(POLL_S)
            batch = http.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
            peak_kib = max(peak_kib, _peak_kib(process))
            done = batch["counts"]["succeeded"]
            if goals and done >= goals[0]:
                goals.pop(0)
                cpu_s += _cpu_s(process)
                killed = time.monotonic()
                process.kill()
                process.start()
                up_s = time.monotonic() - killed
                print(
                    f"kill -9 at {done} results, after {killed - began:.0f} s; up again in {up_s:.1f} s",
                    flush=True,
                )
        took_s = time.monotonic() - began
        cpu_s += _cpu_s(process)
        print(
            f"{batch['counts']['succeeded']} of {inputs} succeeded in {took_s:.0f} s: {inputs / took_s:.0f} tasks/s, "
            f"{1e6 * cpu_s / inputs:.0f} µs of CPU a task in the set, {peak_kib / 1024:.0f} MiB at most",
            flush=True,
        )
        fetching = time.monotonic()
        wrong = _check(http, batch, inputs)
        print(f"results fetched and compared in {time.monotonic() - fetching:.1f} s")
    print(f"wrong: {wrong}" if wrong else "each input has its own result, once")
    return 1 if wrong else 0


def _check(http: httpx.Client, batch: dict[str, Any], inputs: int) -> str:
    """Say what is wrong with the results; empty if nothing is."""
    found: set[str] = set()
    with http.stream("GET", f"/v1/batches/{batch['id']}/results", timeout=600) as answer:
        archive: Any = _File(answer.iter_bytes())
        with tarfile.open(fileobj=archive, mode="r|") as entries:
            for entry in entries:
                # tarfile would remember each entry.
                entries.members = []  # type: ignore[attr-defined]
                file = entries.extractfile(entry)
                assert file is not None
                if entry.name in found or file.read() != b"input %d" % int(entry.name):
                    return f"{entry.name} has another's result, or two"
                found.add(entry.name)
    return "" if len(found) == inputs else f"{inputs - len(found)} results are missing"


class _File(io.RawIOBase):
    """A file of pieces that come one after the other."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _peak_kib(process: SetProcess) -> int:
    lines = Path(f"/proc/{process.worker_pid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _cpu_s(process: SetProcess) -> float:
    """User and system time of the set, in seconds."""
    fields = Path(f"/proc/{process.worker_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    sys.exit(main())
