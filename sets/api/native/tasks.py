"""/v1/tasks: look at tasks, fetch their results, cancel them."""

from __future__ import annotations

import re
from typing import Final

import falcon
import falcon.asgi

from scheduler.errors import BadRequest
from scheduler.following import Which
from scheduler.manager import Manager
from scheduler.store.contract import TaskFilter
from scheduler.task import State
from sets.api.following import read_follow
from sets.api.native.callers import Callers
from sets.api.native.problems import Problem
from sets.api.native.querying import one_of_each, whole_number
from sets.api.native.view import send_accepted, send_json, task_json
from sets.api.results import KeptBody, TaskResults
from sets.api.values import DECIMAL

WAIT_MAX_S: Final = 60.0
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1000
DEAD: Final = "dead"
"""The value of `state` that lists dead letters, whose own state is `failed`."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


class TasksResource:
    """The account's tasks, newest first."""

    def __init__(self, manager: Manager, callers: Callers, set_name: str) -> None:
        self._manager = manager
        self._callers = callers
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = self._callers.account_of(req)
        query = one_of_each(req, ("state", "image", "name", "before", "limit"))
        limit = whole_number(query, "limit", PAGE_DEFAULT, PAGE_MAX)
        state = query.get("state")
        if state is not None and state not in (DEAD, *State):
            raise BadRequest(f"state: {state[:40]!r} is none of {', '.join((*State, DEAD))}", field="state")
        tasks = await self._manager.page(
            TaskFilter(
                account,
                None if state in (None, DEAD) else State(state),
                query.get("image"),
                query.get("name"),
                query.get("before"),
                limit + 1,
                dead=state == DEAD,
            )
        )
        page = tasks[:limit]
        answer = {
            "tasks": [task_json(task, self._set_name, self._manager.waiting_for(task)) for task in page],
            "next": page[-1].id if len(tasks) > limit else None,
            "sets": [self._set_name],
            "partial": False,
        }
        send_json(resp, answer)


class TaskResource:
    """One task; with `wait`, once it has ended or that many seconds passed."""

    def __init__(self, manager: Manager, callers: Callers, set_name: str) -> None:
        self._manager = manager
        self._callers = callers
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        account = self._callers.account_of(req)
        wait = one_of_each(req, ("wait",)).get("wait", "0")
        if not DECIMAL.fullmatch(wait) or float(wait) > WAIT_MAX_S:
            raise BadRequest(f"wait: a number of seconds, {WAIT_MAX_S:g} at most", field="wait")
        task = await self._manager.wait(account, task_id, float(wait))
        send_json(resp, task_json(task, self._set_name, self._manager.waiting_for(task)))

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        account = self._callers.account_of(req)
        task = await self._manager.cancel(account, task_id)
        send_json(resp, task_json(task, self._set_name, self._manager.waiting_for(task)))

    async def on_post_replay(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        account = self._callers.starter_of(req)
        task = await self._manager.replay(account, task_id)
        send_accepted(resp, task, self._set_name, self._manager.waiting_for(task))


class ResultResource:
    """The results of a task: its stdout, its stderr, its files; supports `Range`."""

    def __init__(self, results: TaskResults, callers: Callers) -> None:
        self._results = results
        self._callers = callers

    async def on_get_stdout(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        await self._output(req, resp, task_id, Which.STDOUT)

    async def on_get_stderr(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        await self._output(req, resp, task_id, Which.STDERR)

    async def on_get_file(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str, path: str
    ) -> None:
        account = self._callers.account_of(req)
        one_of_each(req, ())
        self._send(req, resp, await self._results.file(account, task_id, "/" + path.lstrip("/")))

    async def _output(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str, which: Which
    ) -> None:
        account = self._callers.account_of(req)
        follow = read_follow(one_of_each(req, ("follow",)).get("follow"))
        if follow is not None:
            _check_follow(req)
            answer = await self._results.follow(account, task_id, which, so_far=not follow)
            if answer is not None:
                resp.content_type = "application/octet-stream"
                resp.set_headers({"Cache-Control": "no-store", **answer.headers()})
                resp.stream = answer
                return
        of = self._results.stdout if which is Which.STDOUT else self._results.stderr
        kept = await of(account, task_id)
        if follow is not None:
            resp.set_headers({"X-Attempt": str(kept.attempt), "X-First-Byte": "0"})
        self._send(req, resp, kept)

    def _send(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, kept: KeptBody) -> None:
        size_bytes = kept.body.size_bytes
        if kept.missing_bytes:
            resp.set_header("X-Missing-Bytes", str(kept.missing_bytes))
        asked = byte_range(req.get_header("Range"), size_bytes)
        first, last = asked or (0, size_bytes - 1)
        resp.content_type = "application/octet-stream"
        resp.set_header("Accept-Ranges", "bytes")
        if asked is not None:
            resp.status = 206
            resp.set_header("Content-Range", f"bytes {first}-{last}/{size_bytes}")
        length = last + 1 - first
        found = self._results.read(kept.body, first, length)
        if isinstance(found, bytes):
            resp.data = found
        else:
            resp.content_length = length
            resp.stream = found


def _check_follow(req: falcon.asgi.Request) -> None:
    """Raise `BadRequest` for what cannot be combined with `follow`."""
    if req.method == "HEAD":
        raise BadRequest("follow: a HEAD has no body to follow; send GET", field="follow")
    if req.get_header("Range") is not None:
        raise BadRequest(
            "Range: cannot be combined with follow, whose output has no known length; leave it out",
            field="Range",
        )


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte asked for; None for all, also where RFC 9110 lets a server ignore the header.

    Raises `Problem` 416.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        first = int(match[1])
        last = min(int(match[2]), size_bytes - 1) if match[2] else size_bytes - 1
        if match[2] and int(match[2]) < first:
            return None
    else:
        first, last = max(0, size_bytes - int(match[2])), size_bytes - 1
    if first > last or first >= size_bytes:
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        detail = f"Range: the body ends before it; its length in bytes is {size_bytes}"
        raise Problem(
            416, "range-not-satisfiable", "The range lies outside", detail, executed=True, headers=headers
        )
    return first, last
