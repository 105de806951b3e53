"""Runs images for a dialect: from what a call asks for to a task's output, or to its id."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from scheduler.errors import SchedulerError, StorageLimit, TaskUnknown, Unavailable
from scheduler.image import Image
from scheduler.live import LiveTask
from scheduler.manager import Manager
from scheduler.policy.storage import Holding
from scheduler.store.contract import INLINE_BYTES, Blobs, Body, Idempotency
from scheduler.task import Kind, State, Task, TaskSpec
from sets.api.accounts import Accounts
from sets.api.body import RequestBody
from sets.api.call import RunCall, spec_of
from sets.api.errors import AnswerBrokenOff, BodyCutOff, BodyTooLarge, CallError
from sets.api.idempotency import REFUSALS, KeysInUse, idempotency_of
from sets.api.upload import Upload

HEAD_BYTES: Final = 65_536
"""Output up to this size is held back, so that the exit code decides the status."""
SMALL_INPUT_BYTES: Final = 61_440
"""Input up to this size, its length known, goes to the guest in one message."""
REMEMBERED: Final = 1_024
"""How many checked calls are remembered."""
REMEMBERED_CHARS: Final = 512
"""Calls whose arguments, variables and paths are longer together are not remembered."""
_TRACEPARENT: Final = re.compile(r"[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}", re.ASCII)


class AcceptedCall(NamedTuple):
    """A call that was checked before its input is read. `length_bytes` is the input's size; None: not known."""

    spec: TaskSpec
    image: Image
    call: RunCall
    length_bytes: int | None
    max_input_bytes: int


