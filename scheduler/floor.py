"""Where tasks meet slots: asks the policy at every event, and carries out what it decides, in its order."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from scheduler.errors import SchedulerError, SlotLost
from scheduler.execution import Executor, Run, Work
from scheduler.image import Image
from scheduler.launchers.contract import Launcher
from scheduler.leftover import Leftovers
from scheduler.policy.dispatch import Assign, Decision, Dispatch, FailTask, Limits, StartSlot, number_slots
from scheduler.pool import PoolKey
from scheduler.roster import Entry, Roster
from scheduler.slots import SlotKeeper
from scheduler.task import State

log = structlog.get_logger()

_POOLS_FORGOTTEN_AT: Final = 64
_UNFIT_MOST: Final = 10_000


class Floor:
    """The policy, the slots and the executor of one set; hears what the executor tells of slots.

    An entry comes by `enter` and is then its side's to wait for: `Side.assigned` or `Side.cannot_run` follows, if
    `leave` does not come first.
    """

    def __init__(
        self,
        limits: Limits,
        roster: Roster,
        leftovers: Leftovers,
        launcher: Launcher,
        executor: Executor,
        *,
        slot_start_timeout_s: float,
        slot_started: Callable[[float], None],
    ) -> None:
        self._roster = roster
        self._leftovers = leftovers
        self._executor = executor
        # Slot ids of two runs of a set differ, also where the clock was set back: a leftover is never taken for a new
        # slot, and its name never used again.
        run = f"{time.time_ns() // 1_000_000:x}{secrets.token_hex(3)}"
        self._dispatch = Dispatch(limits, number_slots(f"{run}-"))
        self._keeper = SlotKeeper(
            launcher, executor, self._slot_gone, start_timeout_s=slot_start_timeout_s, started=slot_started
        )
        self._images: dict[PoolKey, Image] = {}
        # Digests of images whose programs did not wait for their input as they must, the oldest first.
        self._unfit: dict[str, str] = {}
        self._decided: deque[Decision] = deque()
        self._applying = False
        self._closed = False

    async def close(self) -> None:
        """Let all slots go: what runs in them is lost, what waits is left waiting."""
        self._closed = True
        await self._keeper.close()

    # -- tasks

    def check(self, pool: PoolKey) -> None:
        """Raise what the policy has against another task of this pool: `BadRequest`, `QueueFull`, `AccountLimit`."""
        self._dispatch.check(pool)

    def enter(self, entry: Entry) -> None:
        """The task waits for a slot; it may have one when this returns."""
        self._images[entry.pool] = entry.image
        self._apply(self._dispatch.task_arrived(entry.task.id, entry.pool, time.monotonic()))

    def leave(self, entry: Entry) -> None:
        """The task waits no longer; harmless when it does not."""
        self._apply(self._dispatch.task_left(entry.task.id, time.monotonic()))

    def go(self, slot_id: str, work: Work) -> Run:
        """Start a program in the slot that was assigned. Raises `SlotLost`, and `BadRequest` for unfit work.

        When it raises, the slot is the task's no more.
        """
        if work.prestart and self._digest_of(slot_id) in self._unfit:
            work = msgspec.structs.replace(work, prestart=False)
        try:
            return self._executor.run(slot_id, work)
        except SlotLost as error:
            # Usually told already, on the way here.
            self.slot_lost(slot_id, str(error))
            self._slot_gone(slot_id, None)
            raise
        except BaseException:
            # The work was refused before the slot saw it: the slot is as good as before.
            self.give_back(slot_id)
            raise

    def give_back(self, slot_id: str) -> None:
        """An assigned slot was not used."""
        self.slot_freed(slot_id)

    async def out_of_memory(self, slot_id: str) -> bool:
        """Whether a lost slot died because its memory was used up."""
        return await self._keeper.out_of_memory(slot_id)

    def trouble(self, pool: PoolKey) -> str | None:
        """Why the pool's last slot could not start, if that is what its tasks wait for."""
        return self._keeper.trouble(pool)

    # -- events

    def tick(self) -> None:
        """Time passed."""
        self._apply(self._dispatch.tick(time.monotonic()))
        if len(self._images) > 2 * self._dispatch.pools + _POOLS_FORGOTTEN_AT:
            self._images = {pool: image for pool, image in self._images.items() if self._dispatch.knows(pool)}

    def slot_ready(self, slot_id: str) -> None:
        self._keeper.ready(slot_id)
        self._apply(self._dispatch.slot_ready(slot_id, time.monotonic()))

    def slot_freed(self, slot_id: str) -> None:
        self._apply(self._dispatch.slot_freed(slot_id, time.monotonic()))

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self._keeper.lost(slot_id, reason)

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        """The image of this slot is prestarted no more."""
        digest = self._digest_of(slot_id)
        if digest is None or digest in self._unfit:
            return
        log.warning("image is prestarted no more", image=digest, reason=reason)
        if len(self._unfit) >= _UNFIT_MOST:
            del self._unfit[next(iter(self._unfit))]
        self._unfit[digest] = reason

    def _digest_of(self, slot_id: str) -> str | None:
        pool = self._dispatch.pool_of(slot_id)
        return None if pool is None else pool.image_digest

    def _slot_gone(self, slot_id: str, fatal: Exception | None) -> None:
        self._apply(self._dispatch.slot_gone(slot_id, time.monotonic(), fatal))

    # -- facts

    def facts(self) -> dict[str, float]:
        """Gauges: what is there, what is busy, what waits."""
        return {"prestart_unfit_images": len(self._unfit), **self._dispatch.facts(time.monotonic())}

    # -- decisions

    def _apply(self, decisions: list[Decision]) -> None:
        """Carry decisions out. What that itself brings about (a slot that fails) is decided at once, done after."""
        if not decisions or self._closed:
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
        if isinstance(decision, Assign):
            self._assign(decision)
        elif isinstance(decision, StartSlot):
            self._keeper.start(decision.slot_id, decision.pool, self._images[decision.pool])
        elif isinstance(decision, FailTask):
            entry = self._roster.entries.get(decision.task_id)
            if entry is not None:
                entry.side.cannot_run(entry, decision.error)
        else:
            self._keeper.stop(decision.slot_id)

    def _assign(self, decision: Assign) -> None:
        entry = self._roster.entries.get(decision.task_id)
        if entry is None:
            log.error("a slot was assigned to a task that is not there: a bug", task=decision.task_id)
            self.give_back(decision.slot_id)
            return
        task = entry.task
        task.move(State.RUNNING)
        entry.slot_id = decision.slot_id
        task.cold_start = decision.cold
        task.attempts += 1
        task.started_us = time.time_ns() // 1000
        task.queue_us = max(0, task.started_us - task.created_us)
        self._leftovers.begun(decision.slot_id, task)
        try:
            entry.side.assigned(entry)
        except Exception as error:
            # A bug must cost its own task, not the decisions after it.
            log.error("a task could not be started", task=task.id, exc_info=error)
            self.give_back(decision.slot_id)
            entry.side.cannot_run(entry, SchedulerError(f"the task could not be started: {error}"))
