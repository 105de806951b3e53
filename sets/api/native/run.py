"""POST /v1/run/{image}: run a task, synchronously with its output as the answer, or asynchronously with a 202."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

import falcon.asgi
from msgspec.structs import replace

from scheduler.callbacks.deliveries import Deliveries
from scheduler.errors import SchedulerError
from scheduler.image import LABEL_CONTENT_TYPE, Image
from scheduler.task import Kind, State
from sets.api.body import SCOPE_KEY, RequestBody
from sets.api.native.callbacks import callback_url_of
from sets.api.native.callers import Callers
from sets.api.native.idempotency import key_of
from sets.api.native.params import parse_run
from sets.api.native.problems import problem_of, problem_of_task
from sets.api.native.view import facts, send_accepted
from sets.api.runs import Runs, SyncRun

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
_CONTENT_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)


class RunResource:
    def __init__(self, runs: Runs, deliveries: Deliveries, callers: Callers, set_name: str) -> None:
        self._runs = runs
        self._deliveries = deliveries
        self._callers = callers
        self._set_name = set_name

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, image: str) -> None:
        account = self._callers.starter_of(req)
        call = parse_run(req.scope["query_string"])
        key = key_of(req)
        kind = Kind.ASYNC if _wants_async(req.get_header("Prefer")) else Kind.SYNC
        body: RequestBody = req.scope[SCOPE_KEY]
        callback_url = callback_url_of(req, kind)
        trace = req.get_header("traceparent") if self._runs.traced else None
        if kind is Kind.ASYNC:
            if callback_url is not None:
                call = replace(call, callback_url=callback_url)
            allowed = partial(self._deliveries.check, account, callback_url)
            task = await self._runs.submit(
                account, image, call, content_length(req), body, key, allowed, trace
            )
            send_accepted(resp, task, self._set_name, self._runs.waiting_for(task))
            return
        accepted = await self._runs.accept(account, image, call, kind, content_length(req), trace)
        run = await self._runs.run(accepted, body)
        resp.content_type = _content_type(accepted.image)
        if run.whole:
            await self._answer(resp, run)
        else:
            resp.set_header("X-Task-Id", run.task_id)
            resp.stream = run.output()

    async def _answer(self, resp: falcon.asgi.Response, run: SyncRun) -> None:
        try:
            task = await run.finish()
        except SchedulerError as error:
            raise problem_of(error, executed=True) from error
        headers = facts(task)
        if task.state is not State.SUCCEEDED:
            raise problem_of_task(task, headers)
        resp.set_headers(headers)
        resp.data = run.head


def _wants_async(prefer: str | None) -> bool:
    return prefer is not None and any(
        item.partition(";")[0].strip().lower() == "respond-async" for item in prefer.split(",")
    )


def content_length(req: falcon.asgi.Request) -> int | None:
    """The body's length; 0 for a request without a body, None where it is chunked."""
    if req.content_length is not None:
        return req.content_length
    return None if req.get_header("Transfer-Encoding") else 0


def _content_type(image: Image) -> str:
    """The image's label, where that is a media type."""
    label = image.labels.get(LABEL_CONTENT_TYPE, "")
    return label if _CONTENT_TYPE.fullmatch(label) else DEFAULT_CONTENT_TYPE
