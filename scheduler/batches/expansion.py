"""The expansion of one batch: makes its tasks a window at a time, and ends the batch once all of them have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from scheduler.accepted_image import resolve
from scheduler.backoff import Backoff
from scheduler.batch import Batch
from scheduler.batches.item import Item
from scheduler.batches.spool import Spools, Taken
from scheduler.batches.window import AT_ONCE, Window
from scheduler.errors import (
    BadRequest,
    ImageUnknown,
    ImageUnusable,
    SchedulerError,
    StorageLimit,
    StoreError,
)
from scheduler.image import Image
from scheduler.images.contract import ImageSource
from scheduler.manager import Manager
from scheduler.moments import Moments
from scheduler.store.batch_contract import BatchStore, MadeTask
from scheduler.store.contract import Body
from scheduler.task import Task, TaskSpec
from scheduler.trouble import Trouble

log = structlog.get_logger()

LOOK_EVERY_S: Final = 1.0
"""How often, in seconds, a batch that cannot make tasks looks again, where nothing tells it to."""
AGAIN: Final = Backoff(0.5, 15.0)
"""Pauses, in seconds, after the store or the image could not be read."""
FULL: Final = (
    "the batch makes its other tasks once earlier tasks and batches have expired; its own results expire only after "
    "its end, so if these fill the share, fetch them, cancel the batch, and submit the other inputs later"
)
"""Message for a batch that waits because its account keeps as many bytes as it may."""
CANCELS_AT_ONCE: Final = 64
"""How many tasks of a cancelled batch are ended at the same time."""


class Surroundings(Protocol):
    """The parts of the set that an expansion uses, and its limits."""

    manager: Manager
    store: BatchStore
    spools: Spools
    images: ImageSource
    keep_us: int
    account_most: int
    now_us: Callable[[], int]
    made: int

    def live_of(self, account: str) -> int:
        """How many tasks of the account's batches wait or run."""


