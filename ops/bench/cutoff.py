"""A node that is cut off under load: how long its tasks take until they run elsewhere.

    python -m ops.bench.cutoff nodes FOLDER    one process that plays two nodes; prints their ports
    python -m ops.bench.cutoff wire PORT       a wire to that port, in a process of its own; prints its own port
    python -m ops.bench.cutoff set FOLDER ROUNDS

A wire that is stopped (SIGSTOP) is a node that is cut off: nothing passes, and both ends believe in their connection.
Links, protocol, TLS, leases, task manager and store are real; slots, programs and their launcher are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

from ops.bench.crowd import (
    DIGEST,
    IMAGE,
    Crowd,
    NoLauncher,
    OneImage,
    PlayedExecutor,
    PlayedRun,
    facts_of,
    until,
)
from ops.bench.stack import BenchFailed, die_with_parent
from ops.certificates.authority import Authority
from ops.setup.engine import ROOT
from scheduler.errors import SlotLost
from scheduler.execution import Ending, How, Work
from scheduler.manager import Manager
from scheduler.policy.limits import Limits
from scheduler.settings import ManagerSettings
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Kind, Lease, Task, TaskSpec
from sets import log_lines
from sets.executor.link.names import Certificates
from sets.executor.link.remote import Address, RemoteExecutor
from sets.executor.link.server import Server
from sets.executor.run import SlotRun

SET: Final = "cutoff"
NODES: Final = ("n0", "n1")
SLOTS: Final = 8
TASKS: Final = 3 * SLOTS
"""Tasks that are known at any time: both nodes are full, and the queue is never empty."""
RUN_S: Final = 0.5
TIMEOUT_S: Final = 120.0


def measure(folder: Path, rounds: int) -> list[float]:
    """Cut the first node off, `rounds` times; returns for each of its tasks the seconds until it ran elsewhere.

    Raises `BenchFailed`.
    """
    authority = Authority(folder / "authority")
    authority.make()
    authority.issue_to_set(SET, folder / SET, 1)
    for node in NODES:
        authority.issue_to_executor(node, folder / node, 1)
    with _played(folder, "nodes", str(folder)) as (_, ports), contextlib.ExitStack() as stack:
        wires = [stack.enter_context(_played(folder, "wire", str(port))) for port in ports]
        places = {node: [pid, *port] for node, (pid, port) in zip(NODES, wires, strict=True)}
        (folder / "wires.json").write_text(json.dumps(places))
        done = subprocess.run(
            [sys.executable, "-m", "ops.bench.cutoff", "set", str(folder), str(rounds)],
            cwd=ROOT,
            capture_output=True,
            timeout=TIMEOUT_S * (1 + rounds),
            preexec_fn=die_with_parent,
        )
        for pid, _ in wires:
            # A stopped process does not end.
            os.kill(pid, signal.SIGCONT)
    if done.returncode:
        raise BenchFailed(f"the set of the cut failed:\n{done.stderr.decode()[-2000:]}")
    found: list[float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _played(folder: Path, *words: str) -> Iterator[tuple[int, list[int]]]:
    """A process of this module: its id, and the ports that it prints."""
    with (folder / f"{words[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.bench.cutoff", *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent,
        )
    with process:
        try:
            assert process.stdout is not None
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            process.kill()


class ShortRun(PlayedRun):
    """A program that runs for `RUN_S`."""

    async def first(self) -> Ending:
        """Wait for the end, and free the slot."""
        await asyncio.sleep(RUN_S)
        asyncio.get_running_loop().call_soon(self.executor.events.slot_freed, self.slot_id, 1)
        return Ending(self.lease, How.EXITED, 0, False, 0, 1, 1, 1, False, b"", b"", [])


class ShortExecutor(PlayedExecutor):
    """The executor of a node whose programs are short."""

    def __init__(self) -> None:
        super().__init__(Crowd(0))

    def run(self, slot_id: str, work: Work, lease: Lease) -> PlayedRun:
        if slot_id not in self.slots:
            raise SlotLost(f"slot {slot_id} is gone")
        return ShortRun(self, slot_id, lease)


async def play_nodes(folder: Path) -> None:
    """Serve until the process is ended; prints the nodes' ports first."""
    ports = []
    for node in NODES:
        server = Server(
            "cutoff", {SET: facts_of(node, SLOTS)}, lambda _: ShortExecutor(), Certificates(folder / node)
        )
        ports.append(await server.open("127.0.0.1", 0))
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


