"""A set's end and a node's end of links, over TLS on loopback, with programs that do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec

from ops.certificates.authority import Authority
from scheduler.execution import Work
from scheduler.policy.node import NodeFacts
from scheduler.task import Lease
from sets.executor.link.names import Certificates
from sets.executor.link.remote import Address, RemoteExecutor
from sets.executor.link.server import Server
from sets.executor.run import SlotRun
from tests.scheduler.conftest import until
from tests.scheduler.fakes import FakeExecutor, FakeRun

TOKEN = "ab" * 32
CAT = Work(argv=(b"/cat",), stdin=b"in")
PATIENT_S = 60.0
"""A lease that no slow machine outlasts."""
FACTS = NodeFacts("n1", 200, 4096, 8, frozenset({"avx2", "sse4_2"}))
HEARD = msgspec.structs.replace(FACTS, build="b1")
"""The node as its set hears of it: with the build of its executor."""
SHARES = {"a": FACTS, "b": NodeFacts("n1", 100, 1024, 3)}


class Owner:
    """Hears what a set's executor tells, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.nodes: dict[str, NodeFacts] = {}
        self.lost_at: dict[str, float] = {}

    def slot_ready(self, slot_id: str) -> None:
        self.heard.append(("ready", slot_id))

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        self.heard.append(("freed", slot_id, cpu_us))

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self.heard.append(("lost", slot_id, reason))

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        self.heard.append(("left over", slot_id, cpu_us))

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        self.heard.append(("unfit", slot_id, reason))

    def node_ready(self, facts: NodeFacts) -> None:
        self.nodes[facts.id] = facts
        self.heard.append(("node ready", facts.id))

    def node_draining(self, node_id: str) -> None:
        self.nodes.pop(node_id, None)
        self.heard.append(("node draining", node_id))

    def node_lost(self, node_id: str, reason: str) -> None:
        self.lost_at[node_id] = asyncio.get_running_loop().time()
        self.heard.append(("node lost", node_id, reason))

    def count(self, what: str) -> int:
        return sum(each[0] == what for each in self.heard)

    def last(self, what: str) -> tuple[Any, ...]:
        return [each for each in self.heard if each[0] == what][-1]


class Relay:
    """Carries bytes between a set and an executor, until it is cut or stalled."""

    def __init__(self, port: int) -> None:
        self._to_port = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.refuses = False

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stall(self) -> None:
        """Nothing comes through, in neither direction; the connection stays."""
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """The connections break at once."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._writers += (writer, to_writer)
        for source, sink in ((reader, to_writer), (to_reader, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


class Rig:
    """One set and one node, whose executor is `node`: a `FakeExecutor` for each link that the set made."""

    def __init__(self, certificates: Path) -> None:
        self.certificates = certificates
        self.owner = Owner()
        self.twin = Owner()
        """Hears what another set's executor tells."""
        self.executors: list[FakeExecutor] = []
        self.server = self.new_server()
        self._slots = 0
        self._tasks: list[asyncio.Task[None]] = []

    def new_server(
        self, shares: dict[str, NodeFacts] | None = None, certificate: str = "n1", build: str = "b1"
    ) -> Server:
        return Server(
            build, shares or SHARES, self._executor_for, Certificates(self.certificates / certificate)
        )

    def _executor_for(self, set_name: str) -> FakeExecutor:
        executor = FakeExecutor()
        self.executors.append(executor)
        return executor

    async def open(self, lease_s: float = PATIENT_S) -> Rig:
        self.port = await self.server.open("127.0.0.1", 0)
        self.relay = Relay(self.port)
        relay_port = await self.relay.open()
        self.remote = self.new_remote(relay_port, lease_s)
        await self.remote.open(self.owner)
        return self

    def new_remote(
        self, port: int, lease_s: float = PATIENT_S, name: str = "a", certificate: str = "a", node: str = "n1"
    ) -> RemoteExecutor:
        nodes = {node: Address("127.0.0.1", port)}
        return RemoteExecutor(name, "b1", nodes, Certificates(self.certificates / certificate), lease_s)

    facts = FACTS

    def authority(self, set_name: str) -> None:
        """Have the authority issue a certificate to another set."""
        Authority(self.certificates / "authority").issue_to_set(set_name, self.certificates / set_name, 10)

    def own_certificates(self, folder: Path, name: str) -> Path:
        """A copy of a folder of certificates."""
        return Path(shutil.copytree(self.certificates / name, folder / name))

    def work(self, **changes: Any) -> Work:
        return msgspec.structs.replace(CAT, **changes)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside; it is over when the rig is closed."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def linked(self, times: int = 1) -> FakeExecutor:
        """The node's executor, once the set's link stands for the `times`th time."""
        await until(lambda: self.owner.count("node ready") >= times)
        return self.executors[-1]

    async def slot(self) -> str:
        """A slot that is ready."""
        node = await self.linked(self.owner.count("node lost") + 1)
        self._slots += 1
        slot_id = f"s{self._slots}"
        await self.remote.expect(slot_id, TOKEN, "n1")
        assert node.expected[slot_id] == TOKEN
        node.hello(slot_id)
        await until(lambda: ("ready", slot_id) in self.owner.heard)
        return slot_id

    async def run(self, work: Work = CAT, slot_id: str | None = None) -> tuple[SlotRun, FakeRun]:
        """A program, as the set and as the node see it."""
        slot_id = slot_id or await self.slot()
        node = self.executors[-1]
        before = len(node.runs)
        run = self.remote.run(slot_id, work, Lease("a-1", 1))
        await until(lambda: len(node.runs) > before)
        return run, node.runs[-1]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.remote.close()
        await self.relay.close()
        await self.server.close("the test is over")
