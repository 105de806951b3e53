"""Caps how much one sticky key counts in a cohort, so that one user's broken requests decide no release. Pure, bounded.

Keys are told apart by 12 bits of theirs: two that share these share a cap, which costs some evidence and no truth.
"""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 4096
SHARE: Final = 0.01
"""Maximum share of all that counts which one key may have; below the usual margin of two points …"""
FAIR_SHARES: Final = 2.0
"""… or so many times what each key has on average, where there are few keys …"""
FEW: Final = 3
"""… and always these few."""


class KeyShares:
    """The counted requests of one cohort, by key."""

    __slots__ = ("_beside", "_by_bucket", "total")

    def __init__(self, beside: KeyShares | None = None) -> None:
        """`beside`: what counts already, to whose keys and number those here are compared."""
        self._beside = beside
        self._by_bucket: dict[int, int] = {}
        self.total = 0
        """All that counts."""

    def admit(self, key: int) -> bool:
        """Count one more of this key, and return True, unless it has its share already."""
        bucket = key % BUCKETS
        mine = self._by_bucket.get(bucket, 0)
        if mine >= FEW:
            total, keys = self.total, len(self._by_bucket)
            if self._beside is not None:
                total += self._beside.total
                keys = max(keys, len(self._beside._by_bucket))
            if mine >= max(FAIR_SHARES * total / keys, SHARE * total):
                return False
        self._by_bucket[bucket] = mine + 1
        self.total += 1
        return True

    def release(self, key: int) -> None:
        """One of this key counts no longer."""
        bucket = key % BUCKETS
        left = self._by_bucket[bucket] - 1
        self.total -= 1
        if left:
            self._by_bucket[bucket] = left
        else:
            del self._by_bucket[bucket]
