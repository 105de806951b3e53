"""Removes containers in the background, and tries again for as long as the engine cannot remove them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from scheduler.backoff import Backoff
from scheduler.errors import EngineUnavailable
from scheduler.launchers.docker_engine import REMOVALS_AT_ONCE, Engine, Removal
from scheduler.trouble import Trouble

_AGAIN: Final = Backoff(0.25, 60.0)
_RETRIES_AT_ONCE: Final = 1
"""Part of REMOVALS_AT_ONCE for repeated removals, so that stuck containers do not delay others."""
_LIST_AGAIN: Final = Backoff(0.05, 1.0)


class Removals:
    """Removes containers by name. Nothing here raises: what fails is tried again until it is gone, or `close`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._removing: dict[str, _Container] = {}
        self._first_tries = asyncio.Semaphore(REMOVALS_AT_ONCE - _RETRIES_AT_ONCE)
        self._retries = asyncio.Semaphore(_RETRIES_AT_ONCE)
        # The engine may still list them: for a moment, or for ever if it was killed while it removed one.
        self._gone: set[str] = set()
        self._trouble = Trouble("slots could not be removed yet", "slots are removed now")

    def want(self, names: Iterable[str]) -> None:
        """Begin to remove these containers, unless that has begun."""
        for name in names:
            if name not in self._gone and name not in self._removing:
                self._removing[name] = _Container(asyncio.create_task(self._remove(name)))

    async def remove(self, name: str) -> None:
        """Like `want`, but returns once the engine was asked, whatever it answered."""
        self.want([name])
        if (container := self._removing.get(name)) is not None:
            await container.asked.wait()

    def listed(self, names: Collection[str]) -> None:
        """The engine lists these containers of the set, so all others are gone."""
        self._gone.intersection_update(names)
        for name in [name for name in self._removing if name not in names]:
            self._removing[name].task.cancel()
            self._forget(name)

    def hurry(self) -> None:
        """The engine answers again: try all now."""
        for container in self._removing.values():
            container.again.set()

    async def clear(self, timeout_s: float) -> int:
        """Remove every container of the set; returns how many are left after `timeout_s`. Their removals go on.

        Raises `EngineUnavailable` where the engine does not list them.
        """
        left: set[str] = set()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for pause_s in _LIST_AGAIN:
                    left = {container.name for container in await self._engine.list_slots()}
                    self.listed(left)
                    self.want(left)
                    if left <= self._gone:
                        break
                    await asyncio.sleep(pause_s)
        return len(left - self._gone)

    async def close(self) -> None:
        """Give up what is left."""
        tasks = [container.task for container in self._removing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _remove(self, name: str) -> None:
        container, turns, pauses_s = self._removing[name], self._first_tries, iter(_AGAIN)
        while not await self._try(name, turns):
            container.asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(next(pauses_s)):
                    await container.again.wait()
            container.again.clear()
            turns = self._retries
        container.asked.set()
        self._forget(name)

    async def _try(self, name: str, turns: asyncio.Semaphore) -> bool:
        """Return True if nothing is left to do."""
        async with turns:
            try:
                outcome = await self._engine.remove(name)
            except EngineUnavailable as error:
                self._trouble.met(str(error), containers=len(self._removing), container=name)
                return False
        # One whose removal is under way is listed again if that fails.
        if outcome is Removal.GONE:
            self._gone.add(name)
        return True

    def _forget(self, name: str) -> None:
        self._removing.pop(name, None)
        if not self._removing:
            self._trouble.over()


class _Container:
    __slots__ = ("again", "asked", "task")

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.asked = asyncio.Event()
        """The engine was told to remove it, whatever it answered."""
        self.again = asyncio.Event()
        """The next try need not wait."""
