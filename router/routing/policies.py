"""The `health` and `retry` sections of the operators' file. Pure data."""

from __future__ import annotations

from typing import Final

import msgspec

EJECT_AFTER_FAILURES: Final = 5
EJECT_S: Final = 30.0
EJECT_MAX_S: Final = 300.0


class HealthPolicy(msgspec.Struct, frozen=True):
    """The `health` section: what is asked, how often, and how many results change a verdict."""

    path: str = "/readyz"
    interval_s: float = 2.0
    fall: int = 3
    rise: int = 2
    timeout_s: float = 2.0
    slow_start_s: float = 10.0
    eject_after: int = EJECT_AFTER_FAILURES
    """Number of failed requests in a row after which a set is ejected."""
    eject_s: float = EJECT_S
    """Length of an ejection in seconds, times the number of ejections lately."""
    eject_max_s: float = EJECT_MAX_S
    """Longest ejection, in seconds."""

    def away_s(self, times: int) -> float:
        """Return the length of an ejection in seconds for a set that was ejected this often lately."""
        return min(self.eject_max_s, self.eject_s * times)


class RetryPolicy(msgspec.Struct, frozen=True):
    """`attempts` counts the first one. `budget` is a share (0.2) of the requests in flight that may be retries.
    `patience_s` is the longest wait of a retry for room in the budget, if nothing can have run twice."""

    attempts: int = 2
    budget: float = 0.2
    replay_body_max_bytes: int = 64 * 1024
    retry_sync: bool = True
    patience_s: float = 1.5
