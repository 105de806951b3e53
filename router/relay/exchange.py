"""A set's answer on its way back: of one request, after one attempt or several.

client ── ClientConnection ── Exchange ── SetConnection ── set
"""

from __future__ import annotations

from time import monotonic

from router.choosing.retry import RequestKind
from router.relay.attempts import Attempts
from router.wire.answer_framing import body_of, ends_by_close, has_body, relayed_head
from router.wire.answer_head import AnswerHead
from router.wire.failure import Failure
from router.wire.framing import Body, FramingError, LengthBody, UntilCloseBody
from router.wire.problems import refusal_name
from router.wire.stream import Piece

_SAFE = RequestKind.SAFE
_FAILURES = frozenset((502, 503, 504))
HELD_ANSWER_BYTES = 16 * 1024
"""A 503 problem up to this size is read whole, to see whether it says `executed: false`."""
JOIN_BELOW_BYTES = 64 * 1024
DRAINING = "set-draining"
"""The problem of a set that ends."""


class Exchange(Attempts):
    """Created for every request that goes to a set; ends with `ClientConnection.exchange_done`."""

    _answer: AnswerHead | None = None
    """The answer's head once it is being relayed."""
    _body: Body | None = None
    _held: tuple[AnswerHead, bytearray] | None = None
    _rechunk = False
    _continued = False

    def on_informational(self, head: AnswerHead) -> None:
        if self.head.minor == 0:
            return
        if head.status == 100:
            if self._continued or not self.head.expects_continue:
                return
            self._continued = True
        self._client.write([head.relayed(b"")])

    def on_answer(
        self,
        head: AnswerHead,
        buf: bytes | bytearray,
        view: memoryview,
        start: int,
        end: int,
        shared: bool,
    ) -> None:
        traffic = self._traffic
        if self._waiting is not None:
            self._wait_is_over()
        status = head.status
        if traffic.access is not None:
            self._headed_at = monotonic()
        bodied = has_body(head, self.head)
        if status in _FAILURES and _is_failure(head):
            length = head.content_length
            if (
                status == 503
                and bodied
                and head.problem
                and length is not None
                and length <= HELD_ANSWER_BYTES
            ):
                self._held = (head, bytearray())
                self._body = LengthBody(length)
                self.on_answer_bytes(buf, view, start, end, shared)
                return
            traffic.set_failed(self._entry.name, f"answered {status} without a task's id")
        self._answer = head
        if bodied:
            if head.content_length == end - start < JOIN_BELOW_BYTES:
                # The usual small answer: all of it came at once.
                self._bytes_out = end - start
                self._client.post(self._begin_answer(head, bodied=True, body=view[start:end]))
                self._release(clean=True)
                self._done()
                return
            self._body = body_of(head, self.head)
            self._rechunk = self.head.minor == 1 and isinstance(self._body, UntilCloseBody)
        self.on_answer_bytes(buf, view, start, end, shared)

    def _begin_answer(self, answer: AnswerHead, *, bodied: bool, body: Piece = b"") -> bytes:
        """Note that the answer goes out from here on; returns its head, and what of the body is to go with it."""
        client = self._client
        client.answering = True
        client.status = answer.status
        if (
            self._traffic.draining
            or (answer.status >= 400 and not client.body_done)
            or (bodied and ends_by_close(answer, self.head))
        ):
            client.keep = False
        return relayed_head(answer, self.head, bodied=bodied, keep=client.keep, body=body)

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
        self._bytes_out += pos - start
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
            head_bytes = self._begin_answer(answer, bodied=body is not None)
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
            self._release(clean=pos == end)
            self._done()
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
            self._truncate()

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
        self._held = None
        traffic = self._traffic
        name = self._entry.name
        refusal = refusal_name(held)
        if refusal is not None:
            traffic.set_succeeded(name)
            if refusal == DRAINING:
                traffic.set_drains(name)
            traffic.stats[name].note_back_pressure()
            self._note_failed(Failure.BACK_PRESSURE)
            self._refused = head, held
            if not self._repeat(Failure.BACK_PRESSURE, "it takes nothing now"):
                self._pass_refusal(head, held)
            return
        traffic.set_failed(name, "answered 503 without a task's id")
        self._note_failed(Failure.BAD_ANSWER)
        self._pass_held(head, held)

    def _pass_refusal(self, head: AnswerHead, held: bytearray) -> None:
        """No other set takes the request either."""
        if self._recovery is not None and self._recovery.may_have_run:
            # Its `executed: false` speaks of this attempt alone.
            self._give_up(Failure.RESET, "it is full, and an earlier attempt was lost")
        else:
            self._pass_held(head, held)

    def _pass_held(self, head: AnswerHead, held: bytearray) -> None:
        self._client.write([self._begin_answer(head, bodied=True, body=memoryview(held))])
        self._done()

    def _task_id(self) -> bytes:
        answer = self._answer if self._held is None else self._held[0]
        return b"" if answer is None else answer.get(b"x-task-id") or b""

    def _forget_answer(self) -> None:
        self._held = None
        self._body = None
        self._answer = None

    def _release(self, *, clean: bool) -> None:
        connection = self._connection
        if connection is not None:
            self._connection = None
            connection.pool.leave(reading=self._purpose.kind is _SAFE)
            answer = self._answer if self._held is None else self._held[0]
            connection.release(reusable=clean and answer is not None and answer.keep_alive)

    def _done(self) -> None:
        traffic = self._traffic
        client = self._client
        self._end()
        if traffic.board.uneasy and self._answer is not None and not _is_failure(self._answer):
            # Only now: what begins well may still turn out to be no HTTP answer.
            traffic.set_succeeded(self._entry.name)
        traffic.stats[self._entry.name].note_answer(client.status, traffic.loop.time() - self.started_at)
        if traffic.observer is not None and self._answer is not None and self._observed_at is not None:
            age_s = monotonic() - self._observed_at
            traffic.observer.answered(self._choice, self._entry, self._answer, age_s)
        if traffic.access is not None:
            self._log(client.status)
        client.exchange_done()


def _is_failure(answer: AnswerHead) -> bool:
    """The set's own, as no task is behind it."""
    return answer.status in _FAILURES and answer.get(b"x-task-id") is None
