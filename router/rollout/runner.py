"""The shell of a rollout in one worker: follows the state file, puts its weights in force, writes what was seen, and
ticks as the leader. All decisions are progress.py's; all files are read and written beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from router.asking.outcomes import ASK_EVERY_S, Outcomes
from router.choosing.room import Room
from router.choosing.serving import UNKNOWN, Health
from router.counting.observer import Observer
from router.counting.tally import Ended
from router.rollout import outside
from router.rollout.applier import Applier, Plane
from router.rollout.leader import Leader
from router.rollout.orders import ANYHOW, Given, Order, give
from router.rollout.preview import preview
from router.rollout.record import AskGate, Event, GateSaid, Progress
from router.rollout.statefile import StateFile
from router.rollout.states import NotAllowed, RolloutError
from router.rollout.status import describe, event_of
from router.rollout.tallies import Seen, Tallies
from router.routing.table import Table

LOOK_EVERY_S: Final = 0.5
WRITE_EVERY_S: Final = 1.0
LOUD: Final = frozenset(("paused", "still paused", "stuck", "aborting", "aborted"))
"""Kinds of events for which somebody should come and look."""
log = structlog.get_logger()


class Pool(Protocol):
    inflight: int


class Traffic(Plane, Protocol):
    """The part of the data plane (`relay.traffic.Traffic`) that a rollout uses."""

    @property
    def pools(self) -> Mapping[str, Pool]: ...

    @property
    def rooms(self) -> Mapping[str, Room]: ...


RecordWeights = Callable[[Table, str, str, float], object]
"""`History.record_weights`: table in force, by, why, now."""


class Runner:
    """One per worker. `folder` is shared by all workers and instances that release together.

    `follow` is called with every table of the file, before the first request too; `start` and `stop` frame the
    serving. `room`: this worker's part of a set's `max_inflight`, which counts for all workers of a router together.
    `outcomes`: whom the leader asks how asynchronous tasks end; None: nobody. `health`: how this worker sees the sets;
    orders are judged by it.
    `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        traffic: Traffic,
        folder: Path,
        file: Table,
        *,
        record: RecordWeights | None = None,
        room: Callable[[int], int] = int,
        outcomes: Outcomes | None = None,
        health: Callable[[], Health] = lambda: UNKNOWN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        mine = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.state = StateFile(folder)
        self.observer = Observer()
        self.progress = Progress()
        self.error: str | None = None
        """Why the state file is not followed; None: it is."""
        self._traffic = traffic
        self._file = file
        self._tallies = Tallies(folder / "seen", mine)
        self._leader = Leader(self.state, self._tallies, clock, f"{socket.gethostname()}, pid {os.getpid()}")
        self._record = record
        self._room = room
        self._outcomes = outcomes
        self._health = health
        self._counted_at = 0.0
        self._counted_stint = -1
        self._clock = clock
        self._stamp: object = ()
        self._applier = Applier(traffic, self.observer)
        self._written_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self._turns = asyncio.Lock()
        self._look()
        self._logged = self.progress.last_event
        self.follow(file)

    # The tables.

    def follow(self, file: Table) -> None:
        """Another table of the file: put it in force, with the rollout's weights on top."""
        self._file = file
        self._apply()

    def _apply(self) -> None:
        """Put in force what file and progress say together, if it is not."""
        progress = self.progress
        if self._applier.apply(self._file, progress) and progress.in_force is not None:
            canary, weight = progress.in_force
            log.info("canary weight in force", canary=canary, percent=weight / 100, reason=progress.reason)
            self._note_weights(self._traffic.table, progress)

    def _note_weights(self, table: Table, progress: Progress) -> None:
        """Record the weights in the history, so that idempotency keys find their sets after a restart."""
        if self._record is None or self._running is None or table is self._file:
            return
        record, now = self._record, self._clock()
        by = progress.events[-1].by if progress.events else ""

        async def errand() -> None:
            try:
                await asyncio.to_thread(record, table, by or "rollout", progress.reason, now)
            except Exception as error:
                log.error("weights in force are not recorded", reason=str(error))

        self._spawn(errand())

    # The loop.

    def start(self) -> None:
        """Follow, write and lead from now on, until `stop`."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name="rollout")
        self._note_weights(self._traffic.table, self.progress)

    async def stop(self) -> None:
        """End; another worker may lead."""
        tasks = [*self._errands, *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.observer.watching:
            with contextlib.suppress(OSError):
                self._tallies.write(self._seen())
        self._leader.drop()

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
                self.error = None
            except RolloutError as error:
                self._complain(str(error))
            except Exception as error:
                self._complain(f"{type(error).__name__}: {error}", unforeseen=error)
            await asyncio.sleep(LOOK_EVERY_S)

    def _complain(self, problem: str, unforeseen: Exception | None = None) -> None:
        if problem != self.error:
            log.error("rollout cannot go on", reason=problem, exc_info=unforeseen)
        self.error = problem

    async def turn(self) -> None:
        """Look once, and do what is due. Raises `RolloutError`, `OSError`."""
        async with self._turns:
            await asyncio.to_thread(self._look, loudly=True)
            self._apply()
            now = self._clock()
            if self.observer.watching and abs(now - self._written_at) >= WRITE_EVERY_S:
                self._written_at = now
                await asyncio.to_thread(self._tallies.write, self._seen())
            led = await asyncio.to_thread(self._leader.turn, self._file, self._builds())
            if led is None:
                if not self._leader.leading and self._outcomes is not None:
                    self._outcomes.forget()
                return
            self.progress, asked = led
            self._apply()
        self._log_events()
        if self._outcomes is not None:
            self._follow_outcomes(self._outcomes, now)
        for question in asked:
            self._once(f"gate {question.serial}", self._ask(question))
        self._tell()

    def _log_events(self) -> None:
        """Log what happened since the last turn; only the leader does."""
        for event in self.progress.events:
            if event.serial > self._logged:
                say = log.warning if event.kind in LOUD else log.info
                say("rollout event", kind=event.kind, canary=event.set, text=event.text, by=event.by)
        self._logged = self.progress.last_event

    def _look(self, *, loudly: bool = False) -> None:
        """Read the state file if it changed."""
        stamp = self.state.stamp()
        if stamp == self._stamp:
            return
        try:
            self.progress = self.state.read()
        except RolloutError as error:
            # Running workers keep their weights, and new ones take the same: one router, one choice.
            self.progress = self.state.last_good()
            if loudly:
                raise
            self._complain(str(error))
            return
        self._stamp = stamp

    def _builds(self) -> dict[str, str]:
        """Builds that the sets reported at their last health checks here."""
        return {name: room.build for name, room in self._traffic.rooms.items() if room.build}

    def _seen(self) -> Seen:
        observer = self.observer
        canary, control = observer.seen(time.monotonic())
        sets = self._traffic.table.sets
        return Seen(
            observer.stint,
            self._clock(),
            canary,
            control,
            {name: pool.inflight for name, pool in self._traffic.pools.items()},
            {
                name: self._room(each.max_inflight)
                for name, each in sets.items()
                if each.max_inflight is not None
            },
        )

    # Errands: work that takes longer than a turn.

    def _spawn(self, errand: Any) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _once(self, name: str, errand: Any) -> None:
        """Run an errand unless one of that name runs already."""
        if name in self._busy:
            errand.close()
            return
        self._busy.add(name)

        async def run() -> None:
            try:
                await errand
            except RolloutError as error:
                log.error("step of a rollout failed", reason=str(error))
            finally:
                self._busy.discard(name)

        self._spawn(run())

    def _follow_outcomes(self, outcomes: Outcomes, now: float) -> None:
        """Ask the sets how asynchronous tasks ended, while this worker leads and cohorts are watched."""
        plan, stint = self.progress.plan, self.observer.stint
        if plan is None or not self.observer.watching:
            outcomes.forget()
            return
        if stint != self._counted_stint:
            # What ended at other weights belongs to them.
            self._counted_stint = stint
            self._counted_at = -ASK_EVERY_S
            outcomes.forget()
        if abs(now - self._counted_at) >= ASK_EVERY_S:
            self._counted_at = now
            self._once("outcomes", self._count_outcomes(outcomes, plan.set))

    async def _count_outcomes(self, outcomes: Outcomes, canary: str) -> None:
        table, stint = self._traffic.table, self.observer.stint
        shares = table.default.shares
        names = sorted(shares, key=lambda name: (name != canary, -shares[name], name))
        old = [name for name in names if name != canary and shares[name] > 0]
        found = await outcomes.read(table.sets[name] for name in (canary, *old))
        if self.observer.watching and self.observer.stint == stint:
            rest = [found[name] for name in old if name in found]
            control = Ended(sum(each.ok for each in rest), sum(each.failed for each in rest))
            self.observer.ended(found.get(canary, Ended()), control)

    async def _ask(self, question: AskGate) -> None:
        body = {**self.status(), "asked": question.step + 1}
        go, said = await outside.ask_gate(question.url, body)
        await asyncio.to_thread(self._leader.note, GateSaid(question.serial, go, said))

    def _tell(self) -> None:
        progress = self.progress
        url = progress.plan.events if progress.plan is not None else None
        news = [event for event in progress.events if event.serial > progress.posted]
        if news and url is not None:
            self._once("events", self._post(url, news))

    async def _post(self, url: str, news: list[Event]) -> None:
        """Post the events in order. Each is given up after its attempts, so that an old one does not hold back a new
        one."""
        for event in news:
            await outside.tell(url, event_of(event))
            serial = event.serial
            await asyncio.to_thread(self._leader.mark_posted, serial)

    # For the admin API.

    async def command(
        self,
        verb: str,
        by: str = "",
        why: str = "",
        *,
        at_once: bool = False,
        force: bool = False,
        given: Given = ANYHOW,
    ) -> dict[str, Any]:
        """Carry out an order (`orders.Order`) and put what follows in force in this worker at once, in others within a
        second.

        Returns the status. Raises `Moved` where the rollout is not what it was `given` for, `NotAllowed` where it does
        not fit, `RolloutError` where the disk fails.
        """
        try:
            order = Order(verb)
        except ValueError:
            raise NotAllowed(f"{verb!r} is no order; known: {', '.join(Order)}") from None
        async with self._turns:
            self.progress = await asyncio.to_thread(
                give,
                self.state,
                order,
                self._file,
                by=by,
                why=why,
                at_once=at_once,
                force=force,
                given=given,
                health=self._health(),
                builds=self._builds(),
                now=self._clock(),
            )
            self._apply()
        return self.status()

    def preview(self, requests_per_s: float) -> dict[str, Any] | None:
        """Describe a start now (`preview.preview`)."""
        return preview(
            self._file, self._traffic.table, self.progress, self._clock(), requests_per_s, self._health()
        )

    def status(self) -> dict[str, Any]:
        """`status.describe`, with `leader` (whether this worker leads) and `error`."""
        return {
            **describe(self.progress, self._file, self._traffic.table),
            # Taken beside the loop: it counts once its epoch is in what we show.
            "leader": self._leader.epoch == self.progress.epoch,
            "error": self.error,
            "file_version": self._file.version,
        }
