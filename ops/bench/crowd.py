"""A set with hundreds of executors and thousands of slots: how much memory its process takes, and how long it decides.

    python -m ops.bench.crowd nodes FOLDER NODES SLOTS    one process that plays all nodes; prints their ports
    python -m ops.bench.crowd set FOLDER SLOTS            the set's side; reads the ports, prints what it measured

Links, protocol, TLS, task manager and store are real; slots, programs and their launcher are simulated. Every slot runs
one task, all at the same time, and is idle then.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

import uvloop

from ops.bench.stack import BenchFailed, die_with_parent
from ops.certificates.authority import Authority
from ops.setup.engine import ROOT
from scheduler.errors import SlotLost
from scheduler.execution import Ending, How, Output, SlotEvents, Work
from scheduler.image import Image
from scheduler.launchers.contract import SlotOrder
from scheduler.manager import Manager
from scheduler.policy.cell import Cell
from scheduler.policy.decisions import StartSlot
from scheduler.policy.limits import Limits
from scheduler.policy.node import NodeFacts
from scheduler.pool import PoolKey
from scheduler.settings import ManagerSettings
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body
from scheduler.store.sqlite import SqliteStore
from scheduler.task import Isolation, Kind, Lease, Resources, Task, TaskSpec
from sets import log_lines
from sets.executor.link.names import Certificates
from sets.executor.link.remote import Address, RemoteExecutor
from sets.executor.link.server import Server

SET: Final = "crowd"
LEASE_S: Final = 10.0
DIGEST: Final = "sha256:" + "c" * 64
IMAGE: Final = Image("crowd:1", DIGEST, DIGEST, entrypoint=("/x",))
TIMEOUT_S: Final = 240.0
DECISIONS: Final = 5000
"""Tasks of which each is decided twice: when it arrives, and when its slot is free again."""


def facts_of(node: str, slots: int) -> NodeFacts:
    return NodeFacts(node, 100 * slots, 512 * slots, slots)


def measure(folder: Path, nodes: int, slots: int) -> dict[str, float]:
    """Play the nodes in one process and the set in another; returns what the set measured. Raises `BenchFailed`."""
    authority = Authority(folder / "authority")
    authority.make()
    authority.issue_to_set(SET, folder / SET, 1)
    for number in range(nodes):
        authority.issue_to_executor(f"n{number}", folder / f"n{number}", 1)
    program = [sys.executable, "-m", "ops.bench.crowd"]
    log = (folder / "nodes.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [*program, "nodes", str(folder), str(nodes), str(slots)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            preexec_fn=die_with_parent,
        ) as playing,
    ):
        try:
            assert playing.stdout is not None
            (folder / "ports.json").write_bytes(playing.stdout.readline())
            done = subprocess.run(
                [*program, "set", str(folder), str(slots)],
                cwd=ROOT,
                capture_output=True,
                timeout=TIMEOUT_S,
                preexec_fn=die_with_parent,
            )
        finally:
            playing.terminate()
    if done.returncode:
        raise BenchFailed(f"the set of the crowd failed:\n{done.stderr.decode()[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


class Crowd:
    """All programs of the crowd: they end together, once as many run as there are slots."""

    def __init__(self, slots: int) -> None:
        self._missing = slots
        self.complete = asyncio.Event()

    def joined(self) -> None:
        """Another program runs."""
        self._missing -= 1
        if self._missing <= 0:
            self.complete.set()


class PlayedRun:
    """A program that waits for the crowd and ends (`scheduler.execution.Run`)."""

    stdin = None

    def __init__(self, executor: PlayedExecutor, slot_id: str, lease: Lease) -> None:
        self.executor = executor
        self.slot_id = slot_id
        self.lease = lease

    async def first(self) -> Ending:
        """Wait for the crowd, and free the slot."""
        await self.executor.crowd.complete.wait()
        asyncio.get_running_loop().call_soon(self.executor.events.slot_freed, self.slot_id, 1)
        return Ending(self.lease, How.EXITED, 0, False, 0, 1, 1, 1, False, b"", b"", [])

    async def ending(self) -> Ending:
        return await self.first()

    def wake(self, waiter: asyncio.Future[None]) -> None:
        """Never called: the other end of the link has itself told."""

    def tell(self, listener: Callable[[Ending | Output | None], None]) -> None:
        async def tell() -> None:
            listener(await self.first())

        self._telling = asyncio.create_task(tell())

    def show(self) -> None:
        pass

    def kill(self) -> None:
        """Programs of the crowd end by themselves."""


class PlayedExecutor:
    """The executor of a simulated node: slots that are ready at once."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.slots: set[str] = set()

    async def open(self, events: SlotEvents) -> None:
        self.events = events

    async def close(self) -> None:
        self.slots.clear()

    async def expect(self, slot_id: str, token: str) -> None:
        self.slots.add(slot_id)
        asyncio.get_running_loop().call_soon(self.events.slot_ready, slot_id)

    async def leave(self, slot_id: str, file: str, data: bytes) -> None:
        """Never called: nothing starts slots here."""

    def run(self, slot_id: str, work: Work, lease: Lease) -> PlayedRun:
        if slot_id not in self.slots:
            raise SlotLost(f"slot {slot_id} is gone")
        self.crowd.joined()
        return PlayedRun(self, slot_id, lease)

    def discard(self, slot_id: str) -> None:
        self.slots.discard(slot_id)


