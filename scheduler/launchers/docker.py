"""Slots as containers of a Docker engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

import structlog

from scheduler.backoff import Backoff
from scheduler.errors import EngineRefused, EngineUnavailable, EngineUnfit, SchedulerError
from scheduler.images.places import Layout
from scheduler.launchers.contract import SlotGone, SlotOrder
from scheduler.launchers.docker_config import DockerSettings, container_name, create_body
from scheduler.launchers.docker_contents import Contents
from scheduler.launchers.docker_deaths import Deaths
from scheduler.launchers.docker_engine import ContentsGone, Engine
from scheduler.launchers.docker_events import EventStream, SlotEvent
from scheduler.launchers.docker_images import Images
from scheduler.launchers.docker_layouts import DockerLayouts
from scheduler.launchers.docker_removals import Removals
from scheduler.launchers.docker_separation import Separation
from scheduler.launchers.doorway import CONTENT_FILE, LeaveFile, SlotFolder, into
from scheduler.launchers.endings import how_it_ended
from scheduler.launchers.seccomp import profile_json
from scheduler.launchers.start_gate import StartGate
from scheduler.trouble import Trouble

log = structlog.get_logger()

_OOM_EVENT_WAIT_S: Final = 0.5
_OOM_EVENT_POLL_S: Final = 0.02
_OPEN_CLEAN_UP_S: Final = 5.0
"""How long `open` waits for an earlier run's containers to be removed, in seconds; the rest is removed later."""
_CLOSE_STARTS_S: Final = 10.0
_CLOSE_CLEAN_UP_S: Final = 15.0
_RELIST_AGAIN: Final = Backoff(0.25, 5.0)


class _Phase(StrEnum):
    STARTING = "starting"
    RUNNING = "running"


