"""Slots as Nomad batch jobs, ordered from the registrar. Knows of Nomad only what the registrar reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
import structlog

from scheduler.errors import EngineRefused, EngineUnavailable, ImageUnusable, NoRoom, SchedulerError
from scheduler.images.contract import LayoutSource
from scheduler.images.places import Layout
from scheduler.launchers.contract import NodeStands, SlotGone, SlotOrder
from scheduler.launchers.doorway import (
    CONTENT_FILE,
    CPU_FILE,
    DRESSING_FILE,
    Dressing,
    LeaveFile,
    SlotFolder,
    into,
    write_file,
)
from scheduler.launchers.hardening import SlotLimits
from scheduler.launchers.nomad.ahead import ImagesAhead
from scheduler.launchers.nomad.connection import Connection
from scheduler.launchers.nomad.leaving import Leaving
from scheduler.launchers.nomad.nodes import best
from scheduler.launchers.nomad.orders import Add, Added, Drop, Found, Keep, NewSlot, NodeState, Report
from scheduler.launchers.nomad.settings import NomadSettings
from scheduler.launchers.nomad.start import Start, run_name
from scheduler.launchers.nomad.words import BLOCKED, OVER, Kind
from scheduler.launchers.variables import names, said_twice
from scheduler.policy.node import Standing

log = structlog.get_logger()


class Source(LayoutSource, Protocol):
    """A source of layouts that the launcher opens and closes."""

    async def open(self) -> None:
        """Raises `EngineUnavailable`. May be called again after it failed."""

    async def close(self) -> None:
        """Never raises."""


_SLOTS_PER_ORDER: Final = 10
_OPEN_CLEAN_UP_S: Final = 15.0
_CLOSE_CLEAN_UP_S: Final = 15.0
_OOM_WAIT_S: Final = 2.0
"""How long the cluster may take to tell how a slot ended, in seconds; it does so within one."""
_USERS_FAULT: Final = frozenset({"places", "covered", "names", "env", "image", "run"})
"""Members of an order that come from the image; the registrar refuses them for the image's sake."""


