"""/v1/tasks: look at tasks, fetch what they left, cancel them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from io import FileIO
from typing import Final

import falcon
import falcon.asgi

from scheduler.errors import BadRequest, StoreError
from scheduler.manager import Manager
from scheduler.store.contract import Body, TaskFilter
from scheduler.task import Kind, State, Task
from sets.api.accounts import Accounts
from sets.api.params import DECIMAL, decode_pairs
from sets.api.problems import Problem
from sets.api.view import send_json, task_json

WAIT_MAX_S: Final = 60.0
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1000
READ_BYTES: Final = 1 << 18
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII | re.IGNORECASE)


class TasksResource:
    """The account's tasks, newest first."""

    def __init__(self, manager: Manager, accounts: Accounts, set_name: str) -> None:
        self._manager = manager
        self._accounts = accounts
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = self._accounts.of(req)
        query = _single(req, ("state", "image", "name", "before", "limit"))
        limit = _whole(query, "limit", PAGE_DEFAULT, PAGE_MAX)
        state = query.get("state")
        if state is not None and state not in list(State):
            raise BadRequest(f"state: {state[:40]!r} is none of {', '.join(State)}", field="state")
        tasks = await self._manager.page(
            TaskFilter(
                account,
                None if state is None else State(state),
                query.get("image"),
                query.get("name"),
                query.get("before"),
                limit + 1,
            )
        )
        page = tasks[:limit]
        answer = {
            "tasks": [task_json(task, self._set_name) for task in page],
            "next": page[-1].id if len(tasks) > limit else None,
            "sets": [self._set_name],
            "partial": False,
        }
        send_json(resp, answer)


class TaskResource:
    """One task; with `wait`, once it has ended or that many seconds passed."""

    def __init__(self, manager: Manager, accounts: Accounts, set_name: str) -> None:
        self._manager = manager
        self._accounts = accounts
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        account = self._accounts.of(req)
        wait = _single(req, ("wait",)).get("wait", "0")
        if not DECIMAL.fullmatch(wait) or float(wait) > WAIT_MAX_S:
            raise BadRequest(f"wait: a number of seconds, {WAIT_MAX_S:g} at most", field="wait")
        task = await self._manager.wait(account, task_id, float(wait))
        send_json(resp, task_json(task, self._set_name))

    async def on_post_cancel(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str
    ) -> None:
        account = self._accounts.of(req)
        task = await self._manager.cancel(account, task_id)
        send_json(resp, task_json(task, self._set_name))


class ResultResource:
    """What a task left: its stdout, its stderr, its files; with `Range`."""

    def __init__(self, manager: Manager, accounts: Accounts) -> None:
        self._manager = manager
        self._accounts = accounts

    async def on_get_stdout(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        task = await self._ended(req, task_id)
        if task.spec.kind is Kind.SYNC:
            raise _gone("a sync task's stdout is its answer; it is not kept")
        results = await self._manager.results(task_id)
        await self._send(req, resp, results.stdout if results else None, task.stdout_bytes)

    async def on_get_stderr(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        task = await self._ended(req, task_id)
        if task.spec.kind is Kind.SYNC:
            kept = task.stderr_head + task.stderr_tail
            if task.stderr_bytes > len(kept):
                raise _gone(
                    f"of a sync task's stderr ({task.stderr_bytes} bytes) only its beginning and its end are kept: "
                    "stderr_head and stderr_tail of the task"
                )
            await self._send(req, resp, Body(len(kept), kept), task.stderr_bytes)
            return
        results = await self._manager.results(task_id)
        await self._send(req, resp, results.stderr if results else None, task.stderr_bytes)

    async def on_get_file(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str, path: str
    ) -> None:
        task = await self._ended(req, task_id)
        results = await self._manager.results(task_id)
        wanted = "/" + path.lstrip("/")
        if results is None or wanted not in results.files:
            kept = ", ".join(results.files) if results is not None and results.files else "none"
            detail = f"task {task.id} left no file {wanted[:200]}; its files: {kept[:1000]}"
            if task.detail:
                detail += f"; of the task: {task.detail}"
            raise Problem(404, "file-unknown", "There is no such file", detail, executed=True)
        await self._send(req, resp, results.files[wanted])

    async def _ended(self, req: falcon.asgi.Request, task_id: str) -> Task:
        task = await self._manager.get(self._accounts.of(req), task_id)
        if not task.ended:
            detail = f"task {task.id} is {task.state}; wait for its end with GET /v1/tasks/{task.id}?wait=30"
            raise Problem(409, "task-not-finished", "The task has not finished", detail, executed=True)
        return task

    async def _send(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, body: Body | None, written_bytes: int = 0
    ) -> None:
        """Answer with what is kept. `written_bytes`: how many the task wrote, where not all of them may be kept."""
        if body is None:
            raise _gone("its results are no longer kept")
        if written_bytes > body.size_bytes:
            resp.set_header("X-Missing-Bytes", str(written_bytes - body.size_bytes))
        asked = byte_range(req.get_header("Range"), body.size_bytes)
        first, last = asked or (0, body.size_bytes - 1)
        resp.content_type = "application/octet-stream"
        resp.set_header("Accept-Ranges", "bytes")
        if asked is not None:
            resp.status = 206
            resp.set_header("Content-Range", f"bytes {first}-{last}/{body.size_bytes}")
        if body.inline is not None:
            resp.data = body.inline[first : last + 1]
            return
        assert body.blob is not None
        try:
            # An object closes itself even where nobody begins to read it.
            blob = FileIO(self._manager.open_blob(body.blob))
        except StoreError as error:
            raise _gone("its results are no longer kept") from error
        resp.content_length = last + 1 - first
        resp.stream = _read(blob, first, last + 1 - first)


async def _read(blob: FileIO, first: int, length: int) -> AsyncIterator[bytes]:
    with blob:
        while length:
            chunk = await asyncio.to_thread(os.pread, blob.fileno(), min(READ_BYTES, length), first)
            if not chunk:
                raise StoreError("a stored body is shorter than its record")
            first += len(chunk)
            length -= len(chunk)
            yield chunk


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


def _gone(detail: str) -> Problem:
    return Problem(410, "result-gone", "The result is not kept", detail, executed=True)


def _single(req: falcon.asgi.Request, names: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in decode_pairs(req.scope["query_string"]):
        if name not in names:
            raise BadRequest(
                f"{name[:80]}: there is no such parameter; there are {', '.join(names)}", field=name
            )
        if name in found:
            raise BadRequest(f"{name}: stands twice", field=name)
        found[name] = value
    return found


def _whole(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise BadRequest(f"{name}: a whole number from 1 to {most}", field=name)
    return int(text)
