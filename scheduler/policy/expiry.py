"""When the store is asked to remove tasks that are no longer kept, and for how many of them. Pure."""

from __future__ import annotations

from typing import Final

ROWS: Final = 1_000
"""How many tasks the store removes in one round, at most: a round holds up other writes for some milliseconds."""
LEAST_ROUNDS: Final = 2
"""Rounds at each time: more than tasks end, so that a backlog shrinks."""


class Expiry:
    """Counts the tasks that ended; each is a row that will have to go."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._ended = 0

    def task_ended(self) -> None:
        """One more row."""
        self._ended += 1

    def rounds(self) -> int:
        """How many rounds are due now: for twice as many rows as tasks ended since the last time, and some more."""
        rounds, self._ended = LEAST_ROUNDS + 2 * self._ended // ROWS, 0
        return rounds
