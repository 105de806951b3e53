"""`python -m ops.bench.cluster`: what an executor of its own process costs, and how many a set can have.

A set whose executor is in its process and one whose executor is behind a link (loopback TLS, lease of every day) answer
in turns. Prints the table, and exits with 1 if a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

from ops.bench import nomad_slots
from ops.bench.__main__ import table
from ops.bench.client import KeepAlive, request_bytes, stream_through
from ops.bench.crowd import measure
from ops.bench.cutoff import measure as cutoff_of
from ops.bench.figures import LARGE_BYTES, SMALL, Figure, p
from ops.bench.stack import BenchFailed, Stack, free_port
from ops.certificates.authority import Authority
from ops.setup.engine import ROOT

CLIENTS: Final = 16
LOAD_S: Final = 3.0
NODES: Final = 200
SLOTS_EACH: Final = 50
MEMORY_LIMIT_MIB: Final = 300.0
PATH: Final = "/v1/run/ncat:1"


class Pair(Stack):
    """Two sets on this machine: `set_port` runs tasks in its process, `remote_port` in an executor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.remote_port = free_port()
        self._link_port = free_port()

    def __enter__(self) -> Self:
        folder = self._make_folder()
        authority = Authority(folder / "authority")
        authority.make()
        authority.issue_to_set("remote", folder / "set-certificate", 1)
        authority.issue_to_executor("n1", folder / "node-certificate", 1)
        local, remote, executor = (folder / f"{name}.yaml" for name in ("local", "remote", "executor"))
        local.write_text(f"name: local\nstate_dir: {folder / 'local'}\ncores: 2\n")
        remote.write_text(
            f"name: remote\nstate_dir: {folder / 'remote'}\nlink_certificates: {folder / 'set-certificate'}\n"
            f"executors: {{n1: {{address: '127.0.0.1:{self._link_port}', state_dir: {folder / 'node'}}}}}\n"
        )
        executor.write_text(
            f"node: n1\nstate_dir: {folder / 'node'}\ncertificates: {folder / 'node-certificate'}\n"
            f"bind: 127.0.0.1:{self._link_port}\nsets: {{remote: {{cores: 2}}}}\n"
        )
        try:
            self._start("executor", "executor", str(executor))
            self._start("local", "set", str(local), "--bind", f"127.0.0.1:{self.set_port}")
            self._await(self.set_port)
            self._start("remote", "set", str(remote), "--bind", f"127.0.0.1:{self.remote_port}")
            self._await(self.remote_port)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self


def latency(pair: Pair, rounds: int) -> Iterator[Figure]:
    """Measure one small task at a time."""
    request = request_bytes(PATH, SMALL)
    times: dict[int, list[float]] = {pair.set_port: [], pair.remote_port: []}
    connections = {port: KeepAlive(port) for port in times}
    for number in range(rounds + 30):
        for port, connection in connections.items():
            began = time.perf_counter()
            status, body = connection.ask(request)
            if status != 200:
                raise BenchFailed(f"ncat answered {status} {body[:200]!r}")
            if number >= 30:
                times[port].append((time.perf_counter() - began) * 1e3)
    for connection in connections.values():
        connection.close()
    local, remote = (p(times[port], 50) for port in (pair.set_port, pair.remote_port))
    _say(f"p50 ms: in the set {local:.3f}, behind a link {remote:.3f}")
    yield Figure(
        "sync 1 KB `ncat` behind a link, over the set's own executor: p50",
        remote - local,
        f"{remote - local:+.2f} ms",
        "≤ +0.4 ms",
        remote - local <= 0.4,
    )


def throughput(pair: Pair, rounds: int) -> Iterator[Figure]:
    """Measure small tasks of many clients; also says the CPU time that the set and the executor need for each."""
    rates: dict[int, list[float]] = {pair.set_port: [], pair.remote_port: []}
    parts = {pair.set_port: ("local",), pair.remote_port: ("remote", "executor")}
    cpu_us: dict[str, list[float]] = {"local": [], "remote": [], "executor": []}
    for _ in range(rounds):
        for port in rates:
            before = {part: pair.cpu_us(part) for part in parts[port]}
            per_s, requests = _load(port)
            rates[port].append(per_s)
            for part in parts[port]:
                cpu_us[part].append((pair.cpu_us(part) - before[part]) / requests)
    local, remote, executor = (statistics.median(each) for each in cpu_us.values())
    _say(
        f"CPU µs for each task: in the set {local:.0f}, behind a link {remote:.0f} and {executor:.0f} in the executor"
    )
    yield _ratio("… tasks/s, 16 clients", rates[pair.remote_port], rates[pair.set_port], "tasks/s")


