"""GET /v1/tasks and /v1/usage: asked of every set at once, merged into one answer.

A task's id is its set's name, a dash, and a part that sorts by time. So a page of all sets is the newest of
their pages, and one id is a cursor for all of them: `before=a-01jd…` asks set b for what is before `b-01jd…`.
Bounded: every set has the same few seconds and bytes, and a page never holds more than its limit.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from .plane import DataPlane
from .table import SetEntry, SetState
from .wire.downstream import ClientConnection
from .wire.fetch import Fetched, FetchError, fetch
from .wire.problems import PROBLEM_TYPE, Lines, Problem
from .wire.request_head import RequestHead
from .wire.stream import Piece

ASK_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
ASK_AT_ONCE = 16
DEFAULT_LIMIT = 50
MAX_LIMIT = 1000
MERGES_AT_ONCE = 64

_log = logging.getLogger("router")
_NOT_PASSED_ON = (b"content-length", b"transfer-encoding", b"range", b"if-", b"accept-encoding")


class _Page(msgspec.Struct):
    tasks: list[msgspec.Raw]
    next: str | None = None


class _Named(msgspec.Struct):
    id: str


class Merge:
    """The work for one list: a task that asks the sets, then one answer."""

    def __init__(self, plane: DataPlane, client: ClientConnection, head: RequestHead) -> None:
        self._plane = plane
        self._client = client
        self._head = head
        self._task: asyncio.Task[None] | None = None

    def start(self, pieces: list[Piece]) -> None:
        self._client.want_body()
        self._task = self._plane.loop.create_task(self._run(), name="merge")

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        return True  # A list's request needs no body: read and dropped.

    def on_client_drained(self) -> None:
        pass

    def timed_out(self, now: float) -> bool:
        return False  # The asking itself is bounded.

    def cancel(self, problem: Problem | None = None) -> None:
        if self._task is not None:
            self._task.cancel()
        if problem is None:
            self._plane.log_own(self._head, self._client, 0, 0, "the client left")
        else:
            self._plane.log_problem(problem, self._head, self._client)
        self._client.exchange_ended()

    async def _run(self) -> None:
        try:
            outcome = await self._ask_all()
        except asyncio.CancelledError:
            return
        except Exception:
            _log.exception("merging %s failed", self._head.path.decode("latin-1"))
            outcome = Problem(
                500, "list-failed", "The lists could not be merged", "an error of the router; see its log"
            )
        client = self._client
        client.exchange_ended()
        if isinstance(outcome, Problem):
            client.respond(outcome)
            return
        client.answer(*outcome)
        self._plane.log_own(self._head, client, outcome[0], len(outcome[2]))

    async def _ask_all(self) -> Problem | tuple[int, str, bytes, Lines]:
        table = self._plane.table
        asked = [entry for entry in table.sets.values() if entry.state is not SetState.MAINT]
        query = parse_qsl(self._head.query.decode("latin-1"), keep_blank_values=True, max_num_fields=100)
        limit = _limit(query)
        gate = asyncio.Semaphore(ASK_AT_ONCE)
        answers = await asyncio.gather(*(self._ask(entry, query, limit, gate) for entry in asked))
        good: list[tuple[str, bytes]] = []
        for entry, answer in zip(asked, answers, strict=True):
            if answer is None:
                continue
            status = answer.head.status
            if status == 200:
                good.append((entry.name, answer.body))
            elif 400 <= status < 500:
                # The request itself is wrong, or its account may not: every set would say so.
                return status, PROBLEM_TYPE, answer.body, (("X-Set", entry.name),)
        if not good:
            return Problem(
                503,
                "no-set-answers",
                "No set could be asked",
                "none of the sets answered; their tasks are not lost, try again",
                retry_after_s=1,
            )
        names = [name for name, _ in good]
        partial = len(good) < len(table.sets)
        bodies = [body for _, body in good]
        try:
            if self._head.path == b"/v1/tasks":
                merged = merge_tasks(bodies, names, partial, limit)
            else:
                merged = merge_usage(bodies, names, partial)
        except (msgspec.DecodeError, ValueError) as error:
            return Problem(502, "list-unreadable", "A set's list could not be read", str(error))
        return 200, "application/json", merged, ()

    async def _ask(
        self, entry: SetEntry, query: list[tuple[str, str]], limit: int, gate: asyncio.Semaphore
    ) -> Fetched | None:
        head = self._head
        fields = []
        for name, value in query:
            if name == "before" and head.path == b"/v1/tasks":
                value = cursor_for(entry.name, value)
            if name != "limit" or head.path != b"/v1/tasks":
                fields.append((name, value))
        if head.path == b"/v1/tasks":
            fields.append(("limit", str(limit)))
        target = head.path + (b"?" + urlencode(fields, encoding="latin-1").encode() if fields else b"")
        lines = [line for line in head.lines if not line.lower().startswith(_NOT_PASSED_ON)]
        host = head.host if head.host is not None else entry.authority.encode()
        lines.append(
            b"Host: %b\r\nX-Request-Id: %b\r\ntraceparent: %b\r\n" % (host, head.request_id, head.traceparent)
        )
        async with gate:
            pool = self._plane.pools.get(entry.name)
            if pool is None:
                return None  # It left the configuration meanwhile.
            try:
                answer = await fetch(
                    pool.addresses,
                    target,
                    lines,
                    timeout_s=ASK_TIMEOUT_S,
                    max_bytes=MAX_ANSWER_BYTES,
                )
            except FetchError as error:
                _log.warning("set %s could not be asked for its list: %s", entry.name, error)
                return None
        if answer.head.status >= 500:
            _log.warning("set %s answered its list with %d", entry.name, answer.head.status)
            return None
        return answer


def merge(plane: DataPlane, client: ClientConnection, head: RequestHead) -> Merge:
    """The data plane's factory for merged lists."""
    return Merge(plane, client, head)


