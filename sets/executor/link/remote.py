"""The executor of a set whose slots are on other machines: a link to each node, made again when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from scheduler.background import Background
from scheduler.backoff import Backoff
from scheduler.errors import EngineRefused, EngineUnavailable, SlotLost
from scheduler.execution import ExecutorEvents, Work
from scheduler.policy.node import NodeFacts
from scheduler.task import Lease
from scheduler.trouble import Trouble
from sets.executor.executor import shared_member
from sets.executor.link import frames, messages, tls
from sets.executor.link.expiry import ExpiryWatch, own_ends, peer_end
from sets.executor.link.frames import LinkError
from sets.executor.link.lease import LEASE_S, clock_s
from sets.executor.link.link import Link
from sets.executor.link.names import Certificates, node_name
from sets.executor.link.wire import Wire
from sets.executor.run import SlotRun

CONNECT_S: Final = 5.0
"""Longest time, in seconds, for a connection, for its handshake, and for the executor's welcome."""
AGAIN: Final = Backoff(0.25, 5.0)
"""Pauses between tries to reach an executor."""


class Address(msgspec.Struct, frozen=True):
    """Where a node's executor listens. `slots`: its folder of this set's slots, as far as their launcher needs it."""

    host: str
    port: int
    slots: Path | None = None


