"""The tasks of a cell that wait: in their pools, or in a pause before their next attempt. Pure.

Each may have a time at which it gives up, or at which its pause ends; the cell asks the timers when they are due.
"""

from __future__ import annotations

from typing import Final

from scheduler.errors import AccountLimit, QueueFull
from scheduler.policy.limits import Limits
from scheduler.policy.pool import Pool
from scheduler.policy.timers import Timer, Timers
from scheduler.pool import PoolKey

EXPIRES: Final = "expires"
PAUSED: Final = "paused"


class Queue:
    """Counts the waiting tasks, by account and in all, and holds them to their bounds. Times are the cell's clock, in
    seconds."""

    def __init__(self, limits: Limits, timers: Timers[tuple[str, str]]) -> None:
        self.waiting = 0
        self._limits = limits
        self._timers = timers
        # Those that pause count: they come back, and must not then be more than may wait.
        self._waiting_of: dict[str, int] = {}
        self._pool_of: dict[str, Pool] = {}
        self._expires: dict[str, Timer[tuple[str, str]]] = {}
        self._paused: dict[str, tuple[Pool, Timer[tuple[str, str]]]] = {}

    def check(self, account: str) -> None:
        """Raise `QueueFull` or `AccountLimit` when too many wait for another to be taken."""
        limits = self._limits
        waiting = self.waiting + len(self._paused)
        if waiting >= limits.max_waiting:
            raise QueueFull(f"no more tasks may wait in this set (waiting: {waiting}); try again later")
        if self._waiting_of.get(account, 0) >= limits.max_waiting_account:
            raise AccountLimit(
                f"no more tasks of this account may wait (waiting: {limits.max_waiting_account}); try again later"
            )

    def enter(
        self,
        pool: Pool,
        task_id: str,
        now: float,
        *,
        timeout_s: float | None = None,
        first: bool = False,
        caller_waits: bool = False,
    ) -> None:
        """The task waits in the pool, for `timeout_s` at most; `first`: before all others there. `caller_waits`: it is
        a synchronous one."""
        pool.waiting[task_id] = now
        if caller_waits:
            pool.callers[task_id] = None
        if first:
            pool.waiting.move_to_end(task_id, last=False)
        self._pool_of[task_id] = pool
        self.waiting += 1
        self._count(pool.key.account)
        pool.account.task_waits(now)
        if timeout_s is not None:
            self._expires[task_id] = self._timers.set(timeout_s, now, (EXPIRES, task_id))

    def leave(self, task_id: str) -> Pool | None:
        """The task waits no longer; its pool, None where it did not wait or pause."""
        pool = self._pool_of.pop(task_id, None)
        if pool is None:
            return self._end_pause(task_id)
        del pool.waiting[task_id]
        if pool.callers:
            pool.callers.pop(task_id, None)
        self.waiting -= 1
        self._uncount(pool.key.account)
        pool.account.task_waits_no_longer()
        if self._expires and (timer := self._expires.pop(task_id, None)) is not None:
            timer.cancel()
        return pool

    def pool_of(self, task_id: str) -> Pool | None:
        """The pool in which the task waits; None where it does not wait, or pauses."""
        return self._pool_of.get(task_id)

    def resumes_at(self, task_id: str) -> float | None:
        """When the task's pause before its next attempt ends; None where it does not pause."""
        paused = self._paused.get(task_id)
        return None if paused is None else paused[1].at

    def pause(self, pool: Pool, task_id: str, now: float, pause_s: float) -> None:
        """The task waits for its next attempt, and does not count as waiting in its pool meanwhile."""
        self._paused[task_id] = (pool, self._timers.set(pause_s, now, (PAUSED, task_id)))
        pool.paused += 1
        self._count(pool.key.account)

    def resume(self, task_id: str) -> PoolKey | None:
        """The task's pause is over; the key of its pool, None where it did not pause."""
        pool = self._end_pause(task_id)
        return None if pool is None else pool.key

    def _end_pause(self, task_id: str) -> Pool | None:
        paused = self._paused.pop(task_id, None)
        if paused is None:
            return None
        pool, timer = paused
        timer.cancel()
        pool.paused -= 1
        self._uncount(pool.key.account)
        return pool

    def _count(self, account: str) -> None:
        self._waiting_of[account] = self._waiting_of.get(account, 0) + 1

    def _uncount(self, account: str) -> None:
        left = self._waiting_of[account] - 1
        if left:
            self._waiting_of[account] = left
        else:
            del self._waiting_of[account]