async def play_wire(port: int) -> None:
    """Carry bytes to a port, and back, until the process is ended; prints its own port first."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    print(json.dumps([server.sockets[0].getsockname()[1]]), flush=True)
    await asyncio.Event().wait()


class Watched(RemoteExecutor):
    """Notes on which node each task runs, and since when; how long tasks of the node that is cut off take to move."""

    def watch(self) -> None:
        """Begin to note."""
        self.cut_at = float("inf")
        self.runs_on: dict[str, tuple[str, float]] = {}
        self.moved_s: list[float] = []

    def run(self, slot_id: str, work: Work, lease: Lease) -> SlotRun:
        node, now = self._node_of.get(slot_id, ""), time.monotonic()
        before, since = self.runs_on.get(lease.task_id, ("", 0.0))
        if (before, node) == NODES and now > self.cut_at:
            # A task that was sent after the cut waits from then on.
            self.moved_s.append(now - max(since, self.cut_at))
        self.runs_on[lease.task_id] = node, now
        return super().run(slot_id, work, lease)

    def on_first(self) -> list[str]:
        """The tasks that run on the node that is cut off."""
        return [task_id for task_id, (node, _) in self.runs_on.items() if node == NODES[0]]

    def task_ended(self, task: Task) -> None:
        """A task has ended (`scheduler.observer.Observer`)."""
        self.runs_on.pop(task.id, None)

    def slot_started(self, seconds: float) -> None: ...


async def play_set(folder: Path, rounds: int) -> list[float]:
    """Run tasks on both nodes, cut the first one off again and again, and return the seconds that `Watched` noted."""
    wires: dict[str, tuple[int, int]] = json.loads((folder / "wires.json").read_text())
    executor = Watched(
        SET,
        "cutoff",
        {node: Address("127.0.0.1", port) for node, (_, port) in wires.items()},
        Certificates(folder / SET),
    )
    executor.watch()
    manager = Manager(
        ManagerSettings(SET, Limits(max_waiting=1000, max_waiting_account=1000), own_node=False),
        SqliteStore(folder / "tasks.db"),
        BlobStore(folder / "blobs"),
        OneImage(),
        NoLauncher(),
        executor,
        executor,
    )
    await manager.open()
    await until(lambda: manager.facts()["slots_max"] == len(NODES) * SLOTS)
    spec = TaskSpec("acme", IMAGE.reference, DIGEST, kind=Kind.ASYNC, timeout_s=60)

    async def load() -> None:
        while True:
            if manager.facts()["tasks_known"] < TASKS:
                await manager.submit(spec, IMAGE, Body(1, b"x"), None)
            else:
                await asyncio.sleep(RUN_S / SLOTS)

    pid, _ = wires[NODES[0]]
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(load())
        for _ in range(rounds):
            await until(lambda: len(executor.on_first()) > SLOTS // 2)
            os.kill(pid, signal.SIGSTOP)
            executor.cut_at = time.monotonic()
            cut_off = executor.on_first()
            await until(lambda: not set(executor.on_first()).intersection(cut_off))  # noqa: B023
            os.kill(pid, signal.SIGCONT)
        loading.cancel()
    await manager.close()
    return executor.moved_s


def main() -> None:
    role, *words = sys.argv[1:]
    # Standard output is for what was measured.
    log_lines.configure("critical")
    if role == "nodes":
        uvloop.run(play_nodes(Path(words[0])))
    elif role == "wire":
        uvloop.run(play_wire(int(words[0])))
    else:
        print(json.dumps(uvloop.run(play_set(Path(words[0]), int(words[1])))))


if __name__ == "__main__":
    main()
