"""`python -m ops.bench.nomad_slots`: what slots of a Nomad cluster cost beside slots of a Docker engine.

Starts an agent of its own (needs `nomad` on PATH, and root), and two sets on one engine, one with each launcher.
Tasks a second are measured in turns; Nomad is not in their path. Then k tasks of a new account arrive together, each
holds its slot, and the time until the first and the last of them runs is taken: the order, the job, its start, the
hello, and the task's first byte.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Self

import yaml

from ops.bench.__main__ import table
from ops.bench.figures import Figure, run_load
from ops.bench.stack import BenchFailed, Stack, free_port
from ops.nomad.agent import Agent, Ports
from ops.setup import engine
from ops.setup.engine import ROOT

PATH: Final = "/v1/run/ncat:1"
STARTED_TOGETHER: Final = (1, 10, 30)
CLIENTS: Final = 16
LOAD_S: Final = 3.0
PATIENCE_S: Final = 120.0
# The agent offers so much that no slot waits for room.
_CPU_SHARES: Final = 100_000
_MEMORY_MIB: Final = 32_768


def there() -> bool:
    """Return True if this machine can measure it."""
    return shutil.which("nomad") is not None and os.geteuid() == 0


class NomadPair(Stack):
    """Two sets on this machine: `set_port` has slots of the engine, `nomad_port` slots of an agent of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.nomad_port = free_port()

    def __enter__(self) -> Self:
        folder = self._make_folder()
        host = engine.up()
        # Beside that folder, as it is removed when the sets have stopped, before the agent.
        self._agent = Agent(
            Path(mkdtemp(prefix="bench-", dir=ROOT / "var")),
            host,
            address="127.0.0.1",
            ports=Ports(free_port(), free_port(), free_port()),
            cpu_shares=_CPU_SHARES,
            memory_mib=_MEMORY_MIB,
        )
        common = f"cores: 2\nmax_slots: 64\ndocker_host: {host}\n"
        on_docker, on_nomad, registrar = (
            folder / f"{name}.yaml" for name in ("docker", "nomad", "registrar")
        )
        on_docker.write_text(f"name: docker\nstate_dir: {folder / 'docker'}\n{common}")
        on_nomad.write_text(
            f"name: nomad\nstate_dir: {folder / 'nomad'}\n{common}launcher: nomad\n"
            f"registrar: {folder / 'registrar.sock'}\nnode_folder: {self._agent.node_folder}\n"
        )
        settings = {
            "set_name": "nomad",
            "socket": str(folder / "registrar.sock"),
            "address": self._agent.url,
            "node_folder": str(self._agent.node_folder),
        }
        registrar.write_text(yaml.safe_dump(settings))
        try:
            self._agent.start()
            self._start("registrar", "registrar", str(registrar))
            self._start("docker", "set", str(on_docker), "--bind", f"127.0.0.1:{self.set_port}")
            self._await(self.set_port)
            self._start("nomad", "set", str(on_nomad), "--bind", f"127.0.0.1:{self.nomad_port}")
            self._await(self.nomad_port)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        try:
            super().__exit__(None, None, None)
        finally:
            self._agent.wipe()


def throughput(pair: NomadPair, rounds: int) -> Iterator[Figure]:
    """Measure small tasks of many clients, in turns."""
    rates: dict[int, list[float]] = {pair.set_port: [], pair.nomad_port: []}
    for port in rates:
        _settle(port)
    for _ in range(rounds):
        for port in rates:
            rates[port].append(run_load(port, PATH, CLIENTS, LOAD_S)["per_s"])
    on_docker, on_nomad = (statistics.median(rates[port]) for port in (pair.set_port, pair.nomad_port))
    _say(f"tasks/s: on Docker slots {on_docker:.0f}, on Nomad slots {on_nomad:.0f}")
    ratio = on_nomad / on_docker
    what = "tasks/s on Nomad slots, of Docker slots, 16 clients"
    yield Figure(what, ratio, f"{ratio:.2f} ×", "≥ 0.95 ×", ratio >= 0.95)


def starts(pair: NomadPair) -> Iterator[Figure]:
    """Measure how long k new slots take, on either launcher. Issue 12 sets no target: the slots that exist serve on."""
    for count in STARTED_TOGETHER:
        times = {port: _start_together(port, count) for port in (pair.set_port, pair.nomad_port)}
        text = [f"{first:.2f} … {last:.2f} s" for first, last in times.values()]
        _say(f"{count} slots ordered together, first … last hello: Docker {text[0]}, Nomad {text[1]}")
        _, last_s = times[pair.nomad_port]
        yield Figure(f"… order to last hello, {count} together", last_s, text[1], "none", True)


def measure(rounds: float) -> Iterator[Figure]:
    """Measure all rows; `rounds` is a factor for their number."""
    with NomadPair() as pair:
        yield from throughput(pair, max(1, round(3 * rounds)))
        yield from starts(pair)


def _settle(port: int) -> None:
    """Have the slots started that the load needs, and wait until no more start."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        run_load(port, PATH, CLIENTS, 1.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as answer:
            if not json.load(answer)["slots_starting"]:
                return
    raise BenchFailed("slots go on starting")


class _Held:
    """A task that holds its slot: it echoes the first byte of its input, and waits for the rest until `end`."""

    def __init__(self, port: int, account: str) -> None:
        query = "stream=1&cpu=0.05&memory_mib=32&queue_timeout_s=60&timeout_s=300"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        head = f"POST /v1/run/cat:1?{query} HTTP/1.1\r\nHost: bench\r\nX-Account: {account}\r\n"
        self._socket.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")

    def until_it_runs(self) -> None:
        """Wait for the first byte of its output. Raises `BenchFailed`."""
        said = b""
        while b"\r\n\r\n" not in said or said.endswith(b"\r\n\r\n"):
            piece = self._socket.recv(65536)
            said += piece
            if not piece or not said.startswith(b"HTTP/1.1 200"[: len(said)]):
                raise BenchFailed(f"a task did not start: {said[:600]!r}")

    def end(self) -> None:
        with self._socket:
            self._socket.sendall(b"0\r\n\r\n")
            while not self._socket.recv(65536).endswith(b"0\r\n\r\n"):
                pass


def _start_together(port: int, count: int) -> tuple[float, float]:
    """Have `count` slots of a new account started together; the seconds until the first and the last runs a task."""
    began = time.perf_counter()
    held = [_Held(port, f"k{count}") for _ in range(count)]

    def came(task: _Held) -> float:
        task.until_it_runs()
        return time.perf_counter() - began

    with ThreadPoolExecutor(count) as threads:
        times = list(threads.map(came, held))
    for task in held:
        task.end()
    return min(times), max(times)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    if not there():
        print("ops.bench.nomad_slots: needs `nomad` on PATH, and root", file=sys.stderr)
        return 2
    try:
        rows = list(measure(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
    except BenchFailed as error:
        print(f"ops.bench.nomad_slots: {error}", file=sys.stderr)
        return 2
    print(table(rows))
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
