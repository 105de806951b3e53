"""Requests that have no answer yet, by the second in which they began. Pure; bounded by a worker's connections.

A release that judges only ended requests never sees the ones that hang: the survivors look well.
"""

from __future__ import annotations

from router.counting.tally import bucket_of


class OpenRequests:
    """Those of one cohort, for as long as the same weights are in force. Times are seconds of any monotonic clock."""

    __slots__ = ("_by_second",)

    def __init__(self) -> None:
        self._by_second: dict[int, int] = {}

    def began(self, at_s: float) -> None:
        """A request is waiting for its answer from now on."""
        second = int(at_s)
        self._by_second[second] = self._by_second.get(second, 0) + 1

    def ended(self, at_s: float) -> None:
        """The request that began at `at_s` has its answer, or gets none."""
        second = int(at_s)
        left = self._by_second.get(second, 0) - 1
        if left > 0:
            self._by_second[second] = left
        else:
            self._by_second.pop(second, None)

    def ages(self, now_s: float) -> dict[int, int]:
        """Latency bucket → requests that have waited this long, at least."""
        found: dict[int, int] = {}
        for second, count in self._by_second.items():
            bucket = bucket_of((now_s - second - 1.0) * 1e6)
            found[bucket] = found.get(bucket, 0) + count
        return found
