"""Finds out when nothing of a slot that has ended is left on its machine, where nodes change hands between accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from scheduler.background import Background
from scheduler.backoff import Backoff
from scheduler.errors import SchedulerError
from scheduler.launchers.contract import Launcher
from scheduler.trouble import Trouble

AGAIN: Final = Backoff(0.05, 2.0)
"""Pauses between two questions to the launcher, in seconds: a slot is gone some tenths of a second after its end."""


class Clearance:
    """Asks the launcher which slots are still there, for as long as some are waited for.

    `removed` is called with the id of each slot of which nothing is left, `leftovers_gone` once nothing is left of what
    an earlier run of the set had started.
    """

    def __init__(
        self, launcher: Launcher, removed: Callable[[str], None], leftovers_gone: Callable[[], None]
    ) -> None:
        self._launcher = launcher
        self._removed = removed
        self._leftovers_gone = leftovers_gone
        self._ended: set[str] = set()
        self._asking = False
        self._background = Background()
        self._unanswered = Trouble(
            "it is not known which slots are still there; no node changes hands",
            "it is known again which slots are there",
        )

    def ended(self, slot_id: str) -> None:
        """The slot is no longer used, and its removal has begun."""
        self._ended.add(slot_id)
        if not self._asking:
            self._asking = True
            self._background.spawn(self._follow())

    def await_leftovers(self) -> None:
        """The launcher is open, and this run has started no slot: whatever is there is an earlier run's."""
        self._background.spawn(self._await_leftovers())

    async def close(self) -> None:
        await self._background.stop(0)

    async def _follow(self) -> None:
        pauses_s = iter(AGAIN)
        while self._ended:
            # The answer of the launcher does not cover slots that end while it is asked.
            asked_for = set(self._ended)
            await asyncio.sleep(next(pauses_s))
            for slot_id in sorted(asked_for - await self._there()):
                pauses_s = iter(AGAIN)
                self._ended.discard(slot_id)
                self._removed(slot_id)
        self._asking = False

    async def _await_leftovers(self) -> None:
        left = await self._there()
        for pause_s in AGAIN:
            if not left:
                break
            await asyncio.sleep(pause_s)
            left &= await self._there()
        self._leftovers_gone()

    async def _there(self) -> frozenset[str]:
        for pause_s in AGAIN:
            try:
                there = await self._launcher.there()
            except SchedulerError as error:
                self._unanswered.met(str(error), slots=len(self._ended))
                await asyncio.sleep(pause_s)
            else:
                self._unanswered.over()
                return there
        raise AssertionError("a backoff has no end")
