"""One request on its way: which set, how often, and its answer back to the client.

    client ── ClientConnection ── Exchange ── SetConnection ── set

The exchange knows what was sent and what came; whether to try again is decided by retry.py, where by
choice.py.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from router.retry import NOTHING_RAN, Failure, backoff_s, may_repeat, within_budget

from .framing import Body, ChunkedBody, FramingError, LengthBody, UntilCloseBody
from .problems import Problem
from .stream import Piece

if TYPE_CHECKING:
    from router.choice import Choice
    from router.plane import DataPlane
    from router.request import Purpose
    from router.table import SetEntry

    from .answer_head import AnswerHead
    from .downstream import ClientConnection
    from .request_head import RequestHead
    from .upstream import SetConnection

_FAILURES = frozenset((502, 503, 504))
HELD_ANSWER_BYTES = 16 * 1024
"""A 503 problem up to this size is read whole, to see whether it says `executed: false`."""
JOIN_BELOW_BYTES = 64 * 1024

_rng = random.Random()


class Exchange:
    """Created for every request that goes to a set; ends with `ClientConnection.exchange_done`."""

    # Defaults in the class, not slots: most exchanges leave most of them as they are.
    _connection: SetConnection | None = None
    _answer: AnswerHead | None = None
    """The answer's head once it is being relayed."""
    _body: Body | None = None
    _held: tuple[AnswerHead, bytearray] | None = None
    _rechunk = False
    _replay: Sequence[Piece] | None = ()
    """What was sent of the body, as long as it is short enough to send it again; else None."""
    _replay_bytes = 0
    _attempts = 0
    _tried: frozenset[str] = frozenset()
    _stale_used = False
    _may_have_run = False
    """An attempt failed after which an algorithm may have run."""
    _retrying = False
    _continued = False
    _timer: asyncio.TimerHandle | None = None
    ended = False

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
        self._purpose = purpose
        self._choice = choice
        self._entry = entry
        self._table = plane.table
        self.head = head
        self.started_at = client.at

    # The request's way up.

    def start(self, pieces: list[Piece]) -> None:
        """Send the head and what came of the body with it."""
        if pieces:
            self._remember(pieces)
            if self._replay is None:
                # More than may be replayed came at once with the head: it must still be sent once.
                self._replay = pieces
                self._replay_bytes = -1
        self._attempt()

    def _remember(self, pieces: list[Piece]) -> None:
        if self._replay is None or not pieces:
            return
        self._replay_bytes += len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if self._replay_bytes > self._plane.table.retry.replay_body_max_bytes:
            self._replay = None
        else:
            self._replay = [*self._replay, *(bytes(piece) for piece in pieces)]

    def _attempt(self, *, fresh: bool = False) -> None:
        self._attempts += 1
        pool = self._plane.pools[self._entry.name]
        pool.inflight += 1
        connection = None if fresh else pool.take(self._purpose.kind)
        if connection is None:
            self._client.hold_body()
            self._connection = pool.connect(self._connected, self._connect_failed)
        else:
            self._connection = connection
            self._connected(connection)

    def _connected(self, connection: SetConnection) -> None:
        connection.begin(self)
        client = self._client
        head = self.head
        host = b"" if head.host is not None else self._entry.authority.encode()
        data = head.forward(client.address, host)
        last = client.body_done
        if not self._replay:
            connection.post(data, last=last)
            taken = True
        elif self._replay_bytes < 0:
            pieces = [data, *self._replay]
            self._replay = None
            self._replay_bytes = 0
            taken = connection.write(pieces, last=last)
        else:
            connection.post(b"".join((data, *self._replay)), last=last)
            taken = True
        if taken and not last:
            client.want_body()

    def _connect_failed(self, error: OSError) -> None:
        self.on_attempt_failed(Failure.CONNECT, str(error))

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        """Pass on a part of the body; False: wait for `ClientConnection.want_body`."""
        connection = self._connection
        self._remember(pieces)
        if connection is None or connection.closed or connection.stream.broken:
            return True
        if not pieces:
            if last and connection.stream.drained:
                connection.mark_sent()
            return True
        return connection.write(pieces, last=last, shared=shared)

    def on_upstream_drained(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._client.body_done:
            if not connection.stream.broken:
                connection.mark_sent()
        else:
            self._client.want_body()

    # The answer's way down.

    def on_informational(self, head: AnswerHead) -> None:
        if self.head.minor == 0 or self._continued or self._answer is not None:
            return
        if head.status == 100:
            if not self.head.expects_continue:
                return
            self._continued = True
        self._client.write([b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, b"".join(head.lines))])

    def on_answer(self, head: AnswerHead) -> None:
        plane = self._plane
        name = self._entry.name
        status = head.status
        bodiless = status == 204 or status == 304 or self.head.method == b"HEAD"
        if status in _FAILURES and head.get(b"x-task-id") is None:
            if (
                head.status == 503
                and head.problem
                and not bodiless
                and not head.chunked
                and head.content_length is not None
                and head.content_length <= HELD_ANSWER_BYTES
            ):
                self._held = (head, bytearray())
                self._body = LengthBody(head.content_length)
                return
            plane.set_failed(name, f"answered {head.status} without a task's id")
        elif plane.board.uneasy:
            plane.board.succeeded(name)
        self._answer = head
        if bodiless:
            self._body = None
        elif head.content_length is not None:
            self._body = LengthBody(head.content_length)
        elif head.chunked:
            self._body = ChunkedBody(framed=self.head.minor == 1, keep_trailers=self.head.takes_trailers)
        else:
            self._body = UntilCloseBody()
            self._rechunk = self.head.minor == 1

    def _head_bytes(self, head: AnswerHead) -> bytes:
        client = self._client
        body = self._body
        modern = self.head.minor == 1
        chunked = False
        if body is None:
            # As it would be with a body, where there is none by the method's or the status's nature.
            chunked = head.chunked and modern and head.status != 204
        elif head.content_length is None:
            chunked = modern
            if not modern:
                client.keep = False
        if not client.body_done and head.status >= 400:
            client.keep = False
        if not client.keep or self._plane.draining:
            connection = b"Connection: close\r\n"
        elif modern:
            connection = b""
        else:
            connection = b"Connection: keep-alive\r\n"
        length = head.content_length if head.status != 204 else None
        return head.relay(
            chunked=chunked, length=length, connection=connection, request_id=self.head.request_id
        )

    def on_answer_bytes(
        self, buf: bytes | bytearray, view: memoryview, start: int, end: int, shared: bool
    ) -> None:
        connection = self._connection
        if connection is None:
            return
        body = self._body
        pos = start
        pieces: list[Piece] = []
        if body is not None:
            try:
                pieces, pos = body.feed(buf, view, start, end)
            except FramingError as error:
                self.on_attempt_failed(Failure.BAD_ANSWER, str(error))
                return
        if self._held is not None:
            self._hold(pieces, pos < end)
            return
        answer = self._answer
        done = body is None or body.done
        if self._rechunk and pieces:
            pieces = [b"%x\r\n" % (end - start), *pieces, b"\r\n"]
        client = self._client
        drained = True
        if answer is not None and not client.answering:
            client.answering = True
            client.status = answer.status
            head_bytes = self._head_bytes(answer)
            if not pieces:
                client.post(head_bytes)
            elif pos - start < JOIN_BELOW_BYTES:
                client.post(b"".join((head_bytes, *pieces)))
            else:
                drained = client.write([head_bytes, *pieces], shared=shared)
        elif pieces:
            drained = client.write(pieces, shared=shared)
        if self.ended:
            return
        if done:
            self._finish(clean=pos == end)
        elif not drained:
            connection.stream.pause_reading()

    def on_client_drained(self) -> None:
        """The client took all: read on."""
        if self._connection is not None and not self._connection.closed:
            self._connection.stream.resume_reading()

    def on_answer_end(self) -> None:
        """The set closed the connection within, or at the end of, the answer's body."""
        body = self._body
        self._drop_connection()
        if self._held is not None:
            self.on_attempt_failed(Failure.BAD_ANSWER, "it ended within its answer")
        elif body is None or body.end_of_connection():
            if self._rechunk:
                self._client.write([b"0\r\n\r\n"])
            self._done()
        else:
            self._truncate("the set ended its answer too early")

    def _hold(self, pieces: list[Piece], left_over: bool) -> None:
        """Collect a short 503 problem; then decide."""
        assert self._held is not None
        assert isinstance(self._body, LengthBody)
        head, held = self._held
        for piece in pieces:
            held += piece
        if not self._body.done:
            return
        self._release(clean=not left_over)
        name = self._entry.name
        if says_not_executed(held):
            self._plane.set_succeeded(name)
            self._plane.stats[name].back_pressure += 1
            if self._repeat(Failure.BACK_PRESSURE):
                self._held = None
                return
            if self._may_have_run:
                # Its `executed: false` speaks of this attempt alone.
                self._held = None
                self._client.respond(
                    self._problem(Failure.RESET, "it is full, and an earlier attempt was lost")
                )
                self._end()
                return
        else:
            self._plane.set_failed(name, "answered 503 without a task's id")
        self._held = None
        self._answer = head
        client = self._client
        client.answering = True
        client.status = head.status
        client.write([self._head_bytes(head) + bytes(held)])
        self._done()

    # Ends.

    def on_attempt_failed(self, failure: Failure, detail: str) -> None:
        """The attempt ended without a whole answer."""
        connection = self._connection
        reused = connection is not None and connection.reused
        name = self._entry.name
        self._drop_connection()
        if self._client.answering:
            self._truncate(detail)
            return
        self._held = None
        self._body = None
        self._answer = None
        self._plane.stats[name].note_failure(failure)
        if failure not in NOTHING_RAN:
            self._may_have_run = True
        if failure in (Failure.CONNECT, Failure.RESET) or (failure is Failure.SEND and not reused):
            self._plane.set_failed(name, detail, refused=failure is Failure.CONNECT)
        if not self._repeat(failure, reused=reused):
            self._client.respond(self._problem(failure, detail))
            self._end()

    def _repeat(self, failure: Failure, *, reused: bool = False) -> bool:
        """Try once more where that is allowed and useful; False: it is not."""
        plane = self._plane
        policy = plane.table.retry
        if (
            self._replay is None
            or self._replay_bytes < 0
            or not may_repeat(self._purpose.kind, failure, policy)
        ):
            return False
        if (
            reused
            and not self._stale_used
            and self._entry.name in plane.pools
            and failure in (Failure.STALE, Failure.SEND)
        ):
            # The connection was old, the set is not at fault: the same set, a new connection, at once.
            self._stale_used = True
            self._attempts -= 1
            self._attempt(fresh=True)
            return True
        if self._attempts >= policy.attempts:
            return False
        now = plane.loop.time()
        if failure is Failure.BACK_PRESSURE and now - self.started_at > plane.patience_s(
            self._purpose, self.head.query
        ):
            return False
        if not within_budget(policy, active_requests=plane.active, active_retries=plane.active_retries):
            plane.retries_over_budget += 1
            return False
        self._tried |= {self._entry.name}
        entry = plane.chooser.another(self._choice, self._tried, now)
        if entry is None and self._table is not plane.table:
            entry = self._chosen_anew()
        if entry is None:
            if failure is not Failure.CONNECT:
                return False
            entry = self._entry
        elif entry.name == self._entry.name and failure is Failure.BACK_PRESSURE:
            return False
        if entry.name not in plane.pools:
            return False
        self._entry = entry
        self._retrying = True
        plane.active_retries += 1
        plane.stats[entry.name].retries += 1
        self._client.hold_body()
        self._timer = plane.loop.call_later(backoff_s(self._attempts, _rng), self._retry)
        return True

    def _retry(self) -> None:
        self._timer = None
        if self._entry.name not in self._plane.pools:
            # The set left the configuration meanwhile: by the new table, then.
            entry = self._chosen_anew()
            if entry is None:
                self._client.respond(self._problem(Failure.CONNECT, "it left the configuration"))
                self._end()
                return
            self._entry = entry
        self._attempt()

    def _chosen_anew(self) -> SetEntry | None:
        """A set by the table that is in force now, unless it was tried."""
        self._choice = self._plane.choose(self._client, self.head, self._purpose)
        entry = self._choice.entry
        return None if entry is None or entry.name in self._tried else entry

    def _problem(self, failure: Failure, detail: str) -> Problem:
        name = self._entry.name
        executed = self._may_have_run and not self._harmless()
        if failure is Failure.TIMEOUT:
            return Problem(
                504,
                "answer-timeout",
                "The set did not answer in time",
                f"set {name!r}: {detail}",
                executed=executed,
            )
        if not self._may_have_run:
            return Problem(
                503,
                "set-unavailable",
                "The set cannot be reached",
                f"set {name!r}: {detail}; nothing ran, send the request again",
                retry_after_s=1,
            )
        advice = "send the request again" if not executed else "it may have run: look before sending it again"
        return Problem(
            502,
            "set-lost",
            "The set's answer was lost",
            f"set {name!r}: {detail}; {advice}",
            executed=executed,
        )

    def _harmless(self) -> bool:
        """Reading runs no algorithm."""
        return self.head.method in (b"GET", b"HEAD", b"OPTIONS")

    def _truncate(self, detail: str) -> None:
        self._plane.stats[self._entry.name].truncated += 1
        self._client.truncate()
        self._end()

    def cancel(self) -> None:
        """The client is gone, or its request is broken: let the set know at once by closing its
        connection."""
        if not self.ended:
            self._plane.cancelled += 1
            self._drop_connection()
            self._end()

    def timed_out(self, now: float) -> bool:
        """Called every sweep; True when a time-out ended the exchange."""
        limits = self._plane.limits
        connection = self._connection
        if now - self.started_at > limits.total_s:
            self.on_attempt_failed(Failure.TIMEOUT, "the request took longer than allowed in all")
            return True
        if connection is None or connection.closed:
            return False
        stream = connection.stream
        if connection.has_answer:
            if self._client.drained and now - connection.at > limits.answer_idle_s:
                self.on_attempt_failed(Failure.TIMEOUT, "the answer stalled")
                return True
        elif connection.whole_sent:
            allowed = limits.task_first_byte_s if self._purpose.long_wait else limits.first_byte_s
            if now - connection.at > allowed:
                self.on_attempt_failed(Failure.TIMEOUT, f"no answer within {allowed:g} s")
                return True
        elif stream.stalled_since and now - stream.stalled_since > limits.task_first_byte_s:
            self.on_attempt_failed(Failure.TIMEOUT, "the set does not read the request's body")
            return True
        return False

    def _finish(self, *, clean: bool) -> None:
        self._release(clean=clean)
        self._done()

    def _release(self, *, clean: bool) -> None:
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.pool.inflight -= 1
            answer = self._answer if self._held is None else self._held[0]
            connection.release(reusable=clean and answer is not None and answer.keep_alive)

    def _drop_connection(self) -> None:
        connection = self._connection
        self._connection = None
        if connection is not None:
            connection.pool.inflight -= 1
            connection.close()

    def _done(self) -> None:
        plane = self._plane
        client = self._client
        self._end()
        plane.stats[self._entry.name].note_answer(client.status, plane.loop.time() - self.started_at)
        client.exchange_done()

    def _end(self) -> None:
        self.ended = True
        if self._retrying:
            self._retrying = False
            self._plane.active_retries -= 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._client.exchange_ended()


def says_not_executed(body: bytes | bytearray) -> bool:
    """Whether a problem's JSON says `executed: false`."""
    try:
        problem = json.loads(body)
    except ValueError:
        return False
    return isinstance(problem, dict) and problem.get("executed") is False
