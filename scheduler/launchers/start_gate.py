"""Bounds how many slots start at the same time, and lets accounts take turns at it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StartGate:
    """Lets `at_once` starts through; the others wait.

    The account whose turn was longest ago comes next, so that a start never waits for more than one of each other
    account and those under way, however many starts one account has asked for.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        # By account, in the order of their turns.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting(self) -> int:
        """How many starts wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Wait for the account's turn; it lasts as long as the block."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(account)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, account: str) -> None:
        came = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(came)
        try:
            await came
        except asyncio.CancelledError:
            if came.cancelled():
                self._leave(account, came)
            else:
                self._pass_on()
            raise

    def _leave(self, account: str, came: asyncio.Future[None]) -> None:
        mine = self._waiting.get(account)
        if mine is not None and came in mine:
            mine.remove(came)
            if not mine:
                del self._waiting[account]

    def _pass_on(self) -> None:
        while self._waiting:
            account = next(iter(self._waiting))
            mine = self._waiting.pop(account)
            first = mine.popleft()
            if mine:
                # Behind all others that wait.
                self._waiting[account] = mine
            if not first.done():
                first.set_result(None)
                return
            # It was cancelled just now, and its task does not know yet.
        self._free += 1
