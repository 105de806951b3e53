"""When the store removes tasks that are no longer kept, and how many; when orphaned blobs are swept. Pure."""

from __future__ import annotations

from typing import Final

from scheduler.policy.decisions import Decision, ExpireRows, SweepBlobs
from scheduler.policy.timers import Timers

ROWS_DUE: Final = "rows"
"""The kind of the timer for the next removal of tasks that are no longer kept."""
SWEEP_DUE: Final = "sweep"
"""The kind of the timer for the next sweep of blobs that no row names."""
ROWS: Final = 1_000
"""How many tasks the store removes in one round, at most: a round holds up other writes for some milliseconds."""
LEAST_ROUNDS: Final = 2
"""Rounds at each time: more than tasks end, so that a backlog shrinks."""
SWEEP_EVERY_S: Final = 86_400.0
"""Seconds between two sweeps of blobs that no row names: few are orphaned, and a sweep lists every blob."""
SWEEP_AGE_S: Final = 3_600.0
"""Least age, in seconds, of a blob that a later sweep removes: a younger one may be about to get its row."""


class Expiry:
    """Counts the tasks that ended; each leaves a row that must be removed. Times are seconds."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._ended = 0
        self._swept = False

    def task_ended(self) -> None:
        """One more row."""
        self._ended += 1

    def due(self, kind: str, timers: Timers[tuple[str, str]], now: float) -> Decision:
        """The time of `ROWS_DUE` or `SWEEP_DUE` has come: what is to be done, with a timer for the next one."""
        if kind is ROWS_DUE:
            timers.set(self.every_s, now, (ROWS_DUE, ""))
            return ExpireRows(self.rounds())
        timers.set(SWEEP_EVERY_S, now, (SWEEP_DUE, ""))
        return SweepBlobs(self.sweep_age_s())

    def rounds(self) -> int:
        """How many rounds are due now: for twice as many rows as tasks ended since the last time, and some more."""
        rounds, self._ended = LEAST_ROUNDS + 2 * self._ended // ROWS, 0
        return rounds

    def sweep_age_s(self) -> float | None:
        """The least age of the blobs that are swept now; None at first: what is older than this run of the set."""
        age_s = SWEEP_AGE_S if self._swept else None
        self._swept = True
        return age_s
