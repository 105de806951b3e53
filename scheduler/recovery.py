"""Goes on, after a start, with the async tasks that an earlier run left, while new ones already come."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from scheduler.acceptance import Acceptance
from scheduler.accepted_image import resolve
from scheduler.async_side import AsyncSide
from scheduler.backoff import Backoff
from scheduler.errors import BadRequest, ImageUnknown, ImageUnusable, SchedulerError
from scheduler.image import Image
from scheduler.images.contract import ImageSource
from scheduler.store.contract import Store
from scheduler.task import Reason, State, Task, TaskSpec
from scheduler.trouble import Trouble

log = structlog.get_logger()

TURN: Final = 32
"""How many tasks are taken up before other work of the event loop has its turn, and how many ends stored at once."""
AGAIN: Final = Backoff(1.0, 15.0)
"""Pauses between tries to read the store, and to find images that are not available."""
CANCELS_MAX: Final = 100_000
SPECS_SHARED: Final = 10_000


class Recovery:
    """One pass over the unfinished tasks, oldest first; each may start as soon as it was read.

    A task whose image is not available now (the engine does not answer, a pull goes on) is put aside, and
    tried again until it is; one whose image is gone fails.
    """

    def __init__(self, store: Store, images: ImageSource, side: AsyncSide, acceptance: Acceptance) -> None:
        self._store = store
        self._source = images
        self._side = side
        self._acceptance = acceptance
        self._images: dict[tuple[str, str], Image | SchedulerError] = {}
        # The last logged error of each image: while it stays the same, tries are not logged.
        self._told: dict[tuple[str, str], str] = {}
        self._put_aside: list[Task] = []
        self._given_up: list[tuple[Task, State, Reason, str]] = []
        self._cancelled: set[str] = set()
        # A backlog may be large and its tasks alike, so they share their requests.
        self._specs: dict[TaskSpec, TaskSpec] = {}
        self.ended = False

    def begin(self) -> None:
        """From now on `cancel` and `Acceptance` know that the store holds tasks which are not on the roster."""
        self._acceptance.accepted = set()

    def cancel(self, task_id: str) -> None:
        """End a task that was not taken up yet as soon as it is."""
        if not self.ended and len(self._cancelled) < CANCELS_MAX:
            self._cancelled.add(task_id)

    async def run(self) -> None:
        """Take up all unfinished tasks; a store that does not answer is asked again from the beginning."""
        unread = Trouble("unfinished tasks cannot be read; trying again", "unfinished tasks are read again")
        taken: set[str] = set()
        for delay_s in AGAIN:
            try:
                await self._read(taken)
                break
            except SchedulerError as error:
                unread.met(str(error))
            await asyncio.sleep(delay_s)
        unread.over()
        self._acceptance.accepted = None
        if taken:
            log.info("went on with an earlier run's tasks", tasks=len(taken), put_aside=len(self._put_aside))
        taken.clear()
        self._specs.clear()
        pauses_s = iter(AGAIN)
        while self._put_aside or self._given_up:
            await self._store_ends()
            if self._put_aside:
                await asyncio.sleep(next(pauses_s))
                tasks, self._put_aside = self._put_aside, []
                self._images.clear()
                for number, task in enumerate(tasks, 1):
                    await self._take_up(task)
                    if number % TURN == 0:
                        await asyncio.sleep(0)
        self._images.clear()
        self._told.clear()
        self._cancelled.clear()
        self.ended = True

    async def _read(self, taken: set[str]) -> None:
        async for task in self._store.unfinished():
            if task.id in taken or (
                self._acceptance.accepted is not None and task.id in self._acceptance.accepted
            ):
                continue
            taken.add(task.id)
            task.spec = self._specs.setdefault(task.spec, task.spec)
            if len(self._specs) > SPECS_SHARED:
                self._specs.clear()
            await self._take_up(task)
            if len(taken) % TURN == 0:
                await asyncio.sleep(0)

    async def _take_up(self, task: Task) -> None:
        if task.id in self._cancelled:
            self._cancelled.discard(task.id)
            self._given_up.append((task, State.CANCELLED, Reason.CANCELLED, "cancelled before it ran"))
            return
        image = await self._image(task.spec)
        if isinstance(image, Image):
            self._side.adopt(task, image)
        elif isinstance(image, (ImageUnknown, ImageUnusable, BadRequest)):
            detail = f"after a restart of the set: {image}"
            self._given_up.append((task, State.FAILED, Reason.PLATFORM, detail))
        else:
            self._put_aside.append(task)

    async def _image(self, spec: TaskSpec) -> Image | SchedulerError:
        """The accepted image, or why it is not available."""
        key = (spec.image, spec.image_digest)
        known = self._images.get(key)
        if known is None:
            known = self._images[key] = await self._resolve(spec)
            if not isinstance(known, Image) and self._told.get(key) != str(known):
                self._told[key] = str(known)
                log.warning("image of a kept task is not available", image=spec.image, error=str(known))
        return known

    async def _resolve(self, spec: TaskSpec) -> Image | SchedulerError:
        try:
            return await resolve(self._source, spec)
        except SchedulerError as error:
            return error

    async def _store_ends(self) -> None:
        while self._given_up:
            batch, self._given_up = self._given_up[:TURN], self._given_up[TURN:]
            await asyncio.gather(*(self._side.give_up(*end) for end in batch))
