"""Counts the retries of a process, and decides when one may begin.

When one of two sets ends, half of all requests may need a retry at the same moment. `choosing.retry` says how many may
run beside the requests in flight; this object knows how many there are.
"""

from __future__ import annotations

from collections.abc import Callable

from router.choosing.retry import Admission, RequestKind, admission
from router.routing.policies import RetryPolicy
from router.wire.failure import Failure


class RetryBudget:
    """`running` counts retries at a set, `waiting` those whose time has not come, `refused` those that found no room.
    `requests_in_flight` returns how many requests the process has in work, including those that wait for a retry."""

    def __init__(self, requests_in_flight: Callable[[], int]) -> None:
        self._requests_in_flight = requests_in_flight
        self.running = 0
        self.waiting = 0
        self.refused = 0

    def begin_waiting(self) -> None:
        self.waiting += 1

    def end_waiting(self) -> None:
        self.waiting -= 1

    def begin(self) -> None:
        self.running += 1

    def end(self) -> None:
        self.running -= 1

    def count_on(self, refused: int) -> None:
        """Go on from the count of the worker before."""
        self.refused = refused

    def refuse(self) -> None:
        self.refused += 1

    def admission(
        self, policy: RetryPolicy, kind: RequestKind, failure: Failure, waited_s: float
    ) -> Admission:
        """Decide whether a retry that waited for `waited_s` may begin."""
        return admission(
            policy,
            kind,
            failure,
            active_requests=self._requests_in_flight() - self.waiting,
            active_retries=self.running,
            waiting=self.waiting,
            waited_s=waited_s,
        )
