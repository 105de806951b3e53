"""How often a record that the store refuses is written again, and how long new tasks are refused meanwhile. Pure."""

from __future__ import annotations

from typing import Final

from scheduler.backoff import Backoff
from scheduler.errors import DiskFull, SchedulerError, StoreError

PATIENCE_S: Final = 5.0
"""Longest time, in seconds, that an answer waits for a store that refuses its record."""
AGAIN: Final = Backoff(0.05, 1.0)
"""Pauses between attempts to write a record, in seconds."""
REFUSE_S: Final = 1.0
"""Seconds for which new tasks are refused after a record was refused: they could not be answered either."""


class Refusals:
    """Times are seconds of the caller's clock. `patience_s`: how long one record is tried."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._error: SchedulerError | None = None
        self._until = 0.0

    def check(self, now: float) -> None:
        """Raise `DiskFull` or `StoreError` while records are being refused."""
        error = self._error
        if error is not None and now < self._until:
            kind = DiskFull if isinstance(error, DiskFull) else StoreError
            raise kind(str(error))

    def refused(self, error: SchedulerError, tries: int, first_at: float, now: float) -> float | None:
        """The store refused a record for the `tries`th time; it did so first at `first_at`.

        Returns the pause before the next try, in seconds; None: give it up, since its answer has waited long enough.
        """
        self._error, self._until = error, now + REFUSE_S
        pause_s = AGAIN.after(tries)
        return pause_s if now + pause_s <= first_at + self._patience_s else None

    def written(self) -> None:
        """The store took a record: new tasks are welcome at once."""
        self._error = None
