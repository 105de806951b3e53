"""Opens the launcher of a set, again and again until it opens, beside everything else that the set does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from scheduler.background import Background
from scheduler.backoff import Backoff
from scheduler.errors import EngineUnavailable
from scheduler.launchers.contract import Launcher
from scheduler.trouble import Trouble

log = structlog.get_logger()

WAIT_S: Final = 10.0
"""How long `begin` waits for the launcher, in seconds; a slower one goes on opening while the set already answers."""
AGAIN: Final = Backoff(1.0, 5.0)
"""Pauses between tries to open the launcher."""


class Opening:
    """The opening of one launcher: `begin` once, then `until_open`."""

    def __init__(self, launcher: Launcher, background: Background) -> None:
        self._launcher = launcher
        self._background = background
        self._trying: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Try for the first time. Raises errors of `Launcher.open` that are not the engine's fault."""
        self._trying = self._try()
        await asyncio.wait({self._trying}, timeout=WAIT_S)
        if self._trying.done():
            with suppress(EngineUnavailable):
                self._trying.result()

    async def until_open(self) -> None:
        """Return once the launcher is open; the log says while it is not, and why."""
        trouble = Trouble("slots cannot start yet; trying again", "slots can start now")
        trying = self._trying or self._try()
        if not trying.done():
            log.warning("slots cannot start yet; the set goes on opening", waited_s=WAIT_S)
        for pause_s in AGAIN:
            try:
                await trying
                break
            except EngineUnavailable as error:
                trouble.met(str(error))
            await asyncio.sleep(pause_s)
            trying = self._try()
        trouble.over()

    def _try(self) -> asyncio.Task[None]:
        return self._background.spawn(self._launcher.open(), awaited=True)
