"""The cell: which task runs in which slot, and which slots there should be. Events in, decisions out; no I/O, no clock.

A pool holds the slots that are alike. A task waits for whichever slot of its pool is free first (late binding).
Running tasks use their nodes' cores and memory; idle slots use neither, so their number alone is bounded, and the
idlest gives way when another pool needs its place. Where all are busy, a slot that becomes free gives its place to
the account that holds the fewest (`demand`). Accounts take turns (`turns`), the one that has used least of the cores
first (`shares`): one account's flood delays another's task by one running task's end. A task that had its turn and
was too large for what was free may be overtaken for a short while only; then room is kept for it. Spare tasks run on
what is left, and give way when a normal task needs their room.

Every event carries the time. Its method returns the decisions that it calls for, in their order. `wake_at` is when
the cell wants `wake` next, should nothing happen before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scheduler.backoff import Backoff
from scheduler.errors import NoRoom, SchedulerError
from scheduler.policy.books import RUNS, STARTS, Books
from scheduler.policy.claims import CLAIMS, Claims
from scheduler.policy.decisions import (
    Decision,
    DropSlot,
    FailTask,
    GiveUp,
    QueueExpired,
    StopSlot,
    TimeUp,
)
from scheduler.policy.elsewhere import ELSEWHERE, Elsewhere
from scheduler.policy.expiry import ROWS_DUE, SWEEP_DUE, Expiry
from scheduler.policy.giving_way import OPENS
from scheduler.policy.limits import Limits, Retries
from scheduler.policy.matching import Matching
from scheduler.policy.node import OWN_NODE, Node, NodeFacts
from scheduler.policy.node_events import NodeEvents
from scheduler.policy.pool import Pool
from scheduler.policy.queue import EXPIRES
from scheduler.policy.reclaim import KEPT, Reclaim
from scheduler.policy.supply import Supply
from scheduler.policy.waits import waits_for
from scheduler.pool import PoolKey
from scheduler.task import Isolation


class Cell(NodeEvents):
    """The policy of one set. `nodes`: its machines; without them, one that has what `limits` say.

    `expiry`: when the store is asked to remove tasks and orphaned blobs; without it, never.
    """

    def __init__(
        self,
        limits: Limits,
        slot_ids: Iterator[str],
        nodes: Iterable[NodeFacts] | None = None,
        retries: Retries | None = None,
        expiry: Expiry | None = None,
    ) -> None:
        self.limits = limits
        self._retries = retries or Retries()
        self._expiry = expiry
        self._start_again = Backoff(limits.start_backoff_s, limits.start_backoff_max_s)
        own = NodeFacts(OWN_NODE, limits.cpu_percent, limits.memory_mib, limits.max_slots)
        self.books = Books(limits, [own] if nodes is None else nodes)
        self._queue = self.books.queue
        self._turns = self.books.turns
        self._matching = Matching(self.books, limits.patience_s)
        self._supply = Supply(self.books, slot_ids)
        self._elsewhere = Elsewhere(self.books, self._supply, self._matching)
        self.reclaim = Reclaim(self.books, self._supply, self._start_again)
        parties = self.books.parties
        # Where no account needs nodes of its own, nobody claims one.
        self._claims = None if parties is None else Claims(self.books, self._supply, parties)

    @property
    def wake_at(self) -> float:
        """When `wake` is wanted at the latest; infinite where time alone changes nothing."""
        return self.books.wake_at

    @property
    def waiting(self) -> int:
        """How many tasks wait in their pools."""
        return self._queue.waiting

    def others_wait(self, account: str) -> bool:
        """Return True if normal tasks of other accounts wait."""
        shares = self._turns.shares
        mine = shares.accounts.get(account)
        return shares.waiting > (0 if mine is None else mine.waiting)

    def waiting_for(self, task_id: str, now: float) -> str | None:
        """Say in words what the task waits for; None where it does not wait."""
        pool = self._queue.pool_of(task_id)
        if pool is not None:
            return self.words(pool, now)
        resumes_at = self._queue.resumes_at(task_id)
        return None if resumes_at is None else f"its next attempt, in {max(0.0, resumes_at - now):.1f} s"

    def words(self, pool: Pool, now: float) -> str:
        """Say in words what the first task of the pool waits for."""
        node = "" if self._claims is None else self._claims.words(pool)
        return waits_for(pool, self.books.nodes, now, node, self.books.caps.words(pool.key))

    def opened(self, now: float) -> list[Decision]:
        """The cell's shell is ready to carry decisions out."""
        expiry = self._expiry
        return (
            []
            if expiry is None
            else [expiry.due(kind, self.books.timers, now) for kind in (ROWS_DUE, SWEEP_DUE)]
        )

    # -- events: tasks

    def check(self, key: PoolKey, now: float, limit_s: float = 0.0) -> None:
        """Raise `BadRequest` for what could never run here, `QueueFull` or `AccountLimit` when too many wait, or when
        the task needs a pool more than there may be.

        `limit_s`: how long the task may run.
        """
        pool = self.books.pools.get(key)
        if pool is None or not pool.at_once:
            self.books.nodes.check(key)
        self._supply.check(limit_s)
        self._queue.check(key.account)
        if pool is None:
            self.books.pool_bounds.check(key.account, now)

    def task_arrived(
        self,
        task_id: str,
        key: PoolKey,
        now: float,
        *,
        timeout_s: float | None = None,
        limit_s: float = 0.0,
        caller_waits: bool = False,
    ) -> list[Decision]:
        """A task, synchronous if `caller_waits`, wants to run for `limit_s` at most; it gives up after `timeout_s`.
        Call `check` first."""
        pool = self.books.pools.get(key) or self.books.pool(key, now)
        old: list[Decision] = self._supply.retire(pool, limit_s, now) if limit_s > pool.longest_s else []
        if pool.ahead is not None:
            pool.ahead.arrived(now)
        # The way of most tasks: somebody is idle, nobody is before us.
        elif pool.idle and not self._turns.pools and not pool.is_spare:
            assigned = self._matching.at_once(pool, task_id, now)
            if assigned is not None:
                return [*old, assigned]
        self._queue.enter(pool, task_id, now, timeout_s=timeout_s, caller_waits=caller_waits)
        if pool.idle_times is not None and not pool.idle and len(pool.waiting) > len(pool.starting):
            pool.idle_times.missed(now)
        if pool.slots >= pool.most and not pool.idle and pool.ahead is None:
            # It waits behind its own pool's tasks, which have all the slots that they may have.
            return old
        self.books.file(pool, now)
        return old + self._decide(now, grown=pool)

    def task_left(self, task_id: str, now: float) -> list[Decision]:
        """A waiting task gave up (cancelled, its client gone); ids that do not wait are fine."""
        pool = self._queue.leave(task_id)
        if pool is None:
            return []
        self.books.left(pool, now)
        return self._decide(now)

    def attempt_lost(
        self,
        task_id: str,
        key: PoolKey,
        attempts: int,
        now: float,
        *,
        disk_full: bool = False,
        caller_waits: bool = False,
        timeout_s: float | None = None,
        limit_s: float = 0.0,
    ) -> list[Decision]:
        """The platform lost an attempt of the task, its `attempts`th: it pauses and waits again, or is given up.

        `caller_waits`: there is no pause, as a caller waits for it. The rest is as in `task_arrived`.
        """
        if attempts >= self._retries.max_attempts:
            return [GiveUp(task_id)]
        if caller_waits:
            return self.task_arrived(
                task_id, key, now, timeout_s=timeout_s, limit_s=limit_s, caller_waits=True
            )
        backoff = self._retries.full_disk if disk_full else self._retries.usual
        return self._pause(task_id, key, backoff.spread(attempts, task_id), now, limit_s)

    def attempt_failed(
        self, task_id: str, key: PoolKey, failures: int, now: float, *, limit_s: float = 0.0
    ) -> list[Decision]:
        """The task failed by itself, its `failures`th time, and runs again: it pauses, then arrives as others do."""
        return self._pause(task_id, key, self._retries.own.spread(failures, task_id), now, limit_s)

    def _pause(
        self, task_id: str, key: PoolKey, pause_s: float, now: float, limit_s: float
    ) -> list[Decision]:
        pool = self.books.pool(key, now)
        self._queue.pause(pool, task_id, now, pause_s)
        return self._supply.retire(pool, limit_s, now)

    def program_began(self, slot_id: str, limit_s: float, now: float) -> list[Decision]:
        """The program of the slot's task began: `TimeUp` follows where it still runs after `limit_s`."""
        slot = self.books.slots.get(slot_id)
        if slot is not None and slot.task_id is not None:
            self.books.limit(slot, limit_s, now)
        return []

    def task_ended(self) -> list[Decision]:
        """The outcome of a task is stored."""
        if self._expiry is not None:
            self._expiry.task_ended()
        return []

    def task_gave_way(
        self,
        task_id: str,
        key: PoolKey,
        now: float,
        *,
        timeout_s: float | None = None,
        limit_s: float = 0.0,
    ) -> list[Decision]:
        """A spare task was killed as `GiveWay` asked: it waits again, before the others of its pool."""
        pool = self.books.pool(key, now)
        pool.longest_s = max(pool.longest_s, limit_s)
        self._queue.enter(pool, task_id, now, timeout_s=timeout_s, first=True)
        self.books.file(pool, now)
        return self._decide(now)

    # -- events: slots

    def slot_ready(self, slot_id: str, now: float) -> list[Decision]:
        """A slot that was starting has said hello."""
        slot = self.books.slots.get(slot_id)
        if slot is None or slot not in slot.pool.starting:
            return []
        pool = slot.pool
        self.books.started(slot)
        slot.node.has_image(pool.key.image_digest)
        pool.failures, pool.retry_at, pool.trouble = 0, 0.0, ""
        if self.reclaim.kept:
            self.reclaim.slot_started(pool, slot.node, now)
        if pool.ahead is not None:
            pool.ahead.started(slot_id, now)
        if not slot.node.is_ready:
            return [self._supply.stop_idle(slot, now), *self._decide(now)]
        slot.unused = True
        self.books.rest(slot, now)
        decisions = [] if self.books.slot_life_s is None else self._supply.retire(pool, 0.0, now)
        if self.books.cramped:
            self.books.try_cramped(slot.node, now)
        self.books.file(pool, now)
        return decisions + self._decide(now, slot.node)

    def slot_freed(self, slot_id: str, cpu_us: int, now: float) -> list[Decision]:
        """A task ended and its slot is clean; it used that much CPU time, microseconds."""
        slot = self.books.slots.get(slot_id)
        if slot is None or slot.task_id is None:
            return []
        pool, books = slot.pool, self.books
        goes = slot.spent or not slot.node.is_ready
        if pool.waiting and not goes and self._matching.is_first(pool):
            return [self._matching.hand_on(slot, now, cpu_us)]
        books.release(slot, now, cpu_us)
        if books.cramped:
            books.try_cramped(slot.node, now)
        taker = self._supply.taker(slot, now) if books.demand.wanting or books.caps.held_back else None
        if taker is not None or pool.key.isolation is Isolation.FRESH or goes:
            decisions: list[Decision] = [StopSlot(slot_id)]
            node = slot.node
            books.forget(slot, now)
            if self.reclaim.kept:
                self.reclaim.slot_left(node, now)
            if taker is not None:
                decisions.append(self._supply.start(taker, node, now))
            books.file(pool, now)
            return decisions + self._decide(now, node)
        books.rest(slot, now)
        if not self._queue.waiting:
            return []
        books.file(pool, now)
        return self._decide(now, slot.node)

    def slot_gone(
        self, slot_id: str, reason: str, now: float, error: SchedulerError | None = None
    ) -> list[Decision]:
        """A slot could not start or died, for this reason.

        With `error`, no other slot of its pool can start: where it has none left, its waiting tasks fail. `NoRoom` is
        the exception: other slots may give their room.
        """
        slot = self.books.slots.get(slot_id)
        if slot is None:
            return []
        pool, node = slot.pool, slot.node
        if isinstance(error, NoRoom):
            pool.trouble = reason
            self._supply.lose(slot, now)
            given = self.reclaim.found_no_room(pool, node, now)
            self.books.file(pool, now)
            return given + self._decide(now, node)
        if slot in pool.starting:
            pool.trouble = reason
        if slot.unused or slot in pool.starting:
            pool.failures += 1
            pool.retry_at = now + self._start_again.after(pool.failures)
        self._supply.lose(slot, now)
        if self.reclaim.kept:
            self.reclaim.release(pool, node, now)
            self.reclaim.slot_left(node, now)
        decisions: list[Decision] = []
        if error is not None and not pool.slots:
            for task_id in list(pool.waiting):
                self._queue.leave(task_id)
                decisions.append(FailTask(task_id, error))
            pool.failures, pool.retry_at = 0, 0.0
        self.books.file(pool, now)
        return decisions + self._decide(now, node)

    def slot_removed(self, slot_id: str, now: float) -> list[Decision]:
        """Nothing of a slot that has ended is left on its machine. Told where accounts need nodes of their own."""
        parties = self.books.parties
        node_id = None if parties is None else parties.slot_removed(slot_id)
        if node_id is None:
            return []
        node = self.books.nodes.get(node_id)
        if node is None:
            self.books.forget_tenure(node_id)
            return []
        self.books.nodes.reopen(node)
        self.books.try_cramped(node, now)
        return self._decide(now, node)

    # -- events: time

    def wake(self, now: float) -> list[Decision]:
        """Time has passed: what is due is done."""
        decisions: list[Decision] = []
        due = self.books.timers.due(now)
        for timer in due:
            if timer.cancelled:
                continue
            kind, what = timer.what
            if kind is RUNS:
                decisions += self._time_up(what)
            elif kind is STARTS:
                reason = f"it did not start within {self.limits.start_timeout_s:g} s"
                decisions.append(DropSlot(what, reason))
                decisions += self.slot_gone(what, reason, now)
            elif kind is EXPIRES:
                decisions.append(QueueExpired(what, self.waiting_for(what, now) or ""))
                decisions += self.task_left(what, now)
            elif kind is CLAIMS and self._claims is not None:
                self._claims.due()
            elif kind is KEPT:
                self.reclaim.look(now)
            elif kind is ELSEWHERE:
                self._elsewhere.look(decisions, now)
            elif kind is OPENS:
                self._matching.spare_gate.due()
            elif kind in (ROWS_DUE, SWEEP_DUE):
                assert self._expiry is not None
                decisions.append(self._expiry.due(kind, self.books.timers, now))
            elif (key := self._queue.resume(what)) is not None:
                decisions += self.task_arrived(what, key, now)
        pools = self.books.looks_due(now)
        for pool in pools:
            self._supply.look(pool, decisions, now)
        if not pools and all(timer.what[0] is ELSEWHERE for timer in due):
            return decisions  # Nothing has become free.
        return decisions + self._decide(now)

    def _time_up(self, slot_id: str) -> list[Decision]:
        slot = self.books.slots[slot_id]
        slot.timer = None
        assert slot.task_id is not None
        return [TimeUp(slot.task_id)]

    # -- decisions

    def _decide(
        self, now: float, touched: Node | None = None, *, grown: Pool | None = None
    ) -> list[Decision]:
        """Assign what can run now, then start slots. `touched`, `grown`: see `Matching.run`."""
        decisions: list[Decision] = []
        self._matching.run(decisions, now, touched, grown)
        if self.books.demand.wanting or self.books.modest:
            self._supply.feed(decisions, now, grown)
        if self._claims is not None and self._claims.look(decisions, now):
            self._supply.feed(decisions, now)
        self._elsewhere.arm(now)
        return decisions
