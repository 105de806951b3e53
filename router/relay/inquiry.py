"""Work for an async run whose Idempotency-Key another set may know: the router asks first, then sends the request on.

Weights may have changed since the key was used, or its home may have been away. The router asks the sets to which the
request could have gone (in the native dialect by `GET /v1/idempotency`). A set that answers 200 has the task, and one
that answers 202 is receiving it: it gets the request, and answers with that task. If no set knows the key, or none
answers in time, the request is new work.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from router.choosing.choice import Choice
from router.choosing.request import Purpose
from router.relay.plane import DataPlane
from router.routing.table import SetEntry
from router.wire.downstream import ClientConnection
from router.wire.fetch import FetchError, fetch
from router.wire.problems import Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Piece
from router.wire.work import Work

ASK_TIMEOUT_S: Final = 10.0
"""A caller with a key would rather wait, in seconds, for a set that is busy than have its work done twice."""
MAX_ANSWER_BYTES: Final = 64 * 1024
_KNOWN: Final = frozenset({200, 202})
log = structlog.get_logger()


class Inquiry:
    """Holds the request's body back while it asks; from then on an `Exchange` does the work."""

    def __init__(
        self,
        plane: DataPlane,
        client: ClientConnection,
        head: RequestHead,
        purpose: Purpose,
        choice: Choice,
        entry: SetEntry,
    ) -> None:
        self._plane = plane
        self._client = client
        self._head = head
        self._purpose = purpose
        self._choice = choice
        self._entry = entry
        self._pieces: list[Piece] = []
        self._task: asyncio.Task[None] | None = None
        self._exchange: Work | None = None

    def start(self, pieces: list[Piece]) -> None:
        self._client.hold_body()
        # The bytes that came with the head lie in a buffer that the next request will use.
        self._pieces = [bytes(piece) for piece in pieces]
        self._task = self._plane.loop.create_task(self._run(), name="inquiry")

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        if self._exchange is not None:
            return self._exchange.send_body(pieces, last=last, shared=shared)
        self._pieces += [bytes(piece) for piece in pieces]
        return False

    def on_client_drained(self) -> None:
        if self._exchange is not None:
            self._exchange.on_client_drained()

    def timed_out(self, now: float) -> bool:
        return self._exchange is not None and self._exchange.timed_out(now)  # The asking itself is bounded.

    def cancel(self, problem: Problem | None = None) -> None:
        if self._exchange is not None:
            self._exchange.cancel(problem)
            return
        if problem is None:
            self._plane.log_own(self._head, self._client, 0, 0, "the client left")
        else:
            self._plane.log_problem(problem, self._head, self._client)
        if self._task is not None:
            self._task.cancel()
        self._plane.traffic.note_cancelled()
        self._client.exchange_ended()

    async def _run(self) -> None:
        asked = self._choice.ask_first
        answers = await asyncio.gather(*map(self._knows, asked))
        choice, entry = self._choice, self._entry
        for candidate, knows in zip(asked, answers, strict=True):
            if knows and candidate.name in self._plane.traffic.pools:
                # As with a task's owner: another set would do the work twice.
                choice, entry = Choice(candidate, choice.home, choice.key), candidate
                break
        exchange = self._plane.keyed_exchange(self._client, self._head, self._purpose, choice, entry)
        self._exchange = exchange
        pieces, self._pieces = self._pieces, []
        exchange.start(pieces)

    async def _knows(self, entry: SetEntry) -> bool:
        ask = self._plane.traffic.dialect.key_inquiry(self._head)
        lines = (b"Host: %b\r\n" % entry.authority.encode(), *ask.lines)
        pool = self._plane.traffic.pools.get(entry.name)
        if pool is None:
            return False
        try:
            answer = await fetch(
                pool.addresses, ask.target, lines, timeout_s=ASK_TIMEOUT_S, max_bytes=MAX_ANSWER_BYTES
            )
        except FetchError as error:
            log.warning("set could not be asked for an idempotency key", set=entry.name, reason=str(error))
            return False
        return answer.head.status in _KNOWN