class Runs:
    """Runs tasks and submits them, for all dialects of one set; with `fresh_only` each in a new container.

    `traced`: dialects hand the callers' trace contexts to `accept` and `submit`.
    """

    def __init__(
        self,
        manager: Manager,
        accounts: Accounts,
        blobs: Blobs,
        *,
        fresh_only: bool = False,
        traced: bool = False,
    ) -> None:
        self.traced = traced
        self._manager = manager
        self._accounts = accounts
        self._blobs = blobs
        self._fresh_only = fresh_only
        self.keys = KeysInUse()
        self._specs: dict[tuple[str, str, str, RunCall, Kind], TaskSpec] = {}

    async def accept(
        self,
        account: str,
        reference: str,
        call: RunCall,
        kind: Kind,
        length_bytes: int | None,
        trace: str | None = None,
    ) -> AcceptedCall:
        """Resolve the image and check the call, before any input is read. An invalid `trace` is ignored.

        Raises `SchedulerError`, as `Manager.resolve` and `Manager.check_room` do, and `BodyTooLarge`.
        """
        accepted = await self._checked(account, reference, call, kind, length_bytes, trace)
        await self._check_room(accepted)
        return accepted

    async def _checked(
        self,
        account: str,
        reference: str,
        call: RunCall,
        kind: Kind,
        length_bytes: int | None,
        trace: str | None,
    ) -> AcceptedCall:
        image = await self._manager.resolve(reference)
        # Clients repeat themselves: a call that was checked before is not checked again.
        asked = (account, reference, image.digest, call, kind)
        spec = self._specs.get(asked)
        if spec is None:
            spec = spec_of(account, reference, image, call, kind, fresh_only=self._fresh_only)
            if _chars(call) <= REMEMBERED_CHARS:
                if len(self._specs) >= REMEMBERED:
                    self._specs.clear()
                self._specs[asked] = spec
        if trace is not None and _TRACEPARENT.fullmatch(trace):
            spec = msgspec.structs.replace(spec, trace=trace)
        max_bytes = self._accounts.max_input_bytes(account)
        if kind is Kind.ASYNC:
            max_bytes = min(max_bytes, self._manager.storage.most_bytes(account))
        if length_bytes is not None and length_bytes > max_bytes:
            raise BodyTooLarge(max_bytes)
        return AcceptedCall(spec, image, call, length_bytes, max_bytes)

    async def _check_room(self, accepted: AcceptedCall) -> None:
        spec = accepted.spec
        try:
            self._manager.check_room(spec, accepted.length_bytes or 0)
        except StorageLimit as error:
            raise await self.with_time(error, spec.account) from None

    # -- sync

    async def run(self, accepted: AcceptedCall, body: RequestBody) -> SyncRun:
        """Run a sync task; returns with the beginning of its output.

        Raises `SchedulerError`, as `Manager.run` does, `BodyCutOff` and `BodyTooLarge`.
        """
        spec, image, call, length_bytes, max_bytes = accepted
        head_bytes = 0 if call.stream else HEAD_BYTES
        if length_bytes is not None and length_bytes <= SMALL_INPUT_BYTES:
            data = await body.small(length_bytes)
            live, head, whole = await self._manager.run(
                spec,
                image,
                data,
                queue_timeout_s=call.queue_timeout_s,
                head_bytes=head_bytes,
                stream=call.stream,
            )
            return SyncRun(self._manager, live, head, None, whole=whole)
        if not call.stream:
            # A client that sends nothing gets no slot. One that wants to see output first may be waiting for it.
            await body.begin()
        live = await self._manager.start(
            spec, image, None, queue_timeout_s=call.queue_timeout_s, stream=call.stream
        )
        upload = Upload(live, body, max_bytes, partial(self._manager.others_wait, spec.account))
        feeding = asyncio.get_running_loop().create_task(upload.feed())
        try:
            head, whole = await _head_or_bad_body(live, head_bytes, feeding)
        except BaseException:
            feeding.cancel()
            self._manager.abandon(live)
            raise
        return SyncRun(self._manager, live, head, feeding, whole=whole)

    # -- async

    def waiting_for(self, task: Task) -> str | None:
        """See `Manager.waiting_for`."""
        return self._manager.waiting_for(task)

    async def submit(
        self,
        account: str,
        reference: str,
        call: RunCall,
        length_bytes: int | None,
        body: RequestBody,
        key: str | None,
        allowed: Callable[[], None] = lambda: None,
        trace: str | None = None,
    ) -> Task:
        """Keep an async task, whose idempotency key is `key`; when this returns it survives loss of power.

        A call whose key has made its task gets that task, also where new work is refused. `allowed` raises if the
        account may not make this call now. Raises `SchedulerError`, as `accept` and `Manager.submit` do, `BodyCutOff`
        and `BodyTooLarge`.
        """
        accepted: AcceptedCall | None = None
        refusal: SchedulerError | None = None
        with self.keys.call(account, key):
            try:
                allowed()
                accepted = await self._checked(account, reference, call, Kind.ASYNC, length_bytes, trace)
                await self._check_room(accepted)
            except REFUSALS as error:
                refusal = error
            # A large input that is known need not be written to disk again.
            small = refusal is None and length_bytes is not None and length_bytes <= INLINE_BYTES
            if key is None or small or not await self._knows(account, key):
                if refusal is not None or accepted is None:
                    raise refusal or AssertionError
                return await self._keep(accepted, reference, body, key)
            most_bytes = self._accounts.max_input_bytes(account)
            spec = None if accepted is None else accepted.spec
            twin = await self._twin(account, reference, call, spec, body, most_bytes, key)
            if twin is None:
                raise refusal or Unavailable("the key has just become free; send the request again")
            return twin

    async def _knows(self, account: str, key: str) -> bool:
        try:
            await self._manager.keyed(account, key)
        except TaskUnknown:
            return False
        return True

    async def _twin(
        self,
        account: str,
        reference: str,
        call: RunCall,
        spec: TaskSpec | None,
        body: RequestBody,
        most_bytes: int,
        key: str,
    ) -> Task | None:
        """The task of an earlier call with the same body. Raises `IdempotencyConflict` if that call was another."""
        digest = hashlib.sha256()
        async for chunk in body.chunks(most_bytes):
            digest.update(chunk)
        return await self._manager.twin(account, idempotency_of(key, digest, reference, call, spec))

    async def _keep(self, accepted: AcceptedCall, reference: str, body: RequestBody, key: str | None) -> Task:
        spec = accepted.spec
        holding = self._manager.storage.hold(spec.account)
        idempotency: Idempotency | None = None
        try:
            stdin, digest = await self._keep_input(accepted, body, holding, hashed=key is not None)
            if key is not None:
                idempotency = idempotency_of(key, digest, reference, accepted.call, spec)
            return await self._manager.submit(spec, accepted.image, stdin, idempotency)
        except REFUSALS as error:
            # Its twin may have been taken meanwhile.
            known = None if idempotency is None else await self._manager.twin(spec.account, idempotency)
            if known is not None:
                return known
            if isinstance(error, StorageLimit):
                raise await self.with_time(error, spec.account) from None
            raise
        finally:
            holding.release()

    async def with_time(self, error: StorageLimit, account: str) -> StorageLimit:
        """The error, which says when the account will have more room."""
        error.retry_after_s = await self._manager.storage.frees_in_s(account)
        return error

    async def _keep_input(
        self, accepted: AcceptedCall, body: RequestBody, holding: Holding, *, hashed: bool
    ) -> tuple[Body, Any]:
        digest = hashlib.sha256()
        length_bytes = accepted.length_bytes
        if length_bytes is not None:
            holding.grow(length_bytes)
        if length_bytes is not None and length_bytes <= INLINE_BYTES:
            data = await body.small(length_bytes)
            if hashed:
                digest.update(data)
            return Body(length_bytes, data), digest
        writer = self._blobs.body()
        try:
            async for chunk in body.chunks(accepted.max_input_bytes):
                if length_bytes is None:
                    holding.grow(len(chunk))
                if hashed:
                    digest.update(chunk)
                await writer.write(chunk)
            if length_bytes is not None and writer.size_bytes != length_bytes:
                raise BodyCutOff
            return await writer.finish(), digest
        except BaseException:
            await writer.abort()
            raise


