"""The floor of a set, where its tasks meet its slots: tells the cell (the pure policy) of every event, carries its
decisions out, and wakes it by a timer."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from scheduler.clearance import Clearance
from scheduler.clock import wall_us
from scheduler.errors import NoNode, SchedulerError, SlotLost
from scheduler.execution import Executor, Run, Work
from scheduler.image import Image
from scheduler.launchers.contract import Launcher
from scheduler.leftover import Leftovers
from scheduler.overview import Overview
from scheduler.policy.cell import Cell
from scheduler.policy.decisions import (
    Assign,
    Decision,
    DropSlot,
    ExpireRows,
    FailTask,
    GiveUp,
    GiveWay,
    QueueExpired,
    StartSlot,
    StopSlot,
    SweepBlobs,
    TimeUp,
)
from scheduler.policy.expiry import Expiry
from scheduler.policy.limits import Limits, Retries, number_slots
from scheduler.policy.node import OWN_NODE, NodeFacts, Standing
from scheduler.pool import PoolKey
from scheduler.roster import Entry, Roster
from scheduler.slots import SlotKeeper
from scheduler.task import Kind, Task
from scheduler.unfit import UnfitImages
from scheduler.upkeep import Upkeep

log = structlog.get_logger()

_POOLS_FORGOTTEN_AT: Final = 64
"""Number of images beyond the number of pools that are kept, before images of forgotten pools are dropped."""
_AGAIN_S: Final = 0.25
"""Pause, in seconds, after the cell failed when it was woken."""
_NEVER: Final = float("inf")


class Floor:
    """The cell, the slots and the executor of one set; receives the executor's events about slots.

    An entry comes by `enter` and is then its side's to wait for: one of `Side`'s calls follows, if `leave` does not
    come first. `own_node`: the set's own machine, where tasks run on it. Used on the event loop. `clock` gives seconds,
    and never goes back; `now_us` is the wall clock.

    Every event of the cell goes through `_apply`, which also sets the timer: an event may move the cell's next wish.
    """

    def __init__(
        self,
        limits: Limits,
        retries: Retries,
        roster: Roster,
        leftovers: Leftovers,
        upkeep: Upkeep,
        launcher: Launcher,
        executor: Executor,
        *,
        own_node: NodeFacts | None,
        slot_started: Callable[[float], None],
        expiry: Expiry,
        clock: Callable[[], float] = time.monotonic,
        now_us: Callable[[], int] = wall_us,
    ) -> None:
        self._roster = roster
        self._leftovers = leftovers
        self._upkeep = upkeep
        self._launcher = launcher
        self._executor = executor
        self._clock = clock
        self._now_us = now_us
        # Slot ids of two runs of a set differ, also where the clock was set back: a leftover is never taken for a new
        # slot, and its name never used again.
        run = f"{now_us() // 1000:x}{secrets.token_hex(3)}"
        self._cell = Cell(limits, number_slots(f"{run}-"), [own_node] if own_node else [], retries, expiry)
        self.others_wait = self._cell.others_wait
        self._clearance: Clearance | None = None
        if limits.some_need_own_nodes:
            self._clearance = Clearance(launcher, self._slot_removed, self._leftovers_gone)
            self._cell.leftovers(clock(), gone=False)
        self._keeper = SlotKeeper(
            launcher, executor, self._slot_gone, self._clearance, started=slot_started, clock=clock
        )
        self._images: dict[PoolKey, Image] = {}
        self.overview = Overview(self._cell, lambda pool: self._images.get(pool), clock)
        self._unfit = UnfitImages()
        self._decided: deque[Decision] = deque()
        self._applying = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def open(self) -> None:
        """From now on time passes for the cell."""
        self._apply(self._cell.opened(self._clock()))

    def launcher_opened(self) -> None:
        """The launcher is open. This set's slots start once those of an earlier run are gone, where that matters."""
        self._cell.slots_live(self._launcher.slot_life_s)
        if self._clearance is not None:
            self._clearance.await_leftovers()

    def task_ended(self) -> None:
        """The outcome of a task is stored."""
        self._apply(self._cell.task_ended())

    async def close(self) -> None:
        """Let all slots go: what runs in them is lost, what waits is left waiting."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._keeper.close()

    # -- tasks

    def check(self, pool: PoolKey, limit_s: float) -> None:
        """Raise the cell's reason to refuse a task that may run for `limit_s`: as `Cell.check` does."""
        self._cell.check(pool, self._clock(), limit_s)

    def enter(self, entry: Entry) -> None:
        """The task waits for a slot; it may have one when this returns."""
        task = self._remember(entry)
        task.want_slot(self._now_us())
        self._apply(
            self._cell.task_arrived(
                task.id,
                entry.pool,
                self._clock(),
                timeout_s=entry.queue_timeout_s,
                limit_s=task.spec.timeout_s,
                caller_waits=task.spec.kind is Kind.SYNC,
            )
        )

    def leave(self, entry: Entry) -> None:
        """The task waits no longer; harmless when it does not."""
        self._apply(self._cell.task_left(entry.task.id, self._clock()))

    def attempt_lost(self, entry: Entry, why: str, *, disk_full: bool = False) -> bool:
        """The platform lost the running attempt: whether the task waits for another, or may have none."""
        task = self._remember(entry)
        decisions = self._cell.attempt_lost(
            task.id,
            entry.pool,
            task.lost_attempts,
            self._clock(),
            disk_full=disk_full,
            caller_waits=task.spec.kind is Kind.SYNC,
            timeout_s=entry.queue_timeout_s,
            limit_s=task.spec.timeout_s,
        )
        given_up = bool(decisions) and isinstance(decisions[0], GiveUp)
        if not given_up:
            # Before a decision gives it its next slot.
            task.requeue(self._now_us(), why, attempt_counts=True)
        self._apply(decisions)
        return not given_up

    def run_again(self, entry: Entry) -> None:
        """The task failed by itself, and asked to be run again: it waits again, after a pause."""
        task = self._remember(entry)
        failures, limit_s = len(task.failed_attempts), task.spec.timeout_s
        self._apply(self._cell.attempt_failed(task.id, entry.pool, failures, self._clock(), limit_s=limit_s))

    def gave_way(self, entry: Entry) -> None:
        """The running attempt was killed as `Side.give_way` asked: the task waits again, and the attempt does not
        count."""
        task = self._remember(entry)
        task.requeue(self._now_us(), "it gave way to another task", attempt_counts=False)
        pool, waits_s, limit_s = entry.pool, entry.queue_timeout_s, task.spec.timeout_s
        self._apply(
            self._cell.task_gave_way(task.id, pool, self._clock(), timeout_s=waits_s, limit_s=limit_s)
        )

    def go(self, entry: Entry, work: Work) -> Run:
        """Start a program in the task's slot. Raises `SlotLost`, and `BadRequest` for unfit work.

        When it raises, the slot is no longer the task's.
        """
        slot_id, task = entry.slot_id, entry.task
        if work.prestart and self._digest_of(slot_id) in self._unfit:
            work = msgspec.structs.replace(work, prestart=False)
        try:
            run = self._executor.run(slot_id, work, task.lease)
        except SlotLost as error:
            # Usually known already, on the way here.
            self.slot_lost(slot_id, str(error))
            self._slot_gone(slot_id, str(error))
            raise
        except BaseException:
            # The work was refused before the slot saw it, so the slot is unchanged.
            self.give_back(slot_id)
            raise
        self._apply(self._cell.program_began(slot_id, task.spec.timeout_s, self._clock()))
        return run

    def give_back(self, slot_id: str) -> None:
        """An assigned slot was not used."""
        self.slot_freed(slot_id, 0)

    async def out_of_memory(self, slot_id: str) -> bool:
        """Return True if a lost slot died because its memory was used up."""
        return await self._keeper.out_of_memory(slot_id)

    def waiting_for(self, task_id: str) -> str | None:
        """Say in words what the task waits for; None where it does not wait."""
        return self._cell.waiting_for(task_id, self._clock())

    def _remember(self, entry: Entry) -> Task:
        images = self._images
        images[entry.pool] = entry.image
        if len(images) > 2 * len(self._cell.books.pools) + _POOLS_FORGOTTEN_AT:
            known = self._cell.books.pools
            self._images = {pool: images[pool] for pool in images if pool in known or pool == entry.pool}
        return entry.task

    # -- events

    def slot_ready(self, slot_id: str) -> None:
        self._keeper.ready(slot_id)
        self._apply(self._cell.slot_ready(slot_id, self._clock()))

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        self._apply(self._cell.slot_freed(slot_id, cpu_us, self._clock()))

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self._keeper.lost(slot_id, reason)

    def node_ready(self, facts: NodeFacts) -> None:
        log.info("node ready", node=facts.id, cores=facts.cpu_percent / 100, memory_mib=facts.memory_mib)
        self._apply(self._cell.node_ready(facts, self._clock()))

    def node_draining(self, node_id: str) -> None:
        log.info("node draining", node=node_id)
        self._apply(self._cell.node_draining(node_id, self._clock()))

    def node_lost(self, node_id: str, reason: str) -> None:
        log.warning("node lost", node=node_id, reason=reason)
        self._apply(self._cell.node_lost(node_id, self._clock()))

    def node_stands(self, node_id: str, standing: Standing, reason: str) -> None:
        """The launcher's cluster says whether new slots start on the node; "" names the set's own machine."""
        self._apply(self._cell.node_stands(node_id or OWN_NODE, standing, reason, self._clock()))

    def check_nodes(self) -> None:
        """Raise `NoNode` where no machine takes tasks now."""
        if not self._cell.books.nodes.max_slots:
            raise NoNode

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        """The image of this slot is no longer prestarted."""
        self._unfit.add(self._digest_of(slot_id), reason)

    def _digest_of(self, slot_id: str) -> str | None:
        slot = self._cell.books.slots.get(slot_id)
        return None if slot is None else slot.pool.key.image_digest

    def _slot_gone(self, slot_id: str, reason: str, error: SchedulerError | None = None) -> None:
        self._apply(self._cell.slot_gone(slot_id, reason, self._clock(), error))

    def _slot_removed(self, slot_id: str) -> None:
        self._apply(self._cell.slot_removed(slot_id, self._clock()))

    def _leftovers_gone(self) -> None:
        self._apply(self._cell.leftovers(self._clock(), gone=True))

    def _wake(self) -> None:
        # The loop's clock may tick a little behind its timers.
        now = max(self._clock(), self._timer_at)
        self._timer, self._timer_at = None, _NEVER
        try:
            self._apply(self._cell.wake(now))
        except Exception as error:
            log.error("the cell failed when it was woken, which is a bug; it is woken again", exc_info=error)
            self._set_timer(now + _AGAIN_S)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._clock()), self._wake)

    # -- facts

    def facts(self) -> dict[str, float]:
        """Gauges: what is there, what is busy, what waits."""
        return {"prestart_unfit_images": len(self._unfit), **self.overview.totals()}

    # -- decisions

    def _apply(self, decisions: list[Decision]) -> None:
        """Follow an event of the cell: set the timer by it, and carry its decisions out.

        Events that this itself causes (a slot that fails) are decided at once, done after. A decision that fails keeps
        no other from being carried out.
        """
        if self._closed:
            return
        if self._cell.wake_at < self._timer_at:
            self._set_timer(self._cell.wake_at)
        if not decisions:
            return
        if self._applying:
            self._decided.extend(decisions)
            return
        self._applying = True
        try:
            for decision in decisions:
                self._carry_out(decision)
            while self._decided:
                self._carry_out(self._decided.popleft())
        finally:
            self._applying = False

    def _carry_out(self, decision: Decision) -> None:
        try:
            self._do(decision)
        except Exception as error:
            log.error(
                "a decision could not be carried out, which is a bug", decision=repr(decision), exc_info=error
            )

    def _do(self, decision: Decision) -> None:
        if isinstance(decision, Assign):
            self._assign(decision)
        elif isinstance(decision, StartSlot):
            node = "" if decision.node_id == OWN_NODE else decision.node_id
            self._keeper.start(decision.slot_id, decision.pool, self._images[decision.pool], node)
        elif isinstance(decision, DropSlot):
            self._keeper.drop(decision.slot_id, decision.reason)
        elif isinstance(decision, StopSlot):
            self._keeper.stop(decision.slot_id)
        elif isinstance(decision, ExpireRows):
            self._upkeep.expire(decision.rounds)
        elif isinstance(decision, SweepBlobs):
            self._upkeep.sweep(decision.min_age_s)
        else:
            entry = self._roster.entries.get(decision.task_id)
            if entry is None:
                return
            if isinstance(decision, FailTask):
                entry.side.cannot_run(entry, decision.error)
            elif isinstance(decision, QueueExpired):
                entry.side.queue_expired(entry, decision.waited_for)
            elif isinstance(decision, GiveWay):
                entry.side.give_way(entry)
            elif isinstance(decision, TimeUp):
                entry.side.time_up(entry)
            # `GiveUp` is the answer of `attempt_lost`, whose caller acts on it.

    def _assign(self, decision: Assign) -> None:
        entry = self._roster.entries.get(decision.task_id)
        if entry is None:
            log.error("a slot was assigned to a task that is not there: a bug", task=decision.task_id)
            self.give_back(decision.slot_id)
            return
        task = entry.task
        slot_id = entry.slot_id = decision.slot_id
        task.begin_attempt(self._now_us(), cold_start=decision.cold)
        self._leftovers.begun(slot_id, task)
        run: Run | None = None
        try:
            if entry.work is None:
                entry.side.assigned(entry)
            else:
                run = self.go(entry, entry.work)
                entry.side.began(entry, run)
        except SlotLost as error:
            entry.side.not_begun(entry, error)
        except Exception as error:
            if run is not None:
                run.kill()
            self._cannot_run(entry, error)

    def _cannot_run(self, entry: Entry, error: Exception) -> None:
        if not isinstance(error, SchedulerError):
            # A bug must cost its own task, not the decisions after it.
            log.error("a task could not be started", task=entry.task.id, exc_info=error)
            error = SchedulerError(f"the task could not be started: {error}")
        entry.side.cannot_run(entry, error)