async def play_nodes(folder: Path, nodes: int, slots: int) -> None:
    """Serve until the process is ended; prints the nodes' ports first."""
    crowd = Crowd(nodes * slots)
    ports = {}
    for number in range(nodes):
        node = f"n{number}"
        server = Server(
            "crowd",
            {SET: facts_of(node, slots)},
            lambda _set_name: PlayedExecutor(crowd),
            Certificates(folder / node),
        )
        ports[node] = await server.open("127.0.0.1", 0)
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


class NoLauncher:
    """Starts nothing: the simulated nodes have their slots already."""

    slot_life_s = None

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None: ...

    async def start(self, order: SlotOrder) -> None: ...

    def ready(self, slot_id: str) -> None: ...

    async def stop(self, slot_id: str) -> None: ...

    async def there(self) -> frozenset[str]:
        return frozenset()

    async def was_out_of_memory(self, slot_id: str) -> bool:
        return False


class OneImage:
    """An image source that knows one image."""

    async def resolve(self, reference: str) -> Image:
        return IMAGE


class NoMetrics:
    """Counts nothing."""

    def task_ended(self, task: Task) -> None: ...

    def slot_started(self, seconds: float) -> None: ...


async def play_set(folder: Path, slots: int) -> dict[str, float]:
    """Connect to the nodes, run a task in each of their slots, and measure this process."""
    # A real set loads these modules, too.
    import_module("sets.assembly")
    ports: dict[str, int] = json.loads((folder / "ports.json").read_text())
    total = len(ports) * slots
    executor = RemoteExecutor(
        SET,
        "crowd",
        {node: Address("127.0.0.1", port) for node, port in ports.items()},
        Certificates(folder / SET),
        LEASE_S,
    )
    manager = Manager(
        ManagerSettings(SET, Limits(max_waiting=2 * total, max_waiting_account=2 * total), own_node=False),
        SqliteStore(folder / "tasks.db"),
        BlobStore(folder / "blobs"),
        OneImage(),
        NoLauncher(),
        executor,
        NoMetrics(),
    )
    await manager.open()
    await until(lambda: manager.facts()["slots_max"] == total)
    spec = TaskSpec("acme", IMAGE.reference, DIGEST, kind=Kind.ASYNC, timeout_s=3600)
    for _ in range(0, total, 100):
        await asyncio.gather(
            *[manager.submit(spec, IMAGE, Body(1, b"x"), None) for _ in range(min(100, total))]
        )
    await until(lambda: manager.facts()["slots_idle"] == total and not manager.facts()["tasks_known"])
    gc.collect()
    found = {
        "links": float(len(ports)),
        "slots": float(total),
        **memory_mib(),
        "decision_us": decision_us(len(ports), slots),
    }
    await manager.close()
    return found


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 (facts are numbers, which tell nobody when they change)
            await asyncio.sleep(0.05)


def memory_mib() -> dict[str, float]:
    """Resident memory of this process: now, and at its peak."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found["now_mib" if name == "VmRSS" else "peak_mib"] = int(value.split()[0]) / 1024
    return found


def decision_us(nodes: int, slots: int) -> float:
    """CPU time of one decision of a cell with so many nodes, each with so many idle slots, microseconds."""
    total = nodes * slots
    numbers = itertools.count()
    cell = Cell(
        Limits(max_waiting=2 * total, max_waiting_account=2 * total),
        (f"s{number}" for number in itertools.count()),
        [facts_of(f"n{number}", slots) for number in range(nodes)],
    )
    key = PoolKey("acme", DIGEST, Resources(), Isolation.SHARED)
    started = []
    for _ in range(total):
        started += [
            each.slot_id
            for each in cell.task_arrived(f"t{next(numbers)}", key, 0.0)
            if isinstance(each, StartSlot)
        ]
    for slot_id in started:
        cell.slot_ready(slot_id, 0.0)
    for slot_id in started:
        cell.slot_freed(slot_id, 1, 0.0)
    began = time.process_time()
    for _ in range(DECISIONS):
        (assigned,) = cell.task_arrived(f"t{next(numbers)}", key, 1.0)
        cell.slot_freed(assigned.slot_id, 1, 1.0)  # type: ignore[union-attr]
    return (time.process_time() - began) / (2 * DECISIONS) * 1e6


def main() -> None:
    role, folder, *numbers = sys.argv[1:]
    # Standard output is for what was measured.
    log_lines.configure("warning")
    if role == "nodes":
        uvloop.run(play_nodes(Path(folder), *map(int, numbers)))
    else:
        print(json.dumps(uvloop.run(play_set(Path(folder), *map(int, numbers)))))


if __name__ == "__main__":
    main()
