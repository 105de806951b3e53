"""Lists of all sets, such as the native `GET /v1/tasks`: asked of every set at once, merged into one answer.

A set that is down, silent, or says what cannot be read is left out, and named with the reason: its list is `partial`,
and nobody waits for it for long. Bounded: in number, in time, and in the bytes that one list, and all of them, hold
until their clients have them.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from router.dialects.contract import BadQuery, Merging
from router.dialects.merging import Unreadable, in_words
from router.relay.plane import DataPlane
from router.routing.table import SetEntry, SetState
from router.wire.downstream import ClientConnection
from router.wire.fetch import Fetched, FetchError, fetch
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Piece

MERGES_AT_ONCE: Final = 64
LIST_BYTES: Final = 16 * 1024 * 1024
"""Maximum size, in bytes, of all sets' answers to one question."""
HELD_BYTES: Final = 32 * 1024 * 1024
"""Maximum size, in bytes, of the answers to all questions of a worker that are not finished yet."""
MERGED_INLINE_BYTES: Final = 32 * 1024
"""Lists with more bytes than this are merged beside the event loop: they would hold up others for milliseconds."""
ASK_TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 2.0
"""Shortest wait for the other sets, in seconds, once one has answered; if that one took longer, the others get as
long."""
ASK_AT_ONCE: Final = 16

log = structlog.get_logger()
_NOT_PASSED_ON: Final = (b"content-length", b"transfer-encoding", b"range", b"if-", b"accept-encoding")
_OF_REFUSALS: Final = ("Retry-After", "WWW-Authenticate")
_BUSY: Final = Problem(
    503,
    "lists-busy",
    "Too many lists are asked for at once",
    "the router holds as much of other lists as it may; try again soon, or with a smaller `limit`",
    retry_after_s=1,
)


