"""Which requests are compared. Pure, and the same in every worker and instance, without talking.

The canary's own requests are compared with those of a **control cohort of the same size**: an equal slice of
keys that live on the old sets over the same period, not with all of production. (All of production is a
larger sample with other users, other caches and other hours.) The slice is drawn by a second, independent hash
of the sticky key: a key whose home is an old set is control when its draw lies below canary share / old
share. So nobody is moved for the comparison, the slice is nested (a growing step keeps the control keys that
it had, but for those that the canary takes), and the expected sizes are equal at every weight. Where the canary
has more than half, it is the canary that is thinned, and all the rest is control.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from router.routing.weights import draw, key_hash

_SEED: Final = key_hash(b"cohort\0control")


class Cohort(StrEnum):
    """REST: routed as ever, and not compared."""

    CANARY = "canary"
    CONTROL = "control"
    REST = "rest"


class Cohorts:
    """Assigns requests, given each one's home set and key. `shares` are the effective weights, in any unit."""

    __slots__ = ("_canary", "canary_below", "control_below")

    def __init__(self, canary: str, shares: Mapping[str, int]) -> None:
        mine = shares.get(canary, 0)
        others = sum(shares.values()) - mine
        self._canary = canary
        self.control_below = min(1.0, mine / others) if others else 0.0
        """Keys of old sets that draw less than this are control."""
        self.canary_below = min(1.0, others / mine) if mine and others else float(mine > 0)
        """Keys of the canary that draw less than this are compared: all of them, up to a weight of one half, and
        without any other set."""

    def of(self, home: str, key: int) -> Cohort:
        """The cohort of a request that the weights alone send to `home`."""
        if home == self._canary:
            return Cohort.CANARY if draw(_SEED, key) < self.canary_below else Cohort.REST
        return Cohort.CONTROL if draw(_SEED, key) < self.control_below else Cohort.REST
