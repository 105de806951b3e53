"""POST /v1/run/{image}: run a task, synchronously with its output as the answer, or asynchronously with a 202."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.errors import BadRequest, InputTooLarge, SchedulerError
from scheduler.image import LABEL_CONTENT_TYPE, LABEL_CPU_FEATURES, LABEL_ISOLATION, Image
from scheduler.live import LiveTask
from scheduler.manager import Manager
from scheduler.store.contract import INLINE_BYTES, Blobs, Body, Idempotency
from scheduler.task import Isolation, Kind, Resources, State, TaskSpec
from sets.api.accounts import Accounts
from sets.api.body import SCOPE_KEY, BodyCutOff, BodyTooLarge, RequestBody
from sets.api.params import RunParams, parse_run
from sets.api.problems import Problem, problem_of_task
from sets.api.view import facts, task_json

HEAD_BYTES: Final = 65_536
"""Output up to this size is held back, so that the exit code decides the status."""
SMALL_INPUT_BYTES: Final = 61_440
"""Input up to this size, its length known, goes to the guest in one message."""
IDEMPOTENCY_KEY_CHARS: Final = 255
DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"


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

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, image: str) -> None:
        account = self._accounts.of(req)
        params = parse_run(req.scope["query_string"])
        sync = not _wants_async(req.get_header("Prefer"))
        found = await self._manager.resolve(image)
        spec = self._spec(
            account, image, found, params, sync=sync, callback_url=req.get_header("X-Callback-Url")
        )
        self._manager.check_room(spec)
        length = _content_length(req)
        limit = self._accounts.max_input_bytes(account)
        if length is not None and length > limit:
            raise InputTooLarge(f"the input is {length} bytes; this account may send {limit}")
        body: RequestBody = req.scope[SCOPE_KEY]
        try:
            if not sync:
                await self._submit(req, resp, spec, found, body, limit)
            elif length is not None and length <= SMALL_INPUT_BYTES:
                await self._run_small(resp, spec, found, params, await body.small(length))
            else:
                await self._run_streaming(resp, spec, found, params, body, limit)
        except BodyTooLarge:
            raise InputTooLarge(f"the input is over the {limit} bytes that this account may send") from None

    def _spec(
        self,
        account: str,
        reference: str,
        image: Image,
        params: RunParams,
        *,
        sync: bool,
        callback_url: str | None,
    ) -> TaskSpec:
        if not image.entrypoint and not image.cmd and not params.arg:
            raise BadRequest("arg: the image has neither ENTRYPOINT nor CMD; say what to run", field="arg")
        if params.output and sync:
            raise BadRequest(
                "output: files are kept for async tasks; send `Prefer: respond-async`", field="output"
            )
        if callback_url is not None and (sync or not callback_url.startswith(("http://", "https://"))):
            raise BadRequest(
                "X-Callback-Url: an http or https address, for async tasks", field="X-Callback-Url"
            )
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
            callback_url=callback_url,
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
        resp.content_type = image.labels.get(LABEL_CONTENT_TYPE, DEFAULT_CONTENT_TYPE)
        if not ended:
            resp.set_headers({"X-Task-Id": live.task.id, "X-Set": self._set_name})
            resp.stream = self._rest(live, head, feeding)
            return
        try:
            task = await self._manager.finish(live)
        except asyncio.CancelledError:
            self._manager.abandon(live)
            raise
        finally:
            if feeding is not None:
                feeding.cancel()
        headers = facts(task, self._set_name)
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
    ) -> None:
        key = req.get_header("Idempotency-Key")
        if key is not None and not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS:
            raise BadRequest(
                f"Idempotency-Key: from 1 to {IDEMPOTENCY_KEY_CHARS} characters", field="Idempotency-Key"
            )
        stdin, digest = await self._keep_input(req, body, limit, hashed=key is not None)
        idempotency = None
        if key is not None:
            digest.update(msgspec.msgpack.encode(spec))
            idempotency = Idempotency(key, digest.digest())
        try:
            task = await self._manager.submit(spec, image, stdin, idempotency)
        except (SchedulerError, asyncio.CancelledError):
            if stdin.blob is not None:
                await self._blobs.delete([stdin.blob])
            raise
        resp.status = 202
        resp.set_headers({"Location": f"/v1/tasks/{task.id}", "X-Task-Id": task.id, "X-Set": self._set_name})
        resp.data = msgspec.json.encode(task_json(task, self._set_name))
        resp.content_type = falcon.MEDIA_JSON

    async def _keep_input(
        self, req: falcon.asgi.Request, body: RequestBody, limit: int, *, hashed: bool
    ) -> tuple[Body, Any]:
        digest = hashlib.sha256()
        length = _content_length(req)
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
    """Stream a request's body into the program. A body that ends too early ends the task, never the input."""
    stdin = live.stdin
    assert stdin is not None
    try:
        async for chunk in body.chunks(limit):
            live.task.stdin_bytes += len(chunk)
            await stdin.write(chunk)
    except BrokenPipeError:
        # The program reads no more, or has ended: what else comes is not wanted.
        return
    stdin.close()


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