class RemoteExecutor:
    """Runs programs on other machines (`scheduler.execution.Executor`). `nodes`: their executors, by node name.

    A node whose link breaks takes no new task at once. It counts as lost, and what ran there with it, as soon as its
    executor must have killed all of it; then the link is made again. `shared`: as in `LocalExecutor`.
    """

    def __init__(
        self,
        set_name: str,
        build: str,
        nodes: Mapping[str, Address],
        certificates: Certificates,
        lease_s: float = LEASE_S,
        *,
        shared: bool = False,
    ) -> None:
        self._hello = messages.Hello(
            messages.VERSION_OLDEST, messages.VERSION_NEWEST, set_name, build, lease_s
        )
        self._nodes = nodes
        self._shared = shared
        self._certificates = certificates
        self._links: dict[str, Link] = {}
        self._wires: dict[str, Wire] = {}
        # The node of each slot that is expected, or there.
        self._node_of: dict[str, str] = {}
        self._member_of: dict[str, str] = {}
        # When the certificate of each node ends that was reached.
        self._node_ends: dict[str, float] = {}
        self._background = Background()

    async def open(self, events: ExecutorEvents) -> None:
        """Begin to connect to the nodes; `events` hears of those that are there."""
        self._loop = asyncio.get_running_loop()
        self._events = events
        self._background.spawn(ExpiryWatch(self.certificates_end).run())
        for node, address in self._nodes.items():
            self._background.spawn(self._keep(node, address))

    async def close(self) -> None:
        """Leave all nodes: their executors kill what runs for this set."""
        await self._background.stop(0)
        for wire in self._wires.values():
            wire.send(frames.GOODBYE, messages.Reason("the set stops"))
            wire.close("the set stops")
        for link in self._links.values():
            link.lose("the set stops")
        self._links.clear()

    def certificates_end(self) -> dict[str, float]:
        """Return when the set's own certificate, the authority and the nodes' certificates end, as Unix times."""
        return {**own_ends(self._certificates), **self._node_ends}

    def folder_of(self, slot_id: str) -> Path:
        """Where the slot's executor listens on its machine (`scheduler.launchers.doorway.SlotFolder`)."""
        node = self._node_of.get(slot_id, "")
        address = self._nodes.get(node)
        if address is None or address.slots is None:
            raise EngineRefused(
                f"executors: node {node} has no state_dir, so this machine's engine cannot start slots for it"
            )
        return address.slots / self._member_of[slot_id]

    async def expect(self, slot_id: str, token: str, node: str) -> None:
        link = self._links.get(node)
        if link is None:
            raise EngineUnavailable(f"there is no link to node {node or 'of that name'} now")
        self._node_of[slot_id] = node
        self._member_of[slot_id] = shared_member(token) if self._shared else slot_id
        await link.expect(slot_id, token)

    async def leave(self, slot_id: str, file: str, data: bytes) -> None:
        """Have the slot's executor leave a file beside its socket (`scheduler.launchers.doorway.LeaveFile`)."""
        link = self._links.get(self._node_of.get(slot_id, ""))
        if link is None:
            raise EngineUnavailable(f"the node of slot {slot_id} is out of reach")
        await link.leave(slot_id, file, data)

    def run(self, slot_id: str, work: Work, lease: Lease) -> SlotRun:
        link = self._links.get(self._node_of.get(slot_id, ""))
        if link is None:
            raise SlotLost(f"slot {slot_id} is gone")
        return link.run(slot_id, work, lease)

    def discard(self, slot_id: str) -> None:
        self._member_of.pop(slot_id, None)
        link = self._links.get(self._node_of.pop(slot_id, ""))
        if link is not None:
            link.discard(slot_id)

    # -- a node's link

    async def _keep(self, node: str, address: Address) -> None:
        """Hold a link to the node's executor, for as long as the set runs."""
        trouble = Trouble("executor out of reach; trying again", "executor in reach")
        while True:
            link, ended = await self._reach(node, address, trouble)
            self._links[node] = link
            link.begin()
            reason = await ended
            trouble.met(reason, node=node)
            self._events.node_draining(node)
            if not link.said_goodbye:
                await asyncio.sleep(max(0.0, link.grants.over_at - clock_s()))
            del self._links[node]
            link.lose(reason)
            self._events.node_lost(node, reason)

    async def _reach(self, node: str, address: Address, trouble: Trouble) -> tuple[Link, asyncio.Future[str]]:
        for pause_s in AGAIN:
            try:
                linked = await self._connect(node, address)
            except (OSError, LinkError) as error:
                trouble.met(_why(error), node=node)
                await asyncio.sleep(pause_s)
            else:
                trouble.over(node=node)
                return linked
        raise AssertionError("a backoff has no end")

    async def _connect(self, node: str, address: Address) -> tuple[Link, asyncio.Future[str]]:
        """A new link, and what ends with the reason when it does. Raises `OSError`, `LinkError`."""
        loop = self._loop
        welcomed: asyncio.Future[Link] = loop.create_future()
        ended: asyncio.Future[str] = loop.create_future()

        def received(kind: int, channel: int, stream: int, body: memoryview) -> None:
            if kind != frames.WELCOME or welcomed.done():
                raise LinkError("it does not begin with WELCOME")
            # At once, as more frames may be there already.
            welcome = messages.decode(body, messages.Welcome)
            facts = self._facts(node, welcome)
            link = Link(wire, facts, self._hello.lease_s, self._events)
            link.dresses, link.shows = welcome.dresses, welcome.shows
            welcomed.set_result(link)

        def end(reason: str) -> None:
            if not ended.done():
                ended.set_result(reason)
            if not welcomed.done():
                welcomed.set_exception(LinkError(reason))
                # Nobody may be waiting for it yet.
                welcomed.exception()

        wire = Wire(loop, received, end)
        self._wires[node] = wire
        try:
            async with asyncio.timeout(CONNECT_S):
                await tls.connect(
                    loop, wire, address.host, address.port, self._certificates.for_set(), node_name(node)
                )
                if (ends_at := peer_end(wire.peer_certificate())) is not None:
                    self._node_ends[node] = ends_at
                wire.send(frames.HELLO, self._hello)
                return await welcomed, ended
        except BaseException as error:
            wire.fail(_why(error))
            raise

    def _facts(self, node: str, welcome: messages.Welcome) -> NodeFacts:
        """The node as its executor describes it. Raises `LinkError` for another node."""
        if welcome.node != node:
            raise LinkError(f"it says that its node is {welcome.node}")
        if not self._hello.oldest <= welcome.version <= self._hello.newest:
            raise LinkError(
                f"it chose version {welcome.version} of the protocol, which this set does not speak"
            )
        return NodeFacts(
            node,
            welcome.cpu_percent,
            welcome.memory_mib,
            welcome.max_slots,
            frozenset(welcome.cpu_features),
            build=welcome.build,
        )


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    return str(error) or repr(error)
