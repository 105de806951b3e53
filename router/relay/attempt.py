"""One attempt of a request at a set: its place in the set's pool, the connection, and the relaying of the answer."""

from __future__ import annotations

from typing import Final, Protocol

from router.choosing.request import Purpose
from router.errors import reason_of
from router.relay.held_answer import HeldAnswer, held
from router.relay.overdue import overdue
from router.relay.record import Record
from router.relay.traffic import Traffic
from router.routing.table import SetEntry
from router.wire.answer_framing import body_of, ends_by_close, has_body, relayed_head
from router.wire.answer_head import AnswerHead
from router.wire.dial import OWN_ERRORS, Dial
from router.wire.downstream import ClientConnection
from router.wire.failure import Failure
from router.wire.framing import Body, FramingError, UntilCloseBody
from router.wire.pool import SetPool
from router.wire.request_head import RequestHead
from router.wire.stream import Piece
from router.wire.upstream import AnswerTaker, SetConnection

JOIN_BELOW_BYTES: Final = 64 * 1024
"""A body shorter than this is joined to its head: one copy costs less than one more system call."""
FAILURES: Final = frozenset((502, 503, 504))
"""Statuses of a set's own failure, unless a task is behind them."""


class Attempted(Protocol):
    """The owner of an attempt: an exchange. It learns of one end, unless it drops the attempt itself: `answered`,
    `truncated`, `refused` or `attempt_failed`."""

    traffic: Traffic
    client: ClientConnection
    head: RequestHead
    purpose: Purpose
    record: Record | None

    def send_request(self, attempt: Attempt, connection: SetConnection) -> None:
        """Send the head and the part of the body that is here."""

    def on_upstream_drained(self) -> None:
        """The set has taken everything that was sent."""

    def on_informational(self, head: AnswerHead) -> None:
        """Relay a 1xx answer, or don't."""

    def answered(self, answer: AnswerHead) -> None:
        """The answer is relayed whole."""

    def truncated(self) -> None:
        """The answer broke off after a part of it was relayed."""

    def refused(self, answer: HeldAnswer) -> None:
        """The set's whole answer, which may be a refusal, is here, and none of it is relayed."""

    def attempt_failed(self, failure: Failure, detail: str, *, reused: bool) -> None:
        """The attempt ended without a whole answer, on a connection that was `reused` or new."""


