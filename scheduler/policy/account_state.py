"""The accounts of a cell as operators see them: what each holds, what of it waits, and who floods the set. Pure.

An account floods while tasks of others wait and it has much more than its fair part: its weight over the weights of
all accounts with tasks. It changes nothing in how the set shares: operators learn whose load the others feel, and may
change weights or limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from heapq import nsmallest
from typing import Final

import msgspec

from scheduler.errors import BadRequest
from scheduler.policy.books import Books
from scheduler.policy.node_state import SLOT_STATES
from scheduler.policy.pool import Pool
from scheduler.policy.pool_state import oldest_wait, slots_of

FLOOD_TASKS: Final = 100
"""Least number of waiting tasks that count as a flood: a few tasks are the larger part of a short queue."""

_CURSOR: Final = re.compile(r"([0-9]{1,12})-([0-9]{1,12})-(.{1,100})")


class AccountState(msgspec.Struct, frozen=True):
    """An account as it is now. `cpu_percent_held` is in hundredths of a core, `oldest_wait_s` in seconds, None: no task
    waits.

    `queued` tasks wait for a slot, `paused` ones for the end of a pause before their next attempt. `fair_part` of all
    cores is what it gets while all accounts with tasks want as much as they can have. `floods` names of what it has too
    much: `queue`, `cores`, `slots`.
    """

    account: str
    weight: int
    pools: int
    queued: int
    paused: int
    running: int
    cpu_percent_held: int
    memory_mib_held: int
    slots: dict[str, int]
    oldest_wait_s: float | None
    fair_part: float
    floods: tuple[str, ...]


class _Sums:
    """Sums over the pools of one account."""

    __slots__ = ("cpu_percent", "memory_mib", "oldest_s", "paused", "pools", "queued", "running", "slots")

    def __init__(self) -> None:
        self.pools = self.queued = self.paused = self.running = self.cpu_percent = self.memory_mib = 0
        self.slots = dict.fromkeys(SLOT_STATES, 0)
        self.oldest_s: float | None = None

    def add(self, pool: Pool, now: float) -> None:
        running = len(pool.running)
        self.pools += 1
        self.queued += len(pool.waiting)
        self.paused += pool.paused
        self.running += running
        self.cpu_percent += running * pool.cpu_percent
        self.memory_mib += running * pool.memory_mib
        for state, number in slots_of(pool).items():
            self.slots[state] += number
        waited_s = oldest_wait(pool, now)
        if waited_s is not None:
            self.oldest_s = max(waited_s, self.oldest_s or 0.0)

    @property
    def is_active(self) -> bool:
        return bool(self.queued or self.running)


def accounts(books: Books, now: float, most: int, after: str = "") -> list[AccountState]:
    """The first `most` accounts of those behind the cursor `after`: those with most waiting tasks first, of equal ones
    those that hold most cores.

    Raises `BadRequest` for a cursor that `cursor_of` did not make.
    """
    behind = _place(after)
    sums: dict[str, _Sums] = {}
    for pool in books.pools.values():
        name = pool.key.account
        own = sums.get(name)
        if own is None:
            own = sums[name] = _Sums()
        own.add(pool, now)
    weight = books.limits.weight_of
    weights = sum(weight(name) for name, own in sums.items() if own.is_active)
    first = nsmallest(most, (place for place in _places(sums) if place > behind))
    found = []
    for _, _, name in first:
        own = sums[name]
        fair = weight(name) / weights if own.is_active else 0.0
        found.append(
            AccountState(
                name,
                weight(name),
                own.pools,
                own.queued,
                own.paused,
                own.running,
                own.cpu_percent,
                own.memory_mib,
                own.slots,
                own.oldest_s,
                round(fair, 4),
                tuple(_floods(own, fair, books)),
            )
        )
    return found


def cursor_of(state: AccountState) -> str:
    """The cursor of the accounts behind this one. The order follows the queue, so a page may repeat or miss an account
    whose queue changes meanwhile."""
    return f"{state.queued}-{state.cpu_percent_held}-{state.account}"


def _floods(own: _Sums, fair: float, books: Books) -> Iterator[str]:
    queued = books.queue.waiting
    if queued == own.queued:
        # It is in nobody's way.
        return
    # Twice the fair part; but where that is most of all, half of the way from the fair part to all.
    much = min(2 * fair, (1 + fair) / 2)
    if own.queued >= FLOOD_TASKS and own.queued > much * queued:
        yield "queue"
    if own.cpu_percent > much * books.nodes.cpu_percent:
        yield "cores"
    if sum(own.slots.values()) > much * books.nodes.max_slots:
        yield "slots"


def _places(sums: dict[str, _Sums]) -> Iterable[tuple[int, int, str]]:
    return ((-own.queued, -own.cpu_percent, name) for name, own in sums.items())


def _place(cursor: str) -> tuple[int, int, str]:
    if not cursor:
        return (-(1 << 62), 0, "")
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest("after: give the `next` of the page before, or leave it out", field="after")
    return (-int(match[1]), -int(match[2]), match[3])
