"""Carries out what the policy decides about slots: starts them, lets them go, learns how they died."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from scheduler.background import Background
from scheduler.clearance import Clearance
from scheduler.errors import ImageUnknown, ImageUnusable, NoRoom, SchedulerError
from scheduler.execution import Executor
from scheduler.image import Image
from scheduler.launchers.contract import Launcher, SlotOrder
from scheduler.pool import PoolKey

log = structlog.get_logger()

Gone = Callable[[str, str, SchedulerError | None], None]
"""Called with a slot id, the reason in words, and the error of its start, where `Cell.slot_gone` acts on it."""

TOKEN_BYTES: Final = 32
"""Random bytes of the token by which a slot's guest proves itself."""
POST_MORTEMS_KEPT: Final = 1_000
"""Number of lost slots whose cause of death is remembered; the oldest is forgotten first. Their tasks ask at once."""


class _Start:
    """A start under way. `over` is set when the guest says hello, or when waiting for it is pointless."""

    __slots__ = ("over", "task")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class SlotKeeper:
    """The slots of one set. `gone` is called for every slot that ends without `stop`, `started` with start times in s.

    `clearance`: told of every slot that ends, where somebody wants to know when it is gone. `clock` gives seconds. How
    long a start may take is the cell's to decide: then it calls `drop`.
    """

    def __init__(
        self,
        launcher: Launcher,
        executor: Executor,
        gone: Gone,
        clearance: Clearance | None = None,
        *,
        started: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._launcher = launcher
        self._clearance = clearance
        self._executor = executor
        self._gone = gone
        self._started = started
        self._clock = clock
        self._known: set[str] = set()
        self._starting: dict[str, _Start] = {}
        self._post_mortems: dict[str, asyncio.Task[bool]] = {}
        self._background = Background()

    def start(self, slot_id: str, pool: PoolKey, image: Image, node: str = "") -> None:
        """Start a slot on `node` (`SlotOrder.node`); its guest's hello, or `gone`, will tell how it went."""
        self._known.add(slot_id)
        start = self._starting[slot_id] = _Start()
        start.task = self._background.spawn(self._start(slot_id, pool, image, node))

    def stop(self, slot_id: str) -> None:
        """Let a slot go: its guest exits, its container is removed."""
        if slot_id in self._known:
            self._forget(slot_id)
            self._background.spawn(self._remove(slot_id))

    def ready(self, slot_id: str) -> None:
        """The guest said hello."""
        self._launcher.ready(slot_id)
        self._start_over(slot_id)

    def lost(self, slot_id: str, reason: str, error: SchedulerError | None = None) -> None:
        """Handle a slot that can no longer be used: find out why, remove it, report it. Ignores unknown slots."""
        if slot_id not in self._known:
            return
        log.warning("slot lost", slot=slot_id, reason=reason)
        # Before those that ran in it wake up and ask.
        if len(self._post_mortems) >= POST_MORTEMS_KEPT:
            del self._post_mortems[next(iter(self._post_mortems))]
        self._post_mortems[slot_id] = self._background.spawn(self._examine(slot_id), awaited=True)
        self._forget(slot_id)
        self._gone(slot_id, reason, error)

    def drop(self, slot_id: str, reason: str) -> None:
        """Give a slot up that does not start in time, or that is out of reach."""
        start = self._starting.get(slot_id)
        self.lost(slot_id, reason)
        if start is not None and start.task is not None:
            start.task.cancel()

    async def out_of_memory(self, slot_id: str) -> bool:
        """Return True if a lost slot died because its memory was used up."""
        examination = self._post_mortems.get(slot_id)
        if examination is None:
            return False
        try:
            return await asyncio.shield(examination)
        except asyncio.CancelledError:
            if examination.cancelled():
                return False
            raise

    async def close(self) -> None:
        """Let all slots go; what the launcher still has to do for them is its own `close`'s."""
        for slot_id in list(self._known):
            self._forget(slot_id)
        await self._background.stop(0)
        if self._clearance is not None:
            await self._clearance.close()

    def _forget(self, slot_id: str) -> None:
        self._known.discard(slot_id)
        self._executor.discard(slot_id)
        self._start_over(slot_id)
        if self._clearance is not None:
            self._clearance.ended(slot_id)

    def _start_over(self, slot_id: str) -> None:
        if (start := self._starting.get(slot_id)) is not None:
            start.over.set()

    async def _start(self, slot_id: str, pool: PoolKey, image: Image, node: str) -> None:
        began = self._clock()
        try:
            if slot_id not in self._known:
                return
            token = secrets.token_hex(TOKEN_BYTES)
            await self._executor.expect(slot_id, token, node)
            if slot_id not in self._known:
                return
            await self._launcher.start(SlotOrder(slot_id, pool, image, token, node))
            await self._starting[slot_id].over.wait()
        except (ImageUnusable, ImageUnknown, NoRoom) as error:
            self.lost(slot_id, str(error), error)
        except (SchedulerError, OSError) as error:
            self.lost(slot_id, str(error))
        except Exception as error:
            log.error("a slot's start failed in an unforeseen way", slot=slot_id, exc_info=error)
            self.lost(slot_id, f"{type(error).__name__}: {error}")
        else:
            if slot_id in self._known:
                self._started(self._clock() - began)
        finally:
            del self._starting[slot_id]

    async def _remove(self, slot_id: str) -> None:
        try:
            await self._launcher.stop(slot_id)
        except SchedulerError as error:
            # The launcher's next start removes it as a leftover.
            log.warning("slot could not be removed", slot=slot_id, error=str(error))

    async def _examine(self, slot_id: str) -> bool:
        found = False
        try:
            found = await self._launcher.was_out_of_memory(slot_id)
        except SchedulerError as error:
            log.warning("a lost slot could not be examined", slot=slot_id, error=str(error))
        self._background.spawn(self._remove(slot_id))
        return found