def bodies(pair: Pair, rounds: int) -> Iterator[Figure]:
    """Measure 100 MB through `cat`."""
    speeds: dict[int, list[float]] = {pair.set_port: [], pair.remote_port: []}
    for _ in range(rounds):
        for port in speeds:
            began = time.perf_counter()
            stream_through(port, "/v1/run/cat:1", LARGE_BYTES)
            speeds[port].append(LARGE_BYTES / 1e6 / (time.perf_counter() - began))
    yield _ratio("… 100 MB through `cat`", speeds[pair.remote_port], speeds[pair.set_port], "MB/s")


def _ratio(what: str, remote: list[float], local: list[float], unit: str) -> Figure:
    ratio = statistics.median(remote) / statistics.median(local)
    _say(f"{unit}: in the set {statistics.median(local):.0f}, behind a link {statistics.median(remote):.0f}")
    return Figure(what, ratio, f"{ratio:.2f} ×", "≥ 0.7 ×", ratio >= 0.7)


def _load(port: int) -> tuple[float, int]:
    """Return tasks/s, and how many they were."""
    command = [sys.executable, "-m", "ops.bench.load", str(port), PATH, str(CLIENTS), str(LOAD_S)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found = json.loads(done.stdout)
    if found["bad"]:
        raise BenchFailed(f"ncat answered {found['first_bad']}")
    return float(found["per_s"]), int(found["requests"])


def crowd(nodes: int = NODES, slots: int = SLOTS_EACH) -> Iterator[Figure]:
    """Measure a set with many executors."""
    (ROOT / "var").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="crowd-", dir=ROOT / "var") as folder:
        found = measure(Path(folder), nodes, slots)
    _say(
        f"MiB: {found['now_mib']:.0f} with {found['slots']:.0f} idle slots, {found['peak_mib']:.0f} while all ran"
    )
    what = f"a set with {nodes} executors and {nodes * slots} slots connected (simulated nodes, real links)"
    yield Figure(
        what,
        found["now_mib"],
        f"{found['now_mib']:.0f} MiB",
        f"≤ {MEMORY_LIMIT_MIB:.0f} MiB",
        found["now_mib"] <= MEMORY_LIMIT_MIB,
    )
    decision_us = found["decision_us"]
    yield Figure(
        "… a decision, where a slot is idle",
        decision_us,
        f"{decision_us:.1f} µs",
        "≤ 50 µs",
        decision_us <= 50,
    )


def cutoff(rounds: int = 3) -> Iterator[Figure]:
    """Measure how long the tasks of a node that is cut off take until they run elsewhere."""
    (ROOT / "var").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cutoff-", dir=ROOT / "var") as folder:
        found = cutoff_of(Path(folder), rounds)
    worst_s = p(found, 99)
    _say(
        f"s until {len(found)} tasks of a node that was cut off ran elsewhere: p50 {p(found, 50):.2f}, "
        f"p99 {worst_s:.2f}"
    )
    yield Figure(
        "a node cut off under load: until its tasks run elsewhere, p99",
        worst_s,
        f"{worst_s:.2f} s",
        "≤ 5 s",
        worst_s <= 5,
    )


PARTS: Final[dict[str, tuple[Callable[[Pair, int], Iterator[Figure]], int]]] = {
    "latency": (latency, 300),
    "throughput": (throughput, 3),
    "bodies": (bodies, 5),
}


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-cluster", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, "crowd", "cutoff", "nomad", []],
        help="what to measure; all by default",
    )
    parser.add_argument("--rounds", type=float, default=1.0, help="factor for the number of rounds")
    options = parser.parse_args()
    wanted = options.parts or [*PARTS, "crowd", "cutoff", *(["nomad"] if nomad_slots.there() else [])]
    found: list[Figure] = []
    try:
        if set(wanted) & set(PARTS):
            with Pair() as pair:
                for name, (part, rounds) in PARTS.items():
                    if name in wanted:
                        found += part(pair, max(1, round(rounds * options.rounds)))
        if "crowd" in wanted:
            found += crowd()
        if "cutoff" in wanted:
            found += cutoff(max(1, round(3 * options.rounds)))
        if "nomad" in wanted:
            found += nomad_slots.measure(options.rounds)
    except BenchFailed as error:
        print(f"make bench-cluster: {error}", file=sys.stderr)
        return 2
    print(table(found))
    return 0 if all(figure.good for figure in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