class NomadLauncher:
    """Implements `contract.Launcher` on a cluster.

    `source` finds how the slots of an image are laid out; `folder_of` tells where a slot's executor listens for it,
    within `run_folder` of the settings, and `leave` has the executor leave a file there. `on_node` hears where the
    cluster starts no new slots, and `ahead` has images pulled on every node. Without the registrar, or while the
    cluster is away, starts raise `EngineUnavailable`, and running slots serve on.
    """

    def __init__(
        self,
        settings: NomadSettings,
        source: Source,
        folder_of: SlotFolder,
        on_gone: SlotGone,
        leave: LeaveFile | None = None,
        on_node: NodeStands | None = None,
        ahead: ImagesAhead | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._folder_of = folder_of
        self._leave_file = leave or into(folder_of)
        self._inodes = SlotLimits().inodes
        self._on_gone = on_gone
        self._on_node = on_node
        self._ahead = ahead
        self._pulling: asyncio.Task[None] | None = None
        self._nodes: dict[str, NodeState] = {}
        self._slots: dict[str, Start] = {}
        self._leaving = Leaving()
        self._batch: list[tuple[SlotOrder, Layout]] = []
        self._requests: dict[int, tuple[str, ...]] = {}
        self._last_request = 0
        self._connection = Connection(settings, self)
        self.slot_life_s: float | None = None
        self._opened = False
        self._closed = False

    async def open(self) -> None:
        """Connect to the registrar, and begin to remove the slots of earlier runs.

        Raises `EngineUnavailable` when the registrar or the cluster does not answer.
        """
        if self._opened:
            return
        await self._source.open()
        found = await self._connection.open()
        self._inodes = found.inodes
        self.slot_life_s = found.slot_life_s or None
        for slot_id in found.slots:
            self._leaving.add(slot_id)
        self._connection.begin(Keep(()))
        self._opened = True
        if self._ahead is not None:
            self._pulling = asyncio.create_task(self._ahead.keep(self._connection.send))
        await self._leaving.until_gone(_OPEN_CLEAN_UP_S)
        if self._leaving:
            log.warning(
                "slots of an earlier run remain", slots=len(self._leaving), next="they are removed meanwhile"
            )

    async def close(self) -> None:
        """Drop every slot, and wait until the cluster has ended them. Never raises; takes some seconds."""
        if self._closed:
            return
        self._closed = True
        if self._pulling is not None:
            self._pulling.cancel()
        for slot_id, slot in list(self._slots.items()):
            slot.fail(EngineRefused(f"slot {slot_id} was stopped while it started"))
            self._drop(slot_id)
        if self._connection.up:
            await self._leaving.until_gone(_CLOSE_CLEAN_UP_S)
        if self._leaving:
            log.warning("slots left behind", slots=len(self._leaving), next="the registrar removes them")
        await self._connection.close()
        await self._source.close()

    async def check(self) -> None:
        """Raises `EngineUnavailable` while the registrar or the cluster does not answer, or before `open`."""
        if self._connection.reason:
            raise EngineUnavailable(self._connection.reason)
        if not self._opened:
            raise EngineUnavailable("the registrar answers, but the set has not finished connecting to it")

    # -- starting

    async def start(self, order: SlotOrder) -> None:
        """Order a slot; returns once it runs, as its guest or the cluster says.

        Orders of one moment and one pool share a job.
        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`, `NoRoom`, each with what the
        cluster says.
        """
        if not self._opened or self._closed:
            raise EngineUnavailable(
                "the set is not connected to its registrar yet, or is stopping; try again"
            )
        if order.slot_id in self._slots or order.slot_id in self._leaving:
            raise EngineRefused(f"slot {order.slot_id} was started already")
        slot = self._slots[order.slot_id] = Start(order)
        try:
            layout = await self._source.layout(order.image)
            await self._lay_out(order, layout)
            if not slot.outcome.done():
                self._enter(order, layout)
            async with asyncio.timeout(self._settings.start_limit_s):
                await asyncio.shield(slot.outcome)
        except TimeoutError as error:
            self._drop(order.slot_id)
            raise EngineUnavailable(
                f"it has not started within {self._settings.start_limit_s:g} s: "
                f"{self._connection.reason or slot.words}"
            ) from error
        except BaseException:
            self._drop(order.slot_id)
            raise
        slot.returned = True
        if slot.gone is not None:
            # After the caller has seen its start return.
            asyncio.get_running_loop().call_soon(self._gone, order.slot_id, slot.gone)

    async def _lay_out(self, order: SlotOrder, layout: Layout) -> None:
        """Leave what the slot needs beside its socket."""
        dressing = msgspec.json.encode(Dressing(layout.places, self._inodes, layout.kept))
        files = {CPU_FILE: b"%d" % order.pool.resources.cpu_percent, DRESSING_FILE: dressing}
        if order.node:
            for file, data in files.items():
                await self._leave_file(order.slot_id, file, data)
        else:
            # Some bytes, written at once: orders of one moment must not wait for threads, so that they share a job.
            for file, data in files.items():
                write_file(self._folder_of(order.slot_id), file, data)
        if layout.content:
            await self._leave_file(order.slot_id, CONTENT_FILE, layout.content)

    def _enter(self, order: SlotOrder, layout: Layout) -> None:
        """Join the orders of this moment; they leave when the loop has started whatever is to be started."""
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._send_batch)
        self._batch.append((order, layout))

    def _send_batch(self) -> None:
        batch, self._batch = self._batch, []
        alike: dict[tuple[object, ...], list[tuple[SlotOrder, Layout]]] = {}
        for order, layout in batch:
            if (slot := self._slots.get(order.slot_id)) is not None and not slot.outcome.done():
                image = order.image
                key = (order.pool, image.image_id, image.reference, order.node)
                alike.setdefault(key, []).append((order, layout))
        for orders in alike.values():
            for first in range(0, len(orders), _SLOTS_PER_ORDER):
                self._order(orders[first : first + _SLOTS_PER_ORDER])

    def _order(self, orders: list[tuple[SlotOrder, Layout]]) -> None:
        slot_ids = tuple(order.slot_id for order, _ in orders)
        if self._connection.reason:
            self._fail(slot_ids, EngineUnavailable(self._connection.reason))
            return
        (order, layout), *_ = orders
        self._last_request += 1
        self._requests[self._last_request] = slot_ids
        self._connection.send(
            Add(
                request=self._last_request,
                pool=order.pool,
                image=order.image.reference,
                run=run_name(order.image),
                places=layout.places,
                covered=layout.kept,
                names=tuple(dict.fromkeys(names(order.image))),
                env=said_twice(order.image),
                node=order.node,
                executor_limits_cpu=True,
                slots=tuple(
                    NewSlot(each.slot_id, each.token, self._door(each.slot_id)) for each, _ in orders
                ),
            )
        )

    def _door(self, slot_id: str) -> str:
        return self._folder_of(slot_id).relative_to(self._settings.run_folder).as_posix()

    def _fail(self, slot_ids: Iterable[str], error: SchedulerError) -> None:
        for slot_id in slot_ids:
            if slot := self._slots.get(slot_id):
                slot.fail(error)

    def ready(self, slot_id: str) -> None:
        """The slot runs; the cluster says so up to a second later, or not at all if it loses sight of the node."""
        if (slot := self._slots.get(slot_id)) is not None:
            slot.connected = True
            slot.wait_no_longer()
            slot.succeed()

    # -- ending

    async def stop(self, slot_id: str) -> None:
        """Destroy a slot; unknown ids are fine. Its guest has been told to exit; the registrar sees to it."""
        slot = self._slots.get(slot_id)
        if slot is None:
            return
        slot.fail(EngineRefused(f"slot {slot_id} was stopped while it started"))
        self._drop(slot_id)

    async def there(self) -> frozenset[str]:
        """Return the ids of the slots whose end the cluster has not confirmed. Raises as `check`."""
        await self.check()
        return frozenset((*self._slots, *self._leaving.ids))

    async def was_out_of_memory(self, slot_id: str) -> bool:
        """Return True if the slot's own init was killed for memory, as far as the cluster told within seconds."""
        deadline = time.monotonic() + _OOM_WAIT_S
        while time.monotonic() < deadline:
            if (how := self._leaving.how(slot_id)) is not None:
                return how is Kind.OUT_OF_MEMORY
            if slot_id not in self._slots:
                return False
            await asyncio.sleep(0.02)
        return False

    def _drop(self, slot_id: str) -> None:
        slot = self._slots.pop(slot_id, None)
        if slot is None:
            return
        slot.wait_no_longer()
        if slot.kind not in OVER:
            self._leaving.add(slot_id)
        self._connection.send(Drop(slot_id))

    def _gone(self, slot_id: str, reason: str) -> None:
        slot = self._slots.get(slot_id)
        if slot is None:
            return
        if not slot.returned:
            slot.gone = slot.gone or reason
            return
        self._drop(slot_id)
        self._on_gone(slot_id, reason)

    # -- called by the connection (connection.Listener)

    def lost(self) -> None:
        """The registrar is away: nobody tells how the orders under way fare."""
        for slot_ids in self._requests.values():
            self._fail(slot_ids, EngineUnavailable("the registrar went away while the slot started"))
        self._requests.clear()

    def found_again(self, found: Found) -> Keep:
        """Compare with what the registrar has found after it was away."""
        self._nodes.clear()
        self._inodes = found.inodes
        there = set(found.slots)
        for slot_id in self._leaving.ids:
            if slot_id not in there:
                self._leaving.gone(slot_id)
        for slot_id, slot in list(self._slots.items()):
            if slot_id not in there and slot.started:
                # Nothing of it is left to wait for.
                slot.kind = Kind.ENDED
                self._gone(slot_id, "its allocation has ended while the registrar was away")
        return Keep(tuple(slot_id for slot_id in self._slots if slot_id in there))

    def received(self, message: Added | Report | NodeState) -> None:
        match message:
            case Added(request, error, field):
                slot_ids = self._requests.pop(request, ())
                if error:
                    kind = ImageUnusable if field in _USERS_FAULT else EngineRefused
                    self._fail(slot_ids, kind(error))
            case Report(slot_id, kind, words):
                self._reported(slot_id, kind, words)
            case NodeState(node, standing, words) if self._on_node is not None:
                if standing is not Standing.OPEN or node in self._nodes:
                    log.info("cluster's node stands", node=node, standing=standing.value, reason=words)
                self._nodes[node] = message
                self._on_node(node, standing, words)
                # A set without executors of other machines leaves the choice of the node to the cluster.
                own = best(self._nodes.values())
                self._on_node("", own.standing, own.words)

    def _reported(self, slot_id: str, kind: Kind, words: str) -> None:
        if kind in OVER:
            self._leaving.ended(slot_id, kind)
        slot = self._slots.get(slot_id)
        if slot is None:
            return
        slot.kind, slot.words = kind, words
        if kind not in BLOCKED:
            slot.wait_no_longer()
        if kind is Kind.RUNNING:
            slot.succeed()
        elif kind in BLOCKED:
            if slot.blocked is None:
                slot.blocked = asyncio.get_running_loop().call_later(
                    self._settings.blocked_wait_s, self._blocked_long, slot
                )
        elif kind is Kind.NODE_LOST:
            self._node_lost(slot_id, slot, words)
        elif kind in OVER:
            self._over(slot_id, slot, kind, words)

    def _node_lost(self, slot_id: str, slot: Start, words: str) -> None:
        """The servers have lost sight of the node. A slot whose guest is connected serves on: if the node is gone, its
        executor's link breaks within seconds, and else nobody need lose a task."""
        if slot.connected:
            log.info("slot serves on, though the cluster has lost its node", slot=slot_id, reason=words)
        elif slot.started:
            self._gone(slot_id, words)
        else:
            slot.fail(slot.error(Kind.NODE_LOST, words))

    def _over(self, slot_id: str, slot: Start, kind: Kind, words: str) -> None:
        if slot.started:
            self._gone(slot_id, words)
            return
        if kind in (Kind.ENDED, Kind.OUT_OF_MEMORY, Kind.STOPPED):
            # It did start, and was over before the cluster had said so.
            slot.gone = words
            slot.succeed()
            return
        slot.fail(slot.error(kind, words))

    def _blocked_long(self, slot: Start) -> None:
        slot.blocked = None
        kind = NoRoom if slot.kind is Kind.NO_CAPACITY else EngineRefused
        slot.fail(kind(f"the cluster cannot place a slot: {slot.words}"))
