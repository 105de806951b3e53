"""The window of a batch: how many of its tasks wait at a time. Pure."""

from __future__ import annotations

from typing import Final

LEAST: Final = 32
"""Fewest tasks of a batch that wait for a slot while it has more: enough that a slot never waits for the disk."""
MOST: Final = 1_000
"""Most tasks of a batch that wait for a slot: each takes memory, and one that is cancelled must be ended."""
AT_ONCE: Final = 100
"""Most tasks that are made in one write."""
AT_ONCE_BYTES: Final = 4 << 20
"""Most bytes of inputs that are held in memory for one write."""


class Window:
    """Decides how many tasks a batch may make now, so that as many wait as run, within bounds.

    `account_most`: how many tasks of one account's batches may be there at a time, all batches together; the rest of
    what an account may queue is left to its single tasks.
    """

    def __init__(self, account_most: int) -> None:
        self._account_most = max(1, account_most)
        self._target = LEAST
        # Above this many tasks that are there, none is made.
        self._make_at = LEAST // 2

    def is_open(self, live: int) -> bool:
        """Return True if it is time to look whether tasks may be made, where `live` wait or run."""
        return live <= self._make_at

    def room(self, waiting: int, running: int, account_live: int) -> int:
        """How many tasks to make now. `account_live`: all tasks of the account's batches that wait or run.

        They are made in portions: none before half of the window is empty.
        """
        self._target = min(MOST, max(LEAST, running))
        self._make_at = running + self._target // 2
        if waiting > self._target // 2:
            return 0
        return max(0, min(self._target - waiting, self._account_most - account_live, AT_ONCE))
