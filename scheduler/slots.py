"""Carries out what the policy decides about slots: starts them, lets them go, learns how they died."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from scheduler.errors import ImageUnknown, ImageUnusable, SchedulerError, SlotLost
from scheduler.execution import Executor
from scheduler.image import Image
from scheduler.launchers.contract import Launcher, PoolKey, SlotOrder

log = structlog.get_logger()

Gone = Callable[[str, Exception | None], None]
"""Called with a slot id, and the error when no slot of its pool can ever start."""


class SlotKeeper:
    """The slots of one set. `gone` hears of every slot that ends without `stop`."""

    def __init__(self, launcher: Launcher, executor: Executor, gone: Gone, start_timeout_s: float) -> None:
        self._launcher = launcher
        self._executor = executor
        self._gone = gone
        self._start_timeout_s = start_timeout_s
        self._starting: dict[str, asyncio.Event] = {}
        self._known: set[str] = set()
        self._post_mortems: dict[str, asyncio.Task[bool]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.start_seconds: Callable[[float], None] = lambda _seconds: None

    def start(self, slot_id: str, pool: PoolKey, image: Image) -> None:
        """Start a slot; its guest's hello, or `gone`, will tell how it went."""
        self._known.add(slot_id)
        self._spawn(self._start(slot_id, pool, image))

    def stop(self, slot_id: str) -> None:
        """Let a slot go: its guest exits, its container is removed."""
        if slot_id in self._known:
            self._known.discard(slot_id)
            self._executor.discard(slot_id)
            self._spawn(self._remove(slot_id))

    def ready(self, slot_id: str) -> None:
        """The guest said hello."""
        event = self._starting.get(slot_id)
        if event is not None:
            event.set()

    def lost(self, slot_id: str, reason: str, fatal: Exception | None = None) -> None:
        """A slot is of no more use: find out why, remove it, tell."""
        if slot_id not in self._known:
            return
        self._known.discard(slot_id)
        log.warning("slot lost", slot=slot_id, reason=reason)
        self._executor.discard(slot_id)
        self._post_mortems[slot_id] = self._spawn(self._examine(slot_id))
        self._gone(slot_id, fatal)

    async def out_of_memory(self, slot_id: str) -> bool:
        """Whether a lost slot died because its memory was used up."""
        task = self._post_mortems.get(slot_id)
        return task is not None and await asyncio.shield(task)

    async def close(self) -> None:
        """Let all slots go and wait until they are."""
        for slot_id in list(self._known):
            self._known.discard(slot_id)
            self._executor.discard(slot_id)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self, slot_id: str, pool: PoolKey, image: Image) -> None:
        event = self._starting[slot_id] = asyncio.Event()
        began = time.monotonic()
        try:
            address = self._executor.prepare(slot_id)
            order = SlotOrder(slot_id, pool, image, address.directory, address.token)
            async with asyncio.timeout(self._start_timeout_s):
                await self._launcher.start(order)
                await event.wait()
            self.start_seconds(time.monotonic() - began)
        except (ImageUnusable, ImageUnknown) as error:
            self.lost(slot_id, str(error), error)
        except TimeoutError:
            self.lost(slot_id, f"it did not start within {self._start_timeout_s:g} s")
        except (SchedulerError, OSError, SlotLost) as error:
            self.lost(slot_id, str(error))
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
        await self._remove(slot_id)
        # Tasks that ask do so at once; what is known is kept for a minute.
        asyncio.get_running_loop().call_later(60, self._post_mortems.pop, slot_id, None)
        return found

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
