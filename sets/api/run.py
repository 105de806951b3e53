"""POST /v1/run/{image}: run a task, synchronously with its output as the answer, or asynchronously with a 202."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.errors import BadRequest, SchedulerError
from scheduler.image import (
    LABEL_CONTENT_TYPE,
    LABEL_CPU_FEATURES,
    LABEL_ISOLATION,
    LABEL_PRESTART,
    Image,
)
from scheduler.live import LiveTask
from scheduler.manager import Manager
from scheduler.store.contract import INLINE_BYTES, Blobs, Body, Idempotency
from scheduler.task import Isolation, Kind, Reason, Resources, State, Task, TaskSpec
from sets.api.accounts import Accounts
from sets.api.body import SCOPE_KEY, BodyCutOff, BodyTooLarge, RequestBody
from sets.api.idempotency import key_of
from sets.api.params import RunParams, parse_run
from sets.api.problems import Problem, body_stalled, input_too_large, problem_of, problem_of_task
from sets.api.view import facts, send_json, task_json

HEAD_BYTES: Final = 65_536
"""Output up to this size is held back, so that the exit code decides the status."""
SMALL_INPUT_BYTES: Final = 61_440
"""Input up to this size, its length known, goes to the guest in one message."""
REMEMBERED: Final = 1_024
REMEMBERED_BYTES: Final = 512
"""Requests with longer parameters are not remembered."""
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
_CONTENT_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)


class RunResource:
    def __init__(
        self,
        manager: Manager,
        accounts: Accounts,
        blobs: Blobs,
        set_name: str,
        cpu_features: frozenset[str],
    ) -> None:
        self._manager = manager
        self._accounts = accounts
        self._blobs = blobs
        self._set_name = set_name
        self._cpu_features = cpu_features
        self._specs: dict[tuple[str, str, str, RunParams, bool], TaskSpec] = {}
        self._submitting: set[asyncio.Task[Task]] = set()

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, image: str) -> None:
        account = self._accounts.of(req)
        params = parse_run(req.scope["query_string"])
        sync = not _wants_async(req.get_header("Prefer"))
        found = await self._manager.resolve(image)
        if req.get_header("X-Callback-Url") is not None:
            detail = "X-Callback-Url: this set delivers no callbacks; ask with GET /v1/tasks/{id}?wait=30"
            raise BadRequest(detail, field="X-Callback-Url")
        # Clients repeat themselves: what was asked for and checked before is not made anew.
        asked = (account, image, found.digest, params, sync)
        spec = self._specs.get(asked)
        if spec is None:
            spec = self._spec(account, image, found, params, sync=sync)
            if len(req.scope["query_string"]) <= REMEMBERED_BYTES:
                if len(self._specs) >= REMEMBERED:
                    self._specs.clear()
                self._specs[asked] = spec
        self._manager.check_room(spec)
        length = _content_length(req)
        limit = self._accounts.max_input_bytes(account)
        if length is not None and length > limit:
            raise input_too_large(limit, executed=False)
        body: RequestBody = req.scope[SCOPE_KEY]
        try:
            if not sync:
                await self._submit(req, resp, spec, found, body, limit, length)
            elif length is not None and length <= SMALL_INPUT_BYTES:
                await self._run_small(resp, spec, found, params, await body.small(length))
            else:
                await self._run_streaming(resp, spec, found, params, body, limit)
        except BodyTooLarge:
            raise input_too_large(limit, executed=False) from None

    def _spec(
        self,
        account: str,
        reference: str,
        image: Image,
        params: RunParams,
        *,
        sync: bool,
    ) -> TaskSpec:
        if not image.entrypoint and not image.cmd and not params.arg:
            raise BadRequest("arg: the image has neither ENTRYPOINT nor CMD; say what to run", field="arg")
        features = params.cpu_feature or tuple(image.labels.get(LABEL_CPU_FEATURES, "").split())
        missing = sorted(set(features) - self._cpu_features)
        if missing:
            raise BadRequest(f"cpu_feature: no machine here has {', '.join(missing)}", field="cpu_feature")
        return TaskSpec(
            account=account,
            image=reference,
            image_digest=image.digest,
            args=params.arg,
            env=params.env,
            name=params.name,
            kind=Kind.SYNC if sync else Kind.ASYNC,
            timeout_s=params.timeout(sync=sync),
            resources=Resources(round(params.cpu * 100), params.memory_mib),
            isolation=params.isolation or _label_isolation(image),
            cpu_features=features,
            outputs=params.output,
            priority=params.priority,
            prestart=image.labels.get(LABEL_PRESTART) == "1" if params.prestart is None else params.prestart,
        )

    # -- sync

    async def _run_small(
        self, resp: falcon.asgi.Response, spec: TaskSpec, image: Image, params: RunParams, data: bytes
    ) -> None:
        live, head, ended = await self._manager.run(
            spec,
            image,
            data,
            queue_timeout_s=params.queue_timeout_s,
            head_bytes=0 if params.stream else HEAD_BYTES,
            stream=params.stream,
        )
        await self._answer(resp, live, image, head, ended=ended, feeding=None)

    async def _run_streaming(
        self,
        resp: falcon.asgi.Response,
        spec: TaskSpec,
        image: Image,
        params: RunParams,
        body: RequestBody,
        limit: int,
    ) -> None:
        live = await self._manager.start(
            spec, image, None, queue_timeout_s=params.queue_timeout_s, stream=params.stream
        )
        feeding = asyncio.get_running_loop().create_task(_feed(live, body, limit))
        try:
            head, ended = await _head_or_bad_body(live, 0 if params.stream else HEAD_BYTES, feeding)
        except BaseException:
            feeding.cancel()
            self._manager.abandon(live)
            raise
        await self._answer(resp, live, image, head, ended=ended, feeding=feeding)

    async def _answer(
        self,
        resp: falcon.asgi.Response,
        live: LiveTask,
        image: Image,
        head: bytes,
        *,
        ended: bool,
        feeding: asyncio.Task[None] | None,
    ) -> None:
        resp.content_type = _content_type(image)
        if not ended:
            resp.set_header("X-Task-Id", live.task.id)
            resp.stream = self._rest(live, head, feeding)
            return
        try:
            task = await self._manager.finish(live)
        except asyncio.CancelledError:
            self._manager.abandon(live)
            raise
        except SchedulerError as error:
            raise problem_of(error, executed=True) from error
        finally:
            if feeding is not None:
                feeding.cancel()
        if feeding is not None and task.state is State.CANCELLED and _failed(feeding):
            feeding.result()
        headers = facts(task)
        if task.state is not State.SUCCEEDED:
            raise problem_of_task(task, headers)
        resp.set_headers(headers)
        resp.data = head

    async def _rest(
        self, live: LiveTask, head: bytes, feeding: asyncio.Task[None] | None
    ) -> AsyncIterator[bytes]:
        """A streamed answer. What goes wrong breaks the chunking off: half an answer never looks like a whole one."""
        finished = False
        try:
            yield head
            async for chunk in live.rest():
                yield chunk
            if feeding is not None and feeding.done():
                # A body that was cut off made the end of this output.
                feeding.result()
            task = await self._manager.finish(live)
            finished = True
            if task.state is not State.SUCCEEDED:
                raise AnswerBrokenOff(f"task {task.id} {task.state}: {task.detail}")
        except (Problem, SchedulerError) as error:
            raise AnswerBrokenOff(f"task {live.task.id}: {error}") from error
        finally:
            if feeding is not None:
                feeding.cancel()
            if not finished:
                self._manager.abandon(live)

    # -- async

    async def _submit(
        self,
        req: falcon.asgi.Request,
        resp: falcon.asgi.Response,
        spec: TaskSpec,
        image: Image,
        body: RequestBody,
        limit: int,
        length: int | None,
    ) -> None:
        key = key_of(req)
        stdin, digest = await self._keep_input(body, limit, length, hashed=key is not None)
        idempotency = None
        if key is not None:
            digest.update(msgspec.msgpack.encode(spec))
            idempotency = Idempotency(key, digest.digest())
        # A commit under way cannot be taken back: a client that goes away now has submitted its task nevertheless.
        task = await self._to_its_end(self._hand_in(spec, image, stdin, idempotency))
        resp.status = 202
        resp.set_headers({"Location": f"/v1/tasks/{task.id}", "X-Task-Id": task.id})
        send_json(resp, task_json(task, self._set_name))

    async def _hand_in(
        self, spec: TaskSpec, image: Image, stdin: Body, idempotency: Idempotency | None
    ) -> Task:
        try:
            return await self._manager.submit(spec, image, stdin, idempotency)
        except SchedulerError:
            if stdin.blob is not None:
                await self._blobs.delete([stdin.blob])
            raise

    async def _to_its_end(self, work: Coroutine[Any, Any, Task]) -> Task:
        """Await `work`, which goes on when the awaiting request is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._submitting.add(task)
        task.add_done_callback(self._submitted)
        return await asyncio.shield(task)

    def _submitted(self, task: asyncio.Task[Task]) -> None:
        self._submitting.discard(task)
        if not task.cancelled():
            # Fetched, so that a failure nobody waits for any more is not reported as forgotten.
            task.exception()

    async def _keep_input(
        self, body: RequestBody, limit: int, length: int | None, *, hashed: bool
    ) -> tuple[Body, Any]:
        digest = hashlib.sha256()
        if length is not None and length <= INLINE_BYTES:
            data = await body.small(length)
            if hashed:
                digest.update(data)
            return Body(length, data), digest
        writer = self._blobs.body()
        try:
            async for chunk in body.chunks(limit):
                if hashed:
                    digest.update(chunk)
                await writer.write(chunk)
            if length is not None and writer.size_bytes != length:
                raise BodyCutOff
            return await writer.finish(), digest
        except BaseException:
            await writer.abort()
            raise


