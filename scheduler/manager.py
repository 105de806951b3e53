"""The task manager: drives policy, store, launcher and executor. The way of every task goes through here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
import structlog

from scheduler.errors import Draining, QueueTimeout, SchedulerError, SlotLost, TaskUnknown
from scheduler.execution import Executor, Work
from scheduler.image import Image
from scheduler.launchers.contract import Launcher, PoolKey
from scheduler.live import LiveTask
from scheduler.policy.dispatch import Assign, Decision, Dispatch, FailTask, Limits, StartSlot, number_slots
from scheduler.results import Collector
from scheduler.slots import SlotKeeper
from scheduler.store.contract import Blobs, Body, Durability, Idempotency, Results, Store, TaskFilter
from scheduler.task import Kind, Reason, State, Task, TaskIds, TaskSpec

log = structlog.get_logger()


class ManagerSettings(msgspec.Struct, frozen=True):
    """Times are seconds. `sync_keep_s`, `async_keep_s`: how long an ended task can be asked for."""

    set_name: str
    limits: Limits = Limits()
    sync_keep_s: int = 900
    async_keep_s: int = 86_400
    max_attempts: int = 3
    slot_start_timeout_s: float = 60.0
    stdout_max_bytes: int = 4 << 30
    stderr_max_bytes: int = 64 << 20
    file_max_bytes: int = 1 << 30
    tick_s: float = 0.25
    expire_every_s: float = 60.0


class Observer(Protocol):
    """Hears of what is worth counting."""

    def task_ended(self, task: Task) -> None: ...

    def slot_started(self, seconds: float) -> None: ...


class _Entry:
    """A task that waits or runs."""

    __slots__ = ("argv", "cancel", "image", "live", "pool", "slot_id", "started", "stdin", "stream", "task")

    def __init__(self, task: Task, image: Image, pool: PoolKey) -> None:
        self.task = task
        self.image = image
        self.pool = pool
        self.argv = tuple([arg.encode() for arg in image.argv(task.spec.args)])
        self.stdin: bytes | None = None
        self.stream = False
        # A sync task's caller waits here for its start.
        self.started: asyncio.Future[LiveTask] | None = None
        self.live: LiveTask | None = None
        self.slot_id = ""
        self.cancel: Reason | None = None

    def wait_anew(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[LiveTask]:
        """Where the caller of a sync task waits for its (next) start."""
        self.live = None
        self.started = loop.create_future()
        return self.started

    def work(self, stdin: bytes | None) -> Work:
        spec = self.task.spec
        return Work(
            argv=self.argv,
            env=tuple([variable.encode() for variable in spec.env]),
            stdin=stdin,
            outputs=tuple([path.encode() for path in spec.outputs]) if spec.kind is Kind.ASYNC else (),
            stream=self.stream,
        )


class Manager:
    """The task manager of one set; also hears what the executor tells (`scheduler.execution.SlotEvents`)."""

    def __init__(
        self,
        settings: ManagerSettings,
        store: Store,
        blobs: Blobs,
        launcher: Launcher,
        executor: Executor,
        observer: Observer,
    ) -> None:
        self.settings = settings
        self.ids = TaskIds(settings.set_name)
        self.draining = False
        self._store = store
        self._blobs = blobs
        self._launcher = launcher
        self._executor = executor
        self._observer = observer
        # Slot ids of two runs of a set differ: a leftover is never taken for a new slot.
        self._dispatch = Dispatch(settings.limits, number_slots(f"{time.time_ns() // 1_000_000:x}-"))
        self._keeper = SlotKeeper(launcher, executor, self._slot_gone, settings.slot_start_timeout_s)
        self._keeper.start_seconds = observer.slot_started
        self._entries: dict[str, _Entry] = {}
        self._images: dict[PoolKey, Image] = {}
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- life

    async def open(self) -> None:
        """Open the parts and go on with what an earlier run left queued or running."""
        await self._store.open()
        await self._executor.open(self)
        await self._launcher.open()
        self._spawn(self._recover())
        self._spawn(self._tick())
        self._spawn(self._expire())

    async def close(self) -> None:
        """Stop; tasks that are queued, and async ones that run, stay in the store for the next start."""
        self.draining = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keeper.close()
        await self._executor.close()
        await self._launcher.close()
        await self._store.close()

    async def check(self) -> None:
        """Raise `Unavailable` when this set could not run a task now."""
        if self.draining:
            raise Draining
        await self._launcher.check()

    # -- tasks

    async def resolve(self, reference: str) -> Image:
        return await self._launcher.resolve(reference)

    async def start(
        self,
        spec: TaskSpec,
        image: Image,
        stdin: bytes | None,
        *,
        queue_timeout_s: float,
        stream: bool = False,
    ) -> LiveTask:
        """Run a sync task: returns once it has a slot. `stdin` None: write it to the `stdin` of what is returned.

        Raises `QueueFull`, `QueueTimeout`, `BadRequest`, `ImageUnusable` with nothing executed.
        """
        task = Task(self.ids.new(), spec, time.time_ns() // 1000)
        entry = self._enter(task, image)
        entry.stdin = stdin
        entry.stream = stream
        if stdin is not None:
            task.stdin_bytes = len(stdin)
        return await self._slot_for(entry, queue_timeout_s)

    async def run(
        self,
        spec: TaskSpec,
        image: Image,
        stdin: bytes,
        *,
        queue_timeout_s: float,
        head_bytes: int,
        stream: bool = False,
    ) -> tuple[LiveTask, bytes, bool]:
        """As `start`, and `LiveTask.head` of it; once more when the platform lost the first attempt."""
        live = await self.start(spec, image, stdin, queue_timeout_s=queue_timeout_s, stream=stream)
        while True:
            try:
                return live, *await live.head(head_bytes)
            except asyncio.CancelledError:
                self.abandon(live)
                raise
            except SlotLost:
                entry = self._entries.get(live.task.id)
                if entry is None or live.task.attempts > 1:
                    self._forget(live.task)
                    raise
                live.task.move(State.QUEUED)
                live = await self._slot_for(entry, queue_timeout_s)

    def abandon(self, live: LiveTask) -> None:
        """The client of a sync task is gone: kill it, conclude it beside."""
        self._spawn(self._abandoned(live))

    async def finish(self, live: LiveTask) -> Task:
        """Conclude a sync task whose output was read; its usage is recorded when this returns. Raises `SlotLost`."""
        try:
            await live.finish()
        except SlotLost:
            self._forget(live.task)
            raise
        return live.task

    async def submit(
        self, spec: TaskSpec, image: Image, stdin: Body, idempotency: Idempotency | None
    ) -> Task:
        """Keep an async task; when this returns it survives loss of power. Raises as `start`, `IdempotencyConflict`."""
        if self.draining:
            raise Draining
        key = _pool_key(spec)
        self._dispatch.check(key)
        task = Task(self.ids.new(), spec, time.time_ns() // 1000, stdin_bytes=stdin.size_bytes)
        kept = await self._store.add(task, stdin, idempotency)
        if kept.id == task.id:
            self._enqueue(self._enter(task, image, checked=True))
        return kept

    def check_room(self, spec: TaskSpec) -> None:
        """Raise what `start` and `submit` would raise about limits; before a body is read."""
        if self.draining:
            raise Draining
        self._dispatch.check(_pool_key(spec))

    async def get(self, account: str, task_id: str) -> Task:
        """Raises `TaskUnknown`, also for another account's."""
        entry = self._entries.get(task_id)
        task = entry.task if entry is not None else await self._store.get(task_id)
        if task is None or task.spec.account != account:
            raise TaskUnknown(f"no task {task_id} of this account; ended tasks are kept for a limited time")
        return task

    async def wait(self, account: str, task_id: str, timeout_s: float) -> Task:
        """As `get`, once the task has ended or `timeout_s` passed."""
        task = await self.get(account, task_id)
        if not task.ended and timeout_s > 0 and task_id in self._entries:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.setdefault(task_id, set()).add(future)
            try:
                await asyncio.wait_for(future, timeout_s)
            except TimeoutError:
                pass
            finally:
                watchers = self._watchers.get(task_id)
                if watchers is not None:
                    watchers.discard(future)
            task = await self.get(account, task_id)
        return task

    async def page(self, task_filter: TaskFilter) -> list[Task]:
        tasks = await self._store.page(task_filter)
        return [self._entries[task.id].task if task.id in self._entries else task for task in tasks]

    async def results(self, task_id: str) -> Results | None:
        return await self._store.results(task_id)

    def open_blob(self, name: str) -> int:
        """A descriptor of a result's blob, owned by the caller."""
        return self._blobs.open_read(name)

    async def cancel(self, account: str, task_id: str) -> Task:
        """End a task now; one that has ended already stays as it is."""
        task = await self.get(account, task_id)
        entry = self._entries.get(task_id)
        if task.ended or entry is None:
            return task
        entry.cancel = Reason.CANCELLED
        if entry.live is not None:
            entry.live.kill(Reason.CANCELLED)
        elif task.state is State.QUEUED:
            self._apply(self._dispatch.task_left(task_id, time.monotonic()))
            if entry.started is not None and not entry.started.done():
                entry.started.set_exception(QueueTimeout("the task was cancelled while it waited"))
            await self._give_up(entry, State.CANCELLED, Reason.CANCELLED, "cancelled before it ran")
        return await self.wait(account, task_id, 10)

    # -- numbers

    def facts(self) -> dict[str, int]:
        """Gauges: waiting and live tasks, slots by state."""
        slots = {f"slots_{state}": count for state, count in self._dispatch.slots_by_state().items()}
        return {"tasks_waiting": self._dispatch.waiting, "tasks_known": len(self._entries), **slots}

    # -- from the executor and the launcher

    def slot_ready(self, slot_id: str) -> None:
        self._keeper.ready(slot_id)
        self._apply(self._dispatch.slot_ready(slot_id, time.monotonic()))

    def slot_freed(self, slot_id: str) -> None:
        self._apply(self._dispatch.slot_freed(slot_id, time.monotonic()))

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self._keeper.lost(slot_id, reason)

    def _slot_gone(self, slot_id: str, fatal: Exception | None) -> None:
        self._apply(self._dispatch.slot_gone(slot_id, time.monotonic(), fatal))

    # -- decisions

    def _apply(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Assign):
                self._assign(decision)
            elif isinstance(decision, StartSlot):
                self._keeper.start(decision.slot_id, decision.pool, self._images[decision.pool])
            elif isinstance(decision, FailTask):
                self._cannot_run(decision.task_id, decision.error)
            else:
                self._keeper.stop(decision.slot_id)

    def _assign(self, decision: Assign) -> None:
        entry = self._entries[decision.task_id]
        task = entry.task
        entry.slot_id = decision.slot_id
        task.cold_start = decision.cold
        task.attempts += 1
        task.move(State.RUNNING)
        task.started_us = time.time_ns() // 1000
        task.queue_us = task.started_us - task.created_us
        if entry.started is None:
            self._store.update_later(task)
            self._spawn(self._run_async(entry))
            return
        try:
            live = self._go(entry, task, entry.stdin, self._record_sync)
        except SchedulerError as error:
            if not entry.started.done():
                entry.started.set_exception(error)
            return
        entry.live = live
        if entry.started.done():
            # Its caller went away between the decision and now.
            self.abandon(live)
        else:
            entry.started.set_result(live)

    def _go(
        self,
        entry: _Entry,
        task: Task,
        stdin: bytes | None,
        record: Callable[[Task], Awaitable[None]],
        **keep: Any,
    ) -> LiveTask:
        slot_id = entry.slot_id
        try:
            run = self._executor.run(slot_id, entry.work(stdin))
        except SlotLost:
            raise
        except SchedulerError:
            # The work was refused before the slot saw it: the slot is as good as before.
            self._apply(self._dispatch.slot_freed(slot_id, time.monotonic()))
            raise
        return LiveTask(task, run, entry.argv[0], record, lambda: self._keeper.out_of_memory(slot_id), **keep)

    def _cannot_run(self, task_id: str, error: Exception) -> None:
        entry = self._entries.get(task_id)
        if entry is None:
            return
        if entry.started is not None:
            if not entry.started.done():
                entry.started.set_exception(error)
        else:
            self._spawn(self._give_up(entry, State.FAILED, Reason.NOT_EXECUTABLE, str(error)))

    # -- sync

    def _enter(self, task: Task, image: Image, *, checked: bool = False) -> _Entry:
        pool = _pool_key(task.spec)
        if not checked:
            if self.draining:
                raise Draining
            self._dispatch.check(pool)
        entry = _Entry(task, image, pool)
        self._images[pool] = image
        self._entries[task.id] = entry
        return entry

    async def _slot_for(self, entry: _Entry, queue_timeout_s: float) -> LiveTask:
        loop = asyncio.get_running_loop()
        started = entry.wait_anew(loop)
        self._enqueue(entry)
        if started.done():
            return self._started(entry, started)
        timer = loop.call_later(queue_timeout_s, self._queue_timeout, entry, queue_timeout_s)
        try:
            await started
        except asyncio.CancelledError:
            self._apply(self._dispatch.task_left(entry.task.id, time.monotonic()))
            if entry.live is not None:
                self.abandon(entry.live)
            else:
                self._forget(entry.task)
            raise
        except SchedulerError:
            pass
        finally:
            timer.cancel()
        return self._started(entry, started)

    def _started(self, entry: _Entry, started: asyncio.Future[LiveTask]) -> LiveTask:
        try:
            return started.result()
        except SchedulerError:
            self._forget(entry.task)
            raise

    def _queue_timeout(self, entry: _Entry, queue_timeout_s: float) -> None:
        if entry.started is not None and not entry.started.done():
            self._apply(self._dispatch.task_left(entry.task.id, time.monotonic()))
            entry.started.set_exception(
                QueueTimeout(f"no slot became free within queue_timeout_s ({queue_timeout_s:g} s)")
            )

    async def _record_sync(self, task: Task) -> None:
        task.expires_us = (task.ended_us or 0) + self.settings.sync_keep_s * 1_000_000
        await self._store.update(task, Durability.PROCESS)
        if self._entries.pop(task.id, None) is not None:
            self._observer.task_ended(task)
            self._wake(task.id)

    async def _abandoned(self, live: LiveTask) -> None:
        try:
            await live.abandon()
        except SlotLost:
            self._forget(live.task)

    def _forget(self, task: Task) -> None:
        if self._entries.pop(task.id, None) is not None:
            self._wake(task.id)

    # -- async

    def _enqueue(self, entry: _Entry) -> None:
        self._apply(self._dispatch.task_arrived(entry.task.id, entry.pool, time.monotonic()))

    async def _run_async(self, entry: _Entry) -> None:
        """One attempt of an async task, from its stored input to its stored results."""
        task_id = entry.task.id
        collector = Collector(self._blobs, self.settings)
        try:
            stdin = await self._store.stdin(task_id)
            if stdin is None:
                raise SlotLost("the input is gone")
            # What others see stays `running` until the results are on disk.
            mine = msgspec.structs.replace(entry.task)
            small = stdin.inline if stdin.inline is not None else None
            live = entry.live = self._go(entry, mine, small, _nothing, **collector.keep())
            if entry.cancel is not None:
                live.kill(entry.cancel)
            if stdin.blob is not None:
                self._spawn(self._feed(live, stdin))
            results = await collector.collect(live)
        except SlotLost as error:
            await collector.abort()
            await self._lost_attempt(entry, str(error))
            return
        except SchedulerError as error:
            await collector.abort()
            if entry.live is not None:
                entry.live.abandon()
            await self._give_up(entry, State.FAILED, Reason.PLATFORM, str(error))
            return
        except BaseException:
            if entry.live is not None:
                entry.live.close()
            await collector.abort()
            raise
        mine.expires_us = (mine.ended_us or 0) + self.settings.async_keep_s * 1_000_000
        await self._end_async(entry, mine, results)

    async def _feed(self, live: LiveTask, stdin: Body) -> None:
        assert live.stdin is not None
        assert stdin.blob is not None
        try:
            fd = self._blobs.open_read(stdin.blob)
            try:
                await live.stdin.send_file(fd, stdin.size_bytes)
            finally:
                os.close(fd)
        except BrokenPipeError:
            pass
        except (OSError, SchedulerError) as error:
            log.error("an input could not be read", task=live.task.id, error=str(error))
            live.kill(Reason.PLATFORM)
        finally:
            live.stdin.close()

    async def _lost_attempt(self, entry: _Entry, reason: str) -> None:
        """The platform lost an attempt: again, unless that happened too often. It is not billed."""
        task = entry.task
        log.warning("attempt lost", task=task.id, attempt=task.attempts, reason=reason)
        entry.live = None
        if entry.cancel is not None:
            await self._give_up(entry, State.CANCELLED, entry.cancel, "cancelled")
        elif task.attempts >= self.settings.max_attempts:
            detail = f"the platform lost {task.attempts} attempts; the last one: {reason}"
            await self._give_up(entry, State.FAILED, Reason.PLATFORM, detail)
        else:
            task.move(State.QUEUED)
            task.started_us = None
            self._store.update_later(task)
            self._enqueue(entry)

    async def _give_up(self, entry: _Entry, state: State, reason: Reason, detail: str) -> None:
        """End a task that does not run."""
        task = msgspec.structs.replace(entry.task)
        task.move(state)
        task.reason, task.detail = reason, detail
        task.ended_us = time.time_ns() // 1000
        if task.spec.kind is Kind.SYNC:
            entry.task = task
            await self._record_sync(task)
            return
        task.expires_us = task.ended_us + self.settings.async_keep_s * 1_000_000
        await self._end_async(entry, task, Results())

    async def _end_async(self, entry: _Entry, task: Task, results: Results) -> None:
        delay_s = 0.1
        while True:
            try:
                await self._store.finish(task, results)
                break
            except SchedulerError as error:
                # The outcome must not be lost: a full disk or a slow one is waited for.
                log.error("an outcome could not be stored; trying again", task=task.id, error=str(error))
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, 10)
        entry.task = task
        self._entries.pop(task.id, None)
        self._observer.task_ended(task)
        self._wake(task.id)

    # -- beside

    async def _recover(self) -> None:
        """Queue again what an earlier run left; an attempt that was running counts as lost."""
        async for task in self._store.unfinished():
            try:
                image = await self._launcher.resolve(_pinned(task.spec))
            except SchedulerError as error:
                log.error("a kept task's image is not to be had", task=task.id, error=str(error))
                image = Image(task.spec.image, task.spec.image_digest, task.spec.image_digest, ("?",))
                entry = self._enter(task, image, checked=True)
                await self._give_up(entry, State.FAILED, Reason.PLATFORM, f"after a restart: {error}")
                continue
            entry = self._enter(task, image, checked=True)
            if task.state is State.RUNNING:
                await self._lost_attempt(entry, "the set was restarted")
            else:
                self._enqueue(entry)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.settings.tick_s)
            self._apply(self._dispatch.tick(time.monotonic()))

    async def _expire(self) -> None:
        while True:
            try:
                freed = await self._store.expire(time.time_ns() // 1000, 1000)
                await self._blobs.delete(freed)
            except SchedulerError as error:
                log.error("expired tasks could not be removed", error=str(error))
            await asyncio.sleep(self.settings.expire_every_s)

    def _wake(self, task_id: str) -> None:
        for future in self._watchers.pop(task_id, ()):
            if not future.done():
                future.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("background work failed", exc_info=task.exception())


async def _nothing(task: Task) -> None:
    """An async task's outcome is recorded together with its results."""


def _pool_key(spec: TaskSpec) -> PoolKey:
    return PoolKey(spec.account, spec.image_digest, spec.resources, spec.isolation)


def _pinned(spec: TaskSpec) -> str:
    """A reference that still names the accepted image when its tag has moved on."""
    return spec.image_digest
