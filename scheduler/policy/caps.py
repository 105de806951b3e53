"""Bounds how many slots an account has, and how many of them one image. Pure.

An account that has as many slots as it may makes room among its own: an idle slot gives its place to a pool whose tasks
wait, and a busy one after its task. Nobody else's slots are touched.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from scheduler.policy.limits import SCAN_LIMIT, Limits

if TYPE_CHECKING:
    from scheduler.policy.pool import Pool, Slot
    from scheduler.pool import PoolKey

T = TypeVar("T")

IDLE_COMPARED: Final = 1024
"""How many pools with idle slots are compared to find the slot that gives its place to another pool of its account."""


class Caps:
    """Counts the slots of accounts and of their images, and knows the pools that are at a bound."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._counts = limits.bounds_slots
        self._of_account: Counter[str] = Counter()
        self._of_image: Counter[tuple[str, str]] = Counter()
        # By account, the pools that want a slot and may have none until another of the account is gone.
        self.held_back: dict[str, dict[Pool, None]] = {}

    def most(self, key: PoolKey) -> float:
        """The most slots that the pool may have by these bounds; infinite where there are none."""
        return min(self._limits.slots_of(key.account), self._limits.max_slots_image or float("inf"))

    def words(self, key: PoolKey) -> str:
        """Say which bound keeps the pool from another slot; "" where none does."""
        if not self._counts:
            return ""
        most = self._limits.slots_of(key.account)
        if self._of_account[key.account] >= most:
            return f"its account has as many slots as it may ({most:g})"
        most_image = self._limits.max_slots_image
        if most_image is not None and self._of_image[key.account, key.image_digest] >= most_image:
            return f"its account has as many slots of its image as it may ({most_image})"
        return ""

    def fill(self, key: PoolKey, gone: PoolKey | None = None) -> bool:
        """Return True if the pool may have no other slot. `gone`: counted as if a slot of this pool were gone."""
        if not self._counts:
            return False
        same_account = gone is not None and gone.account == key.account
        if self._of_account[key.account] - same_account >= self._limits.slots_of(key.account):
            return True
        most_image = self._limits.max_slots_image
        if most_image is None:
            return False
        same_image = same_account and gone is not None and gone.image_digest == key.image_digest
        return self._of_image[key.account, key.image_digest] - same_image >= most_image

    def slot_added(self, key: PoolKey) -> None:
        """A slot of the pool was started."""
        if self._counts:
            self._of_account[key.account] += 1
            self._of_image[key.account, key.image_digest] += 1

    def slot_removed(self, key: PoolKey) -> list[Pool]:
        """A slot of the pool is gone. Returns pools that were held back: each must be filed."""
        if not self._counts:
            return []
        _less(self._of_account, key.account)
        _less(self._of_image, (key.account, key.image_digest))
        free = list(islice(self.held_back.get(key.account, ()), SCAN_LIMIT))
        for pool in free:
            self.drop(pool)
        return free

    # -- pools that are held back

    def hold_back(self, pool: Pool) -> None:
        """The pool wants a slot that it may not have."""
        self.held_back.setdefault(pool.key.account, {})[pool] = None

    def holds_back(self, pool: Pool) -> bool:
        """Return True if the pool waits until another slot of its account is gone."""
        return pool in self.held_back.get(pool.key.account, ())

    def drop(self, pool: Pool) -> None:
        """The pool is held back no longer; harmless if it was not."""
        pools = self.held_back.get(pool.key.account)
        if pools is not None and pool in pools:
            del pools[pool]
            if not pools:
                del self.held_back[pool.key.account]

    def may_take(self, pool: Pool) -> list[Pool]:
        """The pool has an idle slot to give. Returns normal pools that were held back and could take its place: each
        must be filed."""
        found = [
            other
            for other in islice(self.held_back.get(pool.key.account, ()), SCAN_LIMIT)
            if other is not pool
            and other.waiting
            and not other.is_spare
            and not self.fill(other.key, pool.key)
        ]
        for other in found:
            self.drop(other)
        return found

    def taker(self, slot: Slot) -> Pool | None:
        """The normal pool with the fewest slots that is held back and could take the slot's place."""
        found: Pool | None = None
        for pool in islice(self.held_back.get(slot.pool.key.account, ()), SCAN_LIMIT):
            if (
                pool.waiting
                and not pool.is_spare
                and (found is None or pool.slots < found.slots)
                and not self.fill(pool.key, slot.pool.key)
                and slot.node.suits(pool.key)
            ):
                found = pool
        return found

    def giver(self, wanting: Pool, givers: dict[Pool, None]) -> Slot | None:
        """The slot, longest idle, that gives its place to another pool of its account."""
        best: Slot | None = None
        for pool in islice(givers, IDLE_COMPARED):
            if (
                pool is not wanting
                and pool.key.account == wanting.key.account
                and (len(pool.idle) > len(pool.waiting) or (pool.idle and pool.is_spare))
                and not self.fill(wanting.key, pool.key)
            ):
                slot = next(iter(pool.idle))
                if best is None or slot.since < best.since:
                    best = slot
        return best


def _less(counts: Counter[T], name: T) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