class AnswerBrokenOff(Exception):
    """The task did not succeed after its answer had begun."""


async def _feed(live: LiveTask, body: RequestBody, limit: int) -> None:
    """Stream a request's body into the program. A body that ends too early ends the task, never the input.

    Raises `Problem`; executed, since the program has seen what came before.
    """
    stdin = live.stdin
    assert stdin is not None
    try:
        async for chunk in body.chunks(limit):
            live.task.stdin_bytes += len(chunk)
            await stdin.write(chunk)
    except BrokenPipeError:
        # The program reads no more, or has ended: what else comes is not wanted.
        return
    except BodyCutOff:
        live.kill(Reason.CLIENT_GONE)
        raise body_stalled(executed=True) from None
    except BodyTooLarge:
        live.kill(Reason.CLIENT_GONE)
        raise input_too_large(limit, executed=True) from None
    stdin.close()


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


def _wants_async(prefer: str | None) -> bool:
    return prefer is not None and any(
        item.partition(";")[0].strip().lower() == "respond-async" for item in prefer.split(",")
    )


def _content_length(req: falcon.asgi.Request) -> int | None:
    """The body's length; 0 for a request without a body, None where it is chunked."""
    if req.content_length is not None:
        return req.content_length
    return None if req.get_header("Transfer-Encoding") else 0


def _content_type(image: Image) -> str:
    """What the image's label says, where that is a media type."""
    label = image.labels.get(LABEL_CONTENT_TYPE, "")
    return label if _CONTENT_TYPE.fullmatch(label) else DEFAULT_CONTENT_TYPE


def _label_isolation(image: Image) -> Isolation:
    label = image.labels.get(LABEL_ISOLATION, Isolation.SHARED)
    try:
        return Isolation(label)
    except ValueError:
        raise Problem(
            422,
            "image-unusable",
            "The image cannot be run",
            f"its label {LABEL_ISOLATION}={label!r} is neither shared nor fresh",
        ) from None
