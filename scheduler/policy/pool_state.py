"""The pools of a cell as operators see them. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from heapq import nsmallest
from typing import Final

import msgspec

from scheduler.errors import BadRequest
from scheduler.policy.cell import Cell
from scheduler.policy.node_state import SLOT_STATES
from scheduler.policy.pool import Pool
from scheduler.pool import PoolKey

_CURSOR: Final = re.compile(r"([0-9]{1,12})-([0-9a-f]{12})")


class PoolState(msgspec.Struct, frozen=True):
    """A pool as it is now. Times are seconds; None: nothing waits, starts or is paused.

    `id` is a hash of the key. `queued` tasks wait for a slot, `paused` ones for the end of a pause before their next
    attempt. `slots_wanted`: how many slots it would have if there were room for all its tasks, `slots_most` at most.
    `failures` counts the starts in a row that failed; the next one is in `retry_in_s`. `trouble` says why the last one
    failed, `waiting_for` what the pool's first task waits for.
    """

    id: str
    key: PoolKey
    queued: int
    paused: int
    oldest_wait_s: float | None
    slots: dict[str, int]
    slots_wanted: int
    slots_most: int
    starting_s: float | None
    failures: int
    retry_in_s: float | None
    trouble: str
    waiting_for: str | None


def pools(cell: Cell, now: float, most: int, after: str = "", account: str | None = None) -> list[PoolState]:
    """The first `most` pools of those behind the cursor `after`: those with most waiting tasks first.

    With `account`, only that account's. Raises `BadRequest` for a cursor that `cursor_of` did not make.
    """
    behind = _place(after)
    known: Iterable[Pool] = cell.books.pools.values()
    places = (
        (-len(pool.waiting), pool_id(pool.key), pool)
        for pool in known
        if account is None or pool.key.account == account
    )
    first = nsmallest(most, (each for each in places if each[:2] > behind), key=_by_place)
    return [_state(pool, name, now, cell) for _, name, pool in first]


def cursor_of(state: PoolState) -> str:
    """The cursor of the pools behind this one. The order follows the queue, so a page may repeat or miss a pool whose
    queue changes meanwhile."""
    return f"{state.queued}-{state.id}"


def pool_id(key: PoolKey) -> str:
    """Twelve hexadecimal digits that name the pool."""
    return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:12]


def slots_of(pool: Pool) -> dict[str, int]:
    """How many slots of the pool are in each of `SLOT_STATES`."""
    counts = (len(pool.idle), len(pool.starting), len(pool.running))
    return dict(zip(SLOT_STATES, counts, strict=True))


def oldest_wait(pool: Pool, now: float) -> float | None:
    """How long the pool's first task has waited, in seconds; None where none waits."""
    return round(now - next(iter(pool.waiting.values())), 3) if pool.waiting else None


def _state(pool: Pool, name: str, now: float, cell: Cell) -> PoolState:
    limits = cell.limits
    ahead = 0 if pool.ahead is None else pool.ahead.wanted(now, limits.keep_idle_s, limits.fresh_ahead)
    return PoolState(
        name,
        pool.key,
        len(pool.waiting),
        pool.paused,
        oldest_wait(pool, now),
        slots_of(pool),
        min(pool.most, len(pool.running) + len(pool.waiting) + ahead),
        pool.most,
        round(now - min(slot.since for slot in pool.starting), 3) if pool.starting else None,
        pool.failures,
        round(pool.retry_at - now, 3) if pool.retry_at > now else None,
        pool.trouble,
        cell.words(pool, now) if pool.waiting else None,
    )


def _place(cursor: str) -> tuple[int, str]:
    if not cursor:
        return (-(1 << 62), "")
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest("after: give the `next` of the page before, or leave it out", field="after")
    return (-int(match[1]), match[2])


def _by_place(each: tuple[int, str, Pool]) -> tuple[int, str]:
    return each[:2]