class Attempt(AnswerTaker):
    """Counted in the pool from now on, until `drop` or a whole answer.

    `connection`: an idle one of the pool that will carry the request; None: the pool has no idle one, so `dial`.
    `reading`: the request takes no room at the set. `answer`: the head of the set's answer, once it is here.
    """

    # Defaults in the class, not slots: every request makes an attempt, and most leave most of them as they are.
    answer: AnswerHead | None = None
    _dial: Dial | None = None
    _left = False
    _held: HeldAnswer | None = None
    _body: Body | None = None
    _rechunk = False

    def __init__(
        self,
        owner: Attempted,
        entry: SetEntry,
        pool: SetPool,
        connection: SetConnection | None,
        *,
        reading: bool,
    ) -> None:
        self._owner = owner
        self._entry = entry
        self._pool = pool
        self._reading = reading
        self.connection = connection
        pool.enter(reading=reading)

    # The place at the set.

    def dial(self, refusal: OSError | None) -> None:
        """Make a new connection. The owner is told how that ends, but never from inside this call. `refusal`: fail with
        this instead."""

        def connected(connection: SetConnection) -> None:
            self._dial = None
            self.connection = connection
            self._owner.send_request(self, connection)

        def failed(error: OSError) -> None:
            own = error.errno in OWN_ERRORS
            self.on_attempt_failed(Failure.NO_ROOM if own else Failure.CONNECT, reason_of(error))

        self._dial = self._pool.connect(connected, failed, refusal)

    def drop(self) -> None:
        """End the connection, or the making of one. Without effect on an attempt that is over."""
        if self._left:
            return
        connection, self.connection = self.connection, None
        self._leave()
        if connection is not None:
            connection.close()
        elif self._dial is not None:
            self._dial.cancel()
            self._dial = None

    def _release(self, answer: AnswerHead, *, clean: bool) -> None:
        """Leave; the connection may carry another request where nothing is left on it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._leave()
            connection.release(reusable=clean and answer.keep_alive)

    def _leave(self) -> None:
        self._left = True
        self._pool.leave(reading=self._reading)

    def overdue(self, purpose: Purpose, now: float) -> tuple[Failure, str] | None:
        """Return how the attempt failed by taking too long, and the message; None: it may go on."""
        connection = self.connection
        if connection is None or connection.closed:
            return None
        owner = self._owner
        return overdue(
            owner.traffic.limits, purpose, connection, client_drained=owner.client.drained, now=now
        )

    # Called by the connection.

    def on_upstream_drained(self) -> None:
        self._owner.on_upstream_drained()

    def on_informational(self, head: AnswerHead) -> None:
        self._owner.on_informational(head)

    def on_answer(
        self,
        head: AnswerHead,
        buf: bytes | bytearray,
        view: memoryview,
        start: int,
        end: int,
        shared: bool,
    ) -> None:
        owner = self._owner
        request = owner.head
        self.answer = head
        if owner.record is not None:
            owner.record.headed()
        bodied = has_body(head, request)
        failed = head.status in FAILURES
        if (failed or owner.purpose.always_200) and not owner.traffic.dialect.task_of(head):
            self._held = held(head, owner.traffic.dialect, bodied=bodied)
            if self._held is not None:
                self._hold(self._held, buf, view, start, end)
                return
            if failed:
                owner.traffic.set_failed(self._entry.name, f"answered {head.status} without a task's id")
        if bodied:
            if head.content_length == end - start < JOIN_BELOW_BYTES:
                # The usual small answer, which came all at once.
                if owner.record is not None:
                    owner.record.relayed(end - start)
                owner.client.post(begin_answer(owner, head, bodied=True, body=view[start:end]))
                self._release(head, clean=True)
                owner.answered(head)
                return
            self._body = body_of(head, request)
            self._rechunk = request.minor == 1 and isinstance(self._body, UntilCloseBody)
        self._relay(head, buf, view, start, end, shared)

    def on_answer_bytes(
        self, buf: bytes | bytearray, view: memoryview, start: int, end: int, shared: bool
    ) -> None:
        if self.connection is None:
            return
        if self._held is not None:
            self._hold(self._held, buf, view, start, end)
        else:
            assert self.answer is not None
            self._relay(self.answer, buf, view, start, end, shared)

    def on_answer_end(self) -> None:
        """The set closed the connection within, or at the end of, the answer's body."""
        answer, body = self.answer, self._body
        assert answer is not None
        self.drop()
        if self._held is not None:
            self.on_attempt_failed(Failure.BAD_ANSWER, "it ended within its answer")
        elif body is None or body.end_of_connection():
            if self._rechunk:
                self._owner.client.write([b"0\r\n\r\n"])
            self._owner.answered(answer)
        else:
            self._owner.truncated()

    def on_attempt_failed(self, failure: Failure, detail: str) -> None:
        connection = self.connection
        reused = connection is not None and connection.reused
        self.drop()
        self._owner.attempt_failed(failure, detail, reused=reused)

    # The answer's way back.

    def _relay(
        self, answer: AnswerHead, buf: bytes | bytearray, view: memoryview, start: int, end: int, shared: bool
    ) -> None:
        """Relay a part of the answer's body, with the head if that has not been sent yet."""
        owner = self._owner
        body = self._body
        pos = start
        pieces: list[Piece] = []
        if body is not None:
            try:
                pieces, pos = body.feed(buf, view, start, end)
            except FramingError as error:
                self.on_attempt_failed(Failure.BAD_ANSWER, str(error))
                return
        if owner.record is not None:
            owner.record.relayed(pos - start)
        done = body is None or body.done
        if self._rechunk and pieces:
            pieces = [b"%x\r\n" % (end - start), *pieces, b"\r\n"]
        client = owner.client
        drained = True
        if not client.answering:
            head_bytes = begin_answer(owner, answer, bodied=body is not None)
            if not pieces:
                client.post(head_bytes)
            elif pos - start < JOIN_BELOW_BYTES:
                client.post(b"".join((head_bytes, *pieces)))
            else:
                drained = client.write([head_bytes, *pieces], shared=shared)
        elif pieces:
            drained = client.write(pieces, shared=shared)
        if self._left:
            return  # The client left.
        if done:
            self._release(answer, clean=pos == end)
            owner.answered(answer)
        elif not drained and (connection := self.connection) is not None:
            connection.stream.pause_reading()

    def on_client_drained(self) -> None:
        """The client has taken everything: read on."""
        connection = self.connection
        if connection is not None and not connection.closed:
            connection.stream.resume_reading()

    def _hold(
        self, answer: HeldAnswer, buf: bytes | bytearray, view: memoryview, start: int, end: int
    ) -> None:
        """Collect an answer that may be a refusal."""
        try:
            pos = answer.feed(buf, view, start, end)
        except FramingError as error:
            self.on_attempt_failed(Failure.BAD_ANSWER, str(error))
            return
        owner = self._owner
        if owner.record is not None:
            owner.record.relayed(pos - start)
        if answer.done:
            self._release(answer.head, clean=pos == end)
            owner.refused(answer)


def begin_answer(owner: Attempted, answer: AnswerHead, *, bodied: bool, body: Piece = b"") -> bytes:
    """Note that the answer goes out from here on; returns its head, and the part of the body to send with it."""
    client, request = owner.client, owner.head
    client.answering = True
    client.status = answer.status
    if (
        owner.traffic.draining
        or (answer.status >= 400 and not client.body_done)
        or (bodied and ends_by_close(answer, request))
    ):
        client.keep = False
    return relayed_head(answer, request, bodied=bodied, keep=client.keep, body=body)