class _Slot:
    __slots__ = ("gone", "name", "phase", "running_since", "stopped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = _Phase.STARTING
        self.running_since = 0.0
        self.stopped = False
        self.gone: str | None = None


class DockerLauncher:
    """Implements `contract.Launcher` on one Docker engine.

    `folder_of` tells where the executor of this machine listens for a slot; `leave` has it leave a file there,
    and by default the launcher does so itself. `on_gone` is called for slots that ended
    without `stop`. `images` are the engine's; the launcher passes on the changes that the engine reports. `open` may be
    called again after it failed. While the engine is away calls raise `EngineUnavailable`; once it is back the launcher
    goes on by itself, and slots that did not survive are reported.
    """

    def __init__(
        self,
        settings: DockerSettings,
        folder_of: SlotFolder,
        on_gone: SlotGone,
        leave: LeaveFile | None = None,
    ) -> None:
        self._settings = settings
        self._folder_of = folder_of
        self._leave = leave or into(folder_of)
        self._on_gone = on_gone
        self._engine = Engine(settings)
        self._gate = StartGate(settings.max_concurrent_starts)
        self.images = Images(self._engine)
        self._layouts = DockerLayouts(self._engine)
        self._contents = Contents(self._engine)
        self._removals = Removals(self._engine)
        self._separation = Separation(self._engine)
        self._events = EventStream(self._engine, self)
        self._slots: dict[str, _Slot] = {}
        self._deaths = Deaths()
        self._starting: set[asyncio.Task[None]] = set()
        self._listing: asyncio.Task[None] | None = None
        self._seccomp: str | None = None
        self._unheard = Trouble("engine events lost", "engine events received again")
        self._unlisted = Trouble(
            "the engine does not list its containers", "the engine lists its containers again"
        )
        self._relist_now = asyncio.Event()
        self._listening = asyncio.Event()
        self._unfit = ""
        self._opened = False
        self._closed = False

    @property
    def slot_life_s(self) -> None:
        """The engine ends no slot."""
        return None

    async def open(self) -> None:
        """Connect, listen to events, and remove the containers that earlier runs of this installation left behind.

        Containers that the engine cannot remove within seconds are removed later. Raises `EngineUnavailable`,
        `EngineUnfit` for a `runtime` that slots can't have, and `OSError` when the seccomp profile cannot be read.
        """
        if self._opened:
            return
        named = self._settings.seccomp_profile
        self._seccomp = profile_json() if named is None else named.read_text(encoding="utf-8")
        facts = await self._engine.learn()
        try:
            self._separation.check(facts)
        except EngineUnfit as error:
            self._unfit = str(error)
            raise
        others = await self._engine.count_others()
        if left := await self._removals.clear(_OPEN_CLEAN_UP_S):
            log.warning(
                "containers of an earlier run remain",
                containers=left,
                next="they are removed while the set runs",
            )
        for installation, containers in others.items():
            log.warning(
                "containers of another installation found",
                set=self._settings.set_name,
                installation=installation or "none (an older version, or not ours)",
                own_installation=self._settings.installation,
                containers=containers,
                next="they are left alone",
            )
        self._opened, self._unfit = True, ""
        self._events.open()
        self._listing = asyncio.create_task(self._keep_listing())
        # Without events all still works, only slower; so this is not insisted on.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._listening.wait()

    async def close(self) -> None:
        """Stop every slot and leave nothing behind. Never raises; takes half a minute at most.

        Containers that a dead or slow engine keeps until then are removed by the next `open`.
        """
        if self._closed:
            return
        self._closed = True
        for slot in self._slots.values():
            slot.stopped = True
        # A start under way removes what it made; only those that no thread has begun are given up.
        self._engine.refuse_starts()
        if self._starting:
            await asyncio.wait(self._starting, timeout=_CLOSE_STARTS_S)
        self._slots.clear()
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        if self._opened:
            try:
                if left := await self._removals.clear(_CLOSE_CLEAN_UP_S):
                    log.warning("slots left behind", containers=left, next="the next start removes them")
            except SchedulerError as error:
                log.warning("slots left behind", reason=str(error), next="the next start removes them")
        await self._removals.close()
        self._events.close()
        await self.images.close()
        await self._layouts.close()
        await self._contents.close()
        self._engine.close()

    async def check(self) -> None:
        """Raises `EngineUnavailable` when the engine does not answer, or before `open`; `EngineUnfit` as `open`."""
        await self._engine.ping()
        if self._unfit:
            raise EngineUnfit(self._unfit)
        if not self._opened:
            raise EngineUnavailable(
                "the container engine answers, but the set has not finished connecting to it; try again"
            )

    async def start(self, order: SlotOrder) -> None:
        """Start a slot; returns once its container runs. A start that fails, or is cancelled, leaves nothing behind.

        Raises `EngineRefused`, `EngineUnavailable`, `ImageUnknown`, `ImageUnusable`.
        """
        if not self._opened or self._closed:
            raise EngineUnavailable(
                self._unfit
                or "the set is not connected to its container engine yet, or is stopping; try again"
            )
        if order.slot_id in self._slots:
            raise EngineRefused(f"slot {order.slot_id} was started already")
        slot = _Slot(container_name(self._settings, order.slot_id))
        self._slots[order.slot_id] = slot
        # A task of its own: a call to the engine cannot be taken back, so a cancelled start must still see its end.
        starting = self._go_on(self._start(order, slot))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            slot.stopped = True
            if starting.done():
                self._go_on(self._discard(order.slot_id, slot))
            raise
        if slot.stopped:
            await self._discard(order.slot_id, slot)
            raise _stopped(order.slot_id)
        slot.phase = _Phase.RUNNING
        slot.running_since = time.monotonic()
        if self._separation.is_open:
            self._go_on(self._separation.slot_started(slot.name, len(self._slots)))
        if slot.gone is not None:
            # After the caller has seen its start return.
            asyncio.get_running_loop().call_soon(self._gone, order.slot_id, slot.gone)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` to its end, even if the caller is cancelled."""
        task = asyncio.create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _start(self, order: SlotOrder, slot: _Slot) -> None:
        slot_id = order.slot_id
        try:
            async with self._gate.turn(order.pool.account):
                await self._lay_out(order, slot)
        except BaseException as error:
            self._forget(slot_id)
            self._deaths.forget(slot_id)
            if isinstance(error, EngineUnavailable):
                # Whether it was created is not known.
                self._relist_now.set()
            raise
        if slot.stopped:
            # The caller may be gone, so this is the place to do it.
            await self._discard(slot_id, slot)
            raise _stopped(slot_id)

    async def _lay_out(self, order: SlotOrder, slot: _Slot) -> None:
        if slot.stopped:
            raise _stopped(order.slot_id)
        laid_out = await self._layouts.layout(order.image)
        try:
            await self._create(order, slot, laid_out)
        except ContentsGone:
            # Somebody removed it, as `docker container prune` does.
            self._contents.lost(order.slot_id)
            await self._create(order, slot, laid_out)

    async def _create(self, order: SlotOrder, slot: _Slot, laid_out: Layout) -> None:
        contents = await self._contents.hold(order.slot_id, order.image, laid_out)
        folder = self._folder_of(order.slot_id)
        if laid_out.content:
            await self._leave(order.slot_id, CONTENT_FILE, laid_out.content)
        body = create_body(
            order, folder, self._settings, self._engine.facts, self._seccomp, laid_out, contents
        )
        await self._engine.start(slot.name, body)

    def _forget(self, slot_id: str) -> None:
        self._slots.pop(slot_id, None)
        if self._contents.release(slot_id):
            # That finds the container that held its content.
            self._relist_now.set()

    async def _discard(self, slot_id: str, slot: _Slot) -> None:
        self._forget(slot_id)
        await self._removals.remove(slot.name)

    def ready(self, slot_id: str) -> None:
        """The engine has said so already."""

    async def stop(self, slot_id: str) -> None:
        """Destroy a slot; unknown ids are fine.

        Never raises: what cannot be destroyed now is destroyed as soon as the engine answers. A slot that is still
        starting is destroyed once it has started.
        """
        slot = self._slots.get(slot_id)
        if slot is None:
            return
        slot.stopped = True
        if slot.phase is _Phase.STARTING:
            return
        await self._discard(slot_id, slot)

    async def there(self) -> frozenset[str]:
        """Return the ids of the slots that have a container, or are about to. A container with content of an image
        counts as one. Raises `EngineUnavailable`."""
        starting = set(self._slots)
        return frozenset(starting | {container.slot_id for container in await self._engine.list_slots()})

    async def was_out_of_memory(self, slot_id: str) -> bool:
        """Return True if the slot's own init was killed when the kernel killed for memory in the slot."""
        # The engine learns of the end and of its reason on different ways, in either order, and may tell us after
        # the slot's own connection did.
        deadline = time.monotonic() + _OOM_EVENT_WAIT_S
        while time.monotonic() < deadline:
            if slot_id not in self._deaths and slot_id not in self._slots:
                return False
            if (found := self._deaths.out_of_memory(slot_id)) is not None:
                return found
            await asyncio.sleep(_OOM_EVENT_POLL_S)
        return False

    # -- called by the event stream (docker_events.Listener)

    def images_changed(self) -> None:
        self.images.changed()

    def stream_opened(self) -> None:
        self._unheard.over()
        self.images.heard = True
        self._removals.hurry()
        self._listening.set()
        self._relist_now.set()

    def stream_lost(self, reason: str) -> None:
        self._unheard.met(reason)
        self.images.heard = False

    def slot_event(self, event: SlotEvent) -> None:
        known = event.slot_id in self._slots or event.slot_id in self._deaths
        if known and self._deaths.reported(event):
            self._gone(event.slot_id, how_it_ended(event.exit_code))

    def _gone(self, slot_id: str, reason: str) -> None:
        slot = self._slots.get(slot_id)
        if slot is None:
            return
        if slot.phase is _Phase.STARTING:
            slot.gone = slot.gone or reason
            return
        self._forget(slot_id)
        self._on_gone(slot_id, reason)

    # Comparing with what the engine lists: after each connection, after doubtful starts, and now and then

    async def _keep_listing(self) -> None:
        pauses_s = iter(_RELIST_AGAIN)
        pause_s = next(pauses_s)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.relist_s):
                    await self._relist_now.wait()
            self._relist_now.clear()
            if self.images.heard:
                try:
                    await self._compare()
                except SchedulerError as error:
                    self._unlisted.met(str(error))
                    self._relist_now.set()
                    pause_s = next(pauses_s)
                else:
                    self._unlisted.over()
                    pauses_s = iter(_RELIST_AGAIN)
                    pause_s = next(pauses_s)
            await asyncio.sleep(pause_s)

    async def _compare(self) -> None:
        asked_at = time.monotonic()
        listed = await self._engine.list_slots()
        alive = {container.slot_id for container in listed if container.alive}
        for slot_id, slot in list(self._slots.items()):
            running_then = slot.phase is _Phase.RUNNING and slot.running_since < asked_at
            if running_then and slot_id not in alive:
                self._gone(slot_id, "its container is gone")
        self._removals.listed({container.name for container in listed})
        needed = (self._slots, self._layouts.looking, self._contents.holding)
        self._removals.want(
            container.name for container in listed if not any(container.slot_id in each for each in needed)
        )


def _stopped(slot_id: str) -> EngineRefused:
    return EngineRefused(f"slot {slot_id} was stopped while it started")