class Expansion:
    """An open batch. Call `look` first for one of an earlier run of the set.

    `live`: the ids of its tasks that wait or run. `turn`: held by those that change the batch. `over`: done once it is
    over.
    """

    def __init__(self, batch: Batch, around: Surroundings) -> None:
        self.batch = batch
        self.live: set[str] = set()
        self.turn = asyncio.Lock()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Why it makes no tasks now, in words.
        self.waiting_for: str | None = None
        self._around = around
        self._window = Window(around.account_most)
        self._image: Image | None = None
        self._wake = asyncio.Event()
        self._trouble = Trouble("a batch makes no tasks now", "a batch makes tasks again")
        # After a bug it is not known what is stored.
        self._unsure = False
        # While the store is read: tasks that end meanwhile.
        self._ended_meanwhile: set[str] | None = None

    def wake(self) -> None:
        """Look at once whether tasks may be made, or the batch is over."""
        self._wake.set()

    def task_ended(self, task_id: str) -> None:
        """One of its tasks has ended, and that is stored."""
        self.live.discard(task_id)
        if self._ended_meanwhile is not None:
            self._ended_meanwhile.add(task_id)
        if not self.live or self._window.is_open(len(self.live)):
            self._wake.set()

    async def look(self) -> None:
        """Read from the store which tasks it has. Raises `StoreError`."""
        self._ended_meanwhile = set()
        try:
            batch = await self._around.store.get(self.batch.id)
            live = await self._around.store.live(self.batch.id)
            if batch is not None:
                self.batch = batch
            self.live = set(live) - self._ended_meanwhile
        finally:
            self._ended_meanwhile = None
        self._unsure = False

    async def run(self) -> None:
        """Return once the batch is over, and that is stored."""
        pauses_s = iter(AGAIN)
        while True:
            self._wake.clear()
            pause_s = LOOK_EVERY_S
            try:
                if await self._try():
                    return
                self._trouble.over()
                pauses_s = iter(AGAIN)
            except StoreError as error:
                self._not_now(error)
                pause_s = next(pauses_s)
            except StorageLimit as error:
                self.waiting_for = f"{error}; {FULL}"
            except SchedulerError as error:
                # A limit, a drain, an image that is being pulled: it is asked again soon.
                self.waiting_for = str(error)
            except Exception as error:
                log.error("a batch could not go on, which is a bug; it tries again", exc_info=error)
                pause_s = next(pauses_s)
            try:
                await asyncio.wait_for(self._wake.wait(), pause_s)
            except TimeoutError:
                continue

    async def cancel(self, detail: str) -> None:
        """Make no more tasks and end those that are there; those that wait or run end in the background."""
        async with self.turn:
            # It may have ended while this waited for its turn.
            if not self.batch.cancelled and self.batch.ended_us is None:
                changed = msgspec.structs.replace(self.batch, cancelled=True, detail=detail)
                await self._around.store.save(changed)
                self.batch = changed
        self._wake.set()
        await self.cancel_live()

    async def cancel_live(self) -> None:
        """End the tasks that wait or run; returns when they have ended, or do not end in time."""
        left, account = list(self.live), self.batch.spec.account
        for first in range(0, len(left), CANCELS_AT_ONCE):
            some = left[first : first + CANCELS_AT_ONCE]
            await asyncio.gather(
                *(self._around.manager.cancel(account, task_id) for task_id in some), return_exceptions=True
            )

    async def _try(self) -> bool:
        """Make what may be made now. Returns True if the batch is over."""
        try:
            async with self.turn:
                self.waiting_for = None
                if self._unsure:
                    await self.look()
                if not self.batch.cancelled and not await self._fill():
                    return False
                if self.live:
                    return False
                await self._end()
                return True
        except (ImageUnknown, ImageUnusable) as error:
            # No input that is left can ever run.
            await self.cancel(str(error))
            return False

    def _not_now(self, error: SchedulerError) -> None:
        self.waiting_for = str(error)
        self._trouble.met(str(error), batch=self.batch.id)

    # -- in its turn

    async def _fill(self) -> bool:
        """Make tasks while there is room for them. Returns True if no input waits for its task."""
        while self.batch.made < self.batch.inputs or self.batch.round:
            room = self._room()
            if not room:
                return False
            if not await self._make(room):
                break
        return True

    def _room(self) -> int:
        running = self._around.manager.running_among(self.live)
        account_live = self._around.live_of(self.batch.spec.account)
        return self._window.room(len(self.live) - running, running, account_live)

    async def _make(self, room: int) -> int:
        """Make some tasks, `room` at most. Returns how many: 0 if no input waits for its task."""
        batch = self.batch
        if batch.made < batch.inputs:
            self._around.manager.check_room(batch.spec)
            taken = await self._take(room)
            made = [
                MadeTask(self._new_task(_spec(batch, item), body), body, item.item) for item, body in taken
            ]
            last = taken[-1][0]
            changed = msgspec.structs.replace(batch, next_item=last.next_item, made=batch.made + len(made))
        else:
            failed = await self._around.store.failed(batch, min(room, AT_ONCE)) if batch.round else []
            if not failed:
                return 0
            self._around.manager.check_room(batch.spec)
            taken = await self._around.spools.take_again(batch, [item for item, _ in failed])
            made = []
            for (item, body), (_, earlier) in zip(taken, failed, strict=False):
                earlier.expires_us = self._around.now_us() + self._around.keep_us
                new = self._new_task(earlier.spec, body)
                made.append(MadeTask(new, body, item.item, earlier))
            changed = batch
        await self._enter(changed, made, taken)
        return len(made)

    async def _take(self, room: int) -> list[Taken]:
        try:
            taken = await self._around.spools.take(self.batch, room)
        except BadRequest as error:
            raise StoreError(f"the spool of a batch is damaged: {error}") from error
        if not taken:
            raise StoreError("the spool of a batch ends too early")
        return taken

    async def _enter(self, changed: Batch, made: list[MadeTask], taken: list[Taken]) -> None:
        manager, store = self._around.manager, self._around.store
        tasks = [each.task for each in made]
        # Before any of them can end.
        self.live.update(task.id for task in tasks)
        try:
            if self._image is None:
                self._image = await resolve(self._around.images, self.batch.spec)
            await manager.acceptance.add_all(
                self.batch.spec, self._image, tasks, lambda: store.fill(changed, made)
            )
        except SchedulerError:
            self.live.difference_update(task.id for task in tasks)
            await self._around.spools.forget(taken)
            raise
        except Exception:
            self._unsure = True
            raise
        self.batch = changed
        self._around.made += len(made)

    def _new_task(self, spec: TaskSpec, body: Body) -> Task:
        return Task(
            self._around.manager.ids.new(),
            spec,
            self._around.now_us(),
            stdin_bytes=body.size_bytes,
            batch=self.batch.id,
            moments=Moments(0),
        )

    async def _end(self) -> None:
        batch, now_us = self.batch, self._around.now_us()
        counts = await self._around.store.counts(batch)
        expires_us = max(now_us + self._around.keep_us, batch.keyed_until_us or 0)
        changed = msgspec.structs.replace(batch, ended_us=now_us, expires_us=expires_us)
        if not counts.unsuccessful and not batch.cancelled:
            # Nothing is left to be run again.
            changed.spool = Body(batch.spool.size_bytes)
        await self._around.store.save(changed)
        self.batch = changed
        self.over.set_result(None)


def _spec(batch: Batch, item: Item) -> TaskSpec:
    """The request of the task of an input."""
    spec = batch.spec
    return msgspec.structs.replace(spec, name=item.name, args=spec.args + item.args, env=spec.env + item.env)