class SyncRun:
    """A sync task that runs or has ended, with the beginning of its output, `head`; all of it where `whole`.

    A whole one is concluded by `finish`; otherwise `output` reads the rest and concludes it.
    """

    __slots__ = ("_feeding", "_live", "_manager", "head", "whole")

    def __init__(
        self,
        manager: Manager,
        live: LiveTask,
        head: bytes,
        feeding: asyncio.Task[None] | None,
        *,
        whole: bool,
    ) -> None:
        self.head = head
        self.whole = whole
        self._manager = manager
        self._live = live
        self._feeding = feeding

    @property
    def task_id(self) -> str:
        return self._live.task.id

    async def finish(self) -> Task:
        """Conclude the task; its usage is recorded when this returns.

        Raises `SchedulerError`, as `Manager.finish` does, and what was wrong with an input that ended the task.
        """
        feeding = self._feeding
        try:
            task = await self._manager.finish(self._live)
        except asyncio.CancelledError:
            self._manager.abandon(self._live)
            raise
        finally:
            if feeding is not None:
                feeding.cancel()
        if feeding is not None and task.state is State.CANCELLED and _failed(feeding):
            feeding.result()
        return task

    def rest(self) -> AsyncIterator[bytes]:
        """The output after `head`, for a caller that concludes the task by `finish` before it answers."""
        return self._live.rest()

    def abandon(self) -> None:
        """The caller wants the task no longer; harmless once it has ended."""
        if self._feeding is not None:
            self._feeding.cancel()
        self._manager.abandon(self._live)

    async def output(self) -> AsyncIterator[bytes]:
        """The whole output, as it comes. Raises `AnswerBrokenOff` where the task does not succeed: the answer must be
        broken off then, since half an answer must never look like a whole one."""
        feeding = self._feeding
        finished = False
        try:
            yield self.head
            async for chunk in self._live.rest():
                yield chunk
            if feeding is not None and feeding.done():
                # A body that was cut off made the end of this output.
                feeding.result()
            task = await self._manager.finish(self._live)
            finished = True
            if task.state is not State.SUCCEEDED:
                raise AnswerBrokenOff(f"task {task.id} {task.state}: {task.detail}")
        except (CallError, SchedulerError) as error:
            raise AnswerBrokenOff(f"task {self.task_id}: {error}") from error
        finally:
            if feeding is not None:
                feeding.cancel()
            if not finished:
                self._manager.abandon(self._live)


def _failed(work: asyncio.Task[None]) -> bool:
    return work.done() and not work.cancelled() and work.exception() is not None


async def _head_or_bad_body(
    live: LiveTask, limit_bytes: int, feeding: asyncio.Task[None]
) -> tuple[bytes, bool]:
    """The head of the output. Raises what went wrong with the body, if that comes first."""
    head = asyncio.ensure_future(live.head(limit_bytes))
    try:
        await asyncio.wait({head, feeding}, return_when=asyncio.FIRST_COMPLETED)
        if feeding.done():
            feeding.result()
        return await head
    finally:
        if not head.done():
            head.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await head


def _chars(call: RunCall) -> int:
    texts = (
        *call.args,
        *call.env,
        *call.outputs,
        *call.cpu_features,
        call.name or "",
        call.callback_url or "",
    )
    # An empty argument takes room, too.
    return sum(map(len, texts)) + len(texts)
