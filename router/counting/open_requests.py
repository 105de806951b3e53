"""Requests that have no answer yet, by the second in which they began. Pure; bounded by a worker's connections.

A release that judges only ended requests never sees the ones that hang: the survivors look well.
"""

from __future__ import annotations

from router.counting.key_shares import KeyShares
from router.counting.tally import bucket_of


class OpenRequests:
    """Those of one cohort, for as long as the same weights are in force. Times are seconds of any monotonic clock."""

    __slots__ = ("_by_second", "_keys")

    def __init__(self, ended: KeyShares) -> None:
        """`ended`: how many ended requests of each key count."""
        self._by_second: dict[int, int] = {}
        self._keys = KeyShares(ended)

    def began(self, at_s: float, key: int) -> bool:
        """A request of this key is waiting for its answer from now on. False: its key has too many that wait."""
        if not self._keys.admit(key):
            return False
        second = int(at_s)
        self._by_second[second] = self._by_second.get(second, 0) + 1
        return True

    def ended(self, at_s: float, key: int) -> None:
        """The request that began at `at_s` has its answer, or gets none. Only for those of which `began` was true."""
        self._keys.release(key)
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
