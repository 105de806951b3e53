"""The resources and the waits of a cell."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from scheduler.backoff import Backoff
from scheduler.policy.tenancy import Tenancy

USUAL_WEIGHT: Final = 1
"""The weight of an account that `Limits.account_weights` does not name."""
SCAN_LIMIT: Final = 64
"""Number of pools, or slots of one pool, that one decision compares if the first ones do not fit."""


class KeepAlive(StrEnum):
    """How long idle slots are kept."""

    FIXED = "fixed"
    LEARNT = "learnt"
    """As each pool's own idle times advise (`idle_times`); slots are also started ahead of need."""


class Limits(msgspec.Struct, frozen=True):
    """Limits of the set. Times are seconds.

    `cpu_percent`, `memory_mib` and `max_slots` are those of the set's own machine, where it has no other nodes.
    `keep_idle_s`: how long an idle slot is kept; with `keep_alive` learnt, that is what a start is worth.
    `patience_s`: how long a task that is too large for the free room may be overtaken, and how long a pool without
    any slot waits until one of a busy pool gives way. `fresh_ahead`: the most slots that a fresh pool has ready.
    `new_pools_account_per_s`: how many new pools an account may add per second; None: no bound.
    `max_slots_account`: the most slots of one account, where `account_slots` does not name it; `max_slots_image`: the
    most slots of an account for one image. None: as many as there are places.
    `account_weights`: how many times as much of the cores and places as others an account gets while they compete; 1
    where it is not named. `tenancy`: that of the accounts that `account_tenancy` does not name. `node_turn_s`: how long
    an account may use a node of its own at least, while others wait for one.
    """

    cpu_percent: int = 200
    memory_mib: int = 8192
    max_slots: int = 32
    max_slots_account: int | None = None
    max_slots_image: int | None = None
    account_slots: dict[str, int] = {}
    max_waiting: int = 100_000
    max_waiting_account: int = 20_000
    keep_idle_s: float = 300.0
    keep_alive: KeepAlive = KeepAlive.LEARNT
    start_backoff_s: float = 0.5
    start_backoff_max_s: float = 30.0
    start_timeout_s: float = 60.0
    patience_s: float = 1.0
    fresh_ahead: int = 8
    max_pools: int = 20_000
    max_pools_account: int = 1000
    new_pools_account_per_s: float | None = None
    account_weights: dict[str, int] = {}
    tenancy: Tenancy = Tenancy.SHARED
    account_tenancy: dict[str, Tenancy] = {}
    node_turn_s: float = 10.0

    def __post_init__(self) -> None:
        for account, weight in self.account_weights.items():
            if weight < 1:
                raise ValueError(
                    f"account_weights: the weight of {account} is {weight}; weights are 1 or more"
                )

    @property
    def some_need_own_nodes(self) -> bool:
        """True if an account may need nodes of its own."""
        return Tenancy.DEDICATED in (self.tenancy, *self.account_tenancy.values())

    @property
    def bounds_slots(self) -> bool:
        """True if the slots of an account or of an image are bounded."""
        return bool(self.max_slots_account or self.max_slots_image or self.account_slots)

    def slots_of(self, account: str) -> float:
        """The most slots of an account; infinite where nothing bounds them."""
        return self.account_slots.get(account, self.max_slots_account or float("inf"))

    def weight_of(self, account: str) -> int:
        """The weight of an account."""
        return self.account_weights.get(account, USUAL_WEIGHT)


class Retries(msgspec.Struct, frozen=True):
    """How an attempt that the platform lost is made again: `max_attempts` in all, with pauses in between.

    `own`: the pauses of tasks that failed by themselves and asked to be run again.
    """

    max_attempts: int = 3
    usual: Backoff = Backoff(0.25, 30.0)
    full_disk: Backoff = Backoff(5.0, 30.0)
    own: Backoff = Backoff(1.0, 300.0)


def number_slots(prefix: str) -> Iterator[str]:
    """Endless slot ids: `prefix` and a number."""
    number = 0
    while True:
        number += 1
        yield f"{prefix}{number}"
