"""Says which idle slots of a pool are no longer worth their places, and when that may change. Pure.

`idle_times` learns from each pool what this applies to its slots.
"""

from __future__ import annotations

from typing import Final

from scheduler.policy.pool import NEVER, Pool, Slot

LOOKS_PER_CELL: Final = 10
"""How often, at most, a pool is looked at within the shortest time that its idle times tell apart. Many slots may
become overdue one after the other, and a look goes over all of them."""


def overdue(pool: Pool, keep_s: float, now: float) -> list[Slot]:
    """The idle slots that should stop. `keep_s`: how long they are kept where nothing is learnt of the pool."""
    times = pool.idle_times
    found: list[Slot] = []
    if times is not None and not times.is_usual:
        return [slot for slot in pool.idle if not times.is_wanted(now - slot.rested_at)]
    if times is not None:
        keep_s = times.first_s
    for slot in pool.idle:
        if slot.since + keep_s > now:
            break
        found.append(slot)
    return found


def next_look(pool: Pool, keep_s: float, now: float) -> float:
    """When a slot becomes overdue, or one is to be started ahead of need; infinite if neither is to come."""
    times = pool.idle_times
    if pool.waiting and pool.idle:
        # No slot stops while tasks wait, so some may be overdue already.
        return now + keep_s
    if times is not None and not times.is_usual:
        # A slot that stays may be unwanted all the same: the end of another's idle time can change the plan.
        slots_s = min(
            (
                times.changes_at(slot.rested_at, now) if times.is_wanted(now - slot.rested_at) else now
                for slot in pool.idle
            ),
            default=NEVER,
        )
        return max(min(slots_s, times.starts_at(now)), now + times.resolution_s / LOOKS_PER_CELL)
    if not pool.idle:
        return NEVER
    if times is not None:
        keep_s = times.first_s
    oldest = next(iter(pool.idle))
    return max(oldest.since + keep_s, now)


def foresee(slot: Slot, now: float) -> None:
    """A slot of a pool that wants some ahead of need begins to start: it is one of these, unless tasks wait for it."""
    pool, times = slot.pool, slot.pool.idle_times
    if times is None or len(pool.waiting) > len(pool.idle) + len(pool.starting):
        return
    since = times.returns(now)
    if since is None:
        pool.foreseen = 0
        return
    pool.foreseen -= 1
    slot.foreseen, slot.rested_at = True, since