class Lists:
    """The data plane's factory for merged lists, and what they share."""

    def __init__(
        self,
        *,
        at_once: int = MERGES_AT_ONCE,
        list_bytes: int = LIST_BYTES,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.at_once = at_once
        self.list_bytes = list_bytes
        self.held_bytes = held_bytes
        self.held = 0
        """Bytes that all lists hold together, of answers of sets and of merged ones."""
        self.running: set[Merge] = set()
        self.merging = asyncio.Lock()
        """Held while a list is merged beside the loop: one at a time."""

    def __call__(self, plane: DataPlane, client: ClientConnection, head: RequestHead) -> Merge | Problem:
        if len(self.running) >= self.at_once:
            return _BUSY
        return Merge(self, plane, client, head)

    def keep(self, count: int) -> None:
        """Count bytes that a list holds from now on; below 0: holds no longer."""
        self.held += count


class _NoRoom(Exception):
    """All lists together hold as many bytes as they may."""


class Merge:
    """The work for one list: a task that asks the sets and merges, then one answer."""

    def __init__(self, lists: Lists, plane: DataPlane, client: ClientConnection, head: RequestHead) -> None:
        self._lists = lists
        self._plane = plane
        self._client = client
        self._head = head
        self._task: asyncio.Task[None] | None = None
        self._held = 0
        self._in_thread = False
        self._cancelled = False
        self._answer: OwnAnswer | None = None
        """The answer that is being sent."""
        lists.running.add(self)

    def start(self, pieces: list[Piece]) -> None:
        self._client.want_body()
        self._task = self._plane.loop.create_task(self._run(), name="merge")
        self._task.add_done_callback(self._ran)

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        return True  # A list's request needs no body; one that comes is read and dropped.

    def on_client_drained(self) -> None:
        if self._answer is not None:
            self._sent(self._answer)

    def timed_out(self, now: float) -> bool:
        return False  # The asking itself is bounded.

    def cancel(self, problem: Problem | None = None) -> None:
        self._cancelled = True
        if self._answer is not None:
            self._end()
        elif self._task is not None and not self._in_thread:  # A thread goes on, and so do the bytes it has.
            self._task.cancel()
        if problem is None:
            self._plane.log_own(self._head, self._client, 0, 0, "the client left")
        else:
            self._plane.log_problem(problem, self._head, self._client)
        self._client.exchange_ended()

    async def _run(self) -> None:
        try:
            outcome = await self._outcome()
        except Exception:
            log.exception("lists could not be merged", path=self._head.path.decode("latin-1"))
            outcome = Problem(
                500, "list-failed", "The lists could not be merged", "an error of the router; see its log"
            )
        if self._cancelled:
            return
        client = self._client
        if isinstance(outcome, Problem):
            client.exchange_ended()
            client.respond(outcome)
            return
        self._keep(len(outcome[2]) - self._held)  # The sets' pages are freed; from now on the answer counts.
        self._answer = outcome
        if client.write(client.own_pieces(*outcome)):
            self._sent(outcome)

    def _sent(self, answer: OwnAnswer) -> None:
        """The kernel took the whole answer."""
        self._end()
        self._client.exchange_ended()
        self._client.exchange_done()
        self._plane.log_own(self._head, self._client, answer[0], len(answer[2]))

    def _ran(self, task: asyncio.Task[None]) -> None:
        if self._answer is None:
            self._end()

    # Accounting of held bytes.

    def _keep(self, count: int) -> None:
        self._held += count
        self._lists.keep(count)

    def _end(self) -> None:
        self._lists.running.discard(self)
        self._keep(-self._held)

    # Asking.

    async def _outcome(self) -> Problem | OwnAnswer:
        try:
            merging = self._plane.traffic.dialect.merging(self._head)
        except BadQuery as error:
            return error.problem
        asked, missing = self._whom()
        answers = await self._ask_all(asked, merging, missing)
        if answers is None:
            return _BUSY
        bodies = {name: answer.body for name, answer in answers.items() if answer.head.status == 200}
        refusals = {name: answer for name, answer in answers.items() if name not in bodies}
        if not bodies:
            return _refused(refusals) if refusals else _nobody(missing)
        for name, answer in refusals.items():
            missing[name] = f"it answered {answer.head.status}"
        del answers, refusals
        try:
            if self._held <= MERGED_INLINE_BYTES:
                merged = merging.merge(bodies, missing)
            else:
                async with self._lists.merging:
                    self._in_thread = True
                    merged = await asyncio.to_thread(merging.merge, bodies, missing)
        except Unreadable as error:
            return Problem(502, "list-unreadable", "The sets' lists could not be read", str(error))
        return OwnAnswer(200, merging.content_type, merged)

    def _whom(self) -> tuple[list[SetEntry], dict[str, str]]:
        """Return the sets to ask, and the reasons for leaving out the others. If all are down, all are asked, because
        one may just have come back."""
        missing: dict[str, str] = {}
        asked: list[SetEntry] = []
        down: list[SetEntry] = []
        for entry in self._plane.traffic.table.sets.values():
            if entry.state is SetState.MAINT:
                missing[entry.name] = "it is in maintenance"
            elif self._plane.traffic.board.of(entry.name).down:
                missing[entry.name] = "its health check fails"
                down.append(entry)
            else:
                asked.append(entry)
        if not asked:
            for entry in down:
                del missing[entry.name]
        return asked or down, missing

    async def _ask_all(
        self, asked: list[SetEntry], merging: Merging, missing: dict[str, str]
    ) -> dict[str, Fetched] | None:
        """Return the answers in the sets' order. Sets without one are put into `missing`. None: there is no room for
        the answers."""
        if not asked:
            return {}
        loop = self._plane.loop
        gate = asyncio.Semaphore(ASK_AT_ONCE)
        names = {loop.create_task(self._ask(entry, merging, gate)): entry.name for entry in asked}
        waiting = set(names)
        found: dict[str, Fetched] = {}
        began = loop.time()
        deadline = began + ASK_TIMEOUT_S
        try:
            while waiting:
                timeout_s = max(0.0, deadline - loop.time())
                done, waiting = await asyncio.wait(
                    waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    answer = task.result()
                    if answer is None:
                        return None
                    if isinstance(answer, str):
                        missing[names[task]] = answer
                        continue
                    found[names[task]] = answer
                    now = loop.time()
                    deadline = min(began + ASK_TIMEOUT_S, now + max(PATIENCE_S, now - began))
        finally:
            for task in waiting:
                task.cancel()
        for task in waiting:
            missing[names[task]] = f"it gave no whole answer within {loop.time() - began:.1f} s"
            log.warning("set gave no list in time", set=names[task])
        return {entry.name: found[entry.name] for entry in asked if entry.name in found}

    async def _ask(self, entry: SetEntry, merging: Merging, gate: asyncio.Semaphore) -> Fetched | str | None:
        """Return the set's answer, or why it gave none; None: there is no room for it."""
        head = self._head
        lines = [line for line in head.lines if not line.lower().startswith(_NOT_PASSED_ON)]
        host = head.host if head.host is not None else entry.authority.encode()
        lines.append(
            b"Host: %b\r\nX-Request-Id: %b\r\ntraceparent: %b\r\n" % (host, head.request_id, head.traceparent)
        )
        lists = self._lists
        kept = 0

        def keep(count: int) -> None:
            nonlocal kept
            if self._held + count > lists.list_bytes:
                raise FetchError("the list is too large; ask with a smaller `limit`, or for less time")
            if lists.held + count > lists.held_bytes:
                raise _NoRoom
            self._keep(count)
            kept += count

        async with gate:
            pool = self._plane.traffic.pools.get(entry.name)
            if pool is None:
                return "it left the configuration"
            try:
                answer = await fetch(
                    pool.addresses,
                    merging.target(entry.name),
                    lines,
                    timeout_s=ASK_TIMEOUT_S,
                    max_bytes=lists.list_bytes,
                    keep=keep,
                )
            except (FetchError, _NoRoom) as error:
                self._keep(-kept)
                if isinstance(error, _NoRoom):
                    return None
                log.warning("set could not be asked for its list", set=entry.name, reason=str(error))
                return "it cannot be reached" if error.refused or error.own else str(error)
        status = answer.head.status
        if status == 200 or 400 <= status < 500:
            return answer
        self._keep(-kept)
        log.warning("set refused its list", set=entry.name, status=status)
        return f"it answered {status}"


def _refused(refusals: dict[str, Fetched]) -> OwnAnswer:
    """Answer with what one of the sets said when none gave a list. An answer about too many requests, or an unknown
    path, says less than one about a mistake in the request, so it is the last choice."""
    name, answer = min(
        refusals.items(), key=lambda item: (item[1].head.status in (404, 429), item[1].head.status)
    )
    lines: list[tuple[str, str]] = [("X-Set", name)]
    for field in _OF_REFUSALS:
        value = answer.head.get(field.lower().encode())
        if value is not None:
            lines.append((field, value.decode("latin-1")))
    content_type = (answer.head.get(b"content-type") or b"application/octet-stream").decode("latin-1")
    return OwnAnswer(answer.head.status, content_type, answer.body, tuple(lines))


def _nobody(missing: dict[str, str]) -> Problem:
    return Problem(
        503,
        "no-set-answers",
        "No set could be asked",
        f"none of the sets gave its list; their tasks are not lost, try again ({in_words(missing)})",
        retry_after_s=1,
    )