def _limit(query: list[tuple[str, str]]) -> int:
    for name, value in query:
        if name == "limit" and re.fullmatch(r"[0-9]{1,9}", value):
            return min(MAX_LIMIT, int(value))
    return DEFAULT_LIMIT


def cursor_for(set_name: str, before: str) -> str:
    """One set's cursor from the merged list's: the same moment, under that set's name."""
    name, dash, rest = before.partition("-")
    return f"{set_name}-{rest}" if dash and name else before


def merge_tasks(bodies: Sequence[bytes], names: Sequence[str], partial: bool, limit: int) -> bytes:
    """The newest `limit` tasks of all pages, as they came; `next` is the last one's id where there may be
    more."""
    entries: list[tuple[str, str, msgspec.Raw]] = []
    more = False
    for body in bodies:
        page = msgspec.json.decode(body, type=_Page)
        more = more or page.next is not None
        for raw in page.tasks:
            task_id = msgspec.json.decode(raw, type=_Named).id
            entries.append((task_id.partition("-")[2], task_id, raw))
    entries.sort(key=lambda entry: entry[:2], reverse=True)
    shown = entries[:limit]
    cursor = shown[-1][1] if shown and (more or len(entries) > len(shown)) else None
    return msgspec.json.encode(
        {"tasks": [raw for _, _, raw in shown], "next": cursor, "sets": list(names), "partial": partial}
    )


def merge_usage(bodies: Sequence[bytes], names: Sequence[str], partial: bool) -> bytes:
    """Rows that agree in all their texts (day, image, …) become one, their numbers added; so do numbers
    beside the rows."""
    merged: dict[str, Any] = {}
    for body in bodies:
        document = json.loads(body, parse_float=Decimal)
        if not isinstance(document, dict):
            raise ValueError("a set's usage is no JSON object")
        for key, value in document.items():
            if isinstance(value, list):
                merged[key] = _add_rows(merged.get(key, []), value)
            elif _is_number(value) and _is_number(merged.get(key, 0)):
                merged[key] = merged.get(key, 0) + value
            else:
                merged.setdefault(key, value)
    merged["sets"] = list(names)
    merged["partial"] = partial
    return json.dumps(merged, default=_plain).encode()


def _add_rows(rows: list[Any], more: list[Any]) -> list[Any]:
    places = {_group(row): index for index, row in enumerate(rows) if isinstance(row, dict)}
    for row in more:
        if not isinstance(row, dict):
            raise ValueError("a row of a set's usage is no JSON object")
        place = places.get(_group(row))
        if place is None:
            places[_group(row)] = len(rows)
            rows.append(dict(row))
            continue
        have = rows[place]
        for key, value in row.items():
            if key == "amount" and isinstance(value, str):
                have[key] = str(_decimal(have.get(key, "0")) + _decimal(value))
            elif _is_number(value):
                have[key] = have.get(key, 0) + value
    return rows


def _group(row: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        sorted((key, str(value)) for key, value in row.items() if key != "amount" and not _is_number(value))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, Decimal)) and not isinstance(value, bool)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"a set's amount is no number: {text!r}") from None


def _plain(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)
