"""One request at sets: an attempt, further ones where it fails, and the answer's way back.

client ── ClientConnection ── Exchange ── SetConnection ── set

Its parts: `Place` (the connection to the set), `Replay` (what was sent of the body), `HeldAnswer` (a short 503, read
whole), `Retrier` (further attempts), `Record` (what logs and rollouts learn of it). All but the first are made only for
requests that need them.
"""

from __future__ import annotations

import errno
from typing import Final

from router.choosing.choice import Choice
from router.choosing.request import Purpose
from router.choosing.retry import RequestKind
from router.relay.held_answer import HeldAnswer, held
from router.relay.overdue import overdue
from router.relay.place import Place, Visitor
from router.relay.record import CLIENT_LEFT, Record
from router.relay.recovery import Recovery
from router.relay.replay import Replay
from router.relay.retrier import Retrier, Tried
from router.relay.traffic import Traffic
from router.routing.table import SetEntry
from router.wire.answer_framing import body_of, ends_by_close, has_body, relayed_head
from router.wire.answer_head import AnswerHead
from router.wire.dial import OWN_ERRORS
from router.wire.downstream import ClientConnection
from router.wire.failure import Failure
from router.wire.framing import Body, FramingError, UntilCloseBody
from router.wire.problems import Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Piece
from router.wire.upstream import AnswerTaker, SetConnection
from router.wire.work import Work

_SAFE: Final = RequestKind.SAFE
_UNSAFE: Final = RequestKind.UNSAFE
_FAILURES: Final = frozenset((502, 503, 504))
_CROWDED: Final = "the router has no file descriptor to spare"
JOIN_BELOW_BYTES: Final = 64 * 1024
"""A shorter body is joined to its head: one copy costs less than one more system call."""
DRAINING: Final = "set-draining"
"""The problem of a set that ends."""


class Exchange(Work, AnswerTaker, Visitor, Tried):
    """Created for every request that goes to a set; ends with `ClientConnection.exchange_done`, or in one of `respond`,
    `truncate` and `exchange_ended`."""

    # Defaults in the class, not slots: most exchanges leave most of them as they are.
    _place: Place | None = None
    _replay: Replay | None = None
    """None: nothing of a body was sent."""
    _unsent: list[Piece] | None = None
    """The part of the body that came with the head and is too long for a replay; it must still be sent once."""
    _retrier: Retrier | None = None
    """None: no attempt has failed."""
    _record: Record | None = None
    """None: nobody is told of this request."""
    _answer: AnswerHead | None = None
    """The answer's head once it is being relayed."""
    _held: HeldAnswer | None = None
    _body: Body | None = None
    _rechunk = False
    _continued = False
    ended = False

    def __init__(
        self,
        traffic: Traffic,
        client: ClientConnection,
        head: RequestHead,
        purpose: Purpose,
        choice: Choice,
        entry: SetEntry,
    ) -> None:
        self._traffic = traffic
        self._client = client
        self._purpose = purpose
        self._choice = choice
        self._entry = entry
        self._table = traffic.table
        self.head = head
        self.started_at = client.at
        if traffic.access is not None or traffic.observer is not None:
            self._record = Record(traffic, head, choice)

    # The request's way to a set.

    def start(self, pieces: list[Piece]) -> None:
        """Send the head and what came of the body with it."""
        if pieces:
            replay = self._remember(pieces)
            if not replay.whole:
                self._unsent = pieces
        if self._record is not None and self._client.body_done:
            self._record.whole(self._entry)
        self._attempt()

    def _remember(self, pieces: list[Piece]) -> Replay:
        """Note a part of the body that is sent now."""
        if self._record is not None:
            self._record.sent(sum(map(len, pieces)))
        replay = self._replay
        if replay is None:
            replay = self._replay = Replay(self._table.retry.replay_body_max_bytes)
        replay.add(pieces)
        return replay

    def _attempt(self, *, fresh: bool = False) -> None:
        kind = self._purpose.kind
        pool = self._traffic.pools[self._entry.name]
        idle = None if fresh else pool.take(used_just_now=kind is _UNSAFE)
        place = self._place = Place(pool, idle, reading=kind is _SAFE)
        if idle is not None:
            self.on_connected(idle)
            return
        self._client.hold_body()
        place.dial(self, OSError(errno.EMFILE, _CROWDED) if self._traffic.crowded() else None)

    def on_connected(self, connection: SetConnection) -> None:
        client = self._client
        connection.begin(self, self._traffic.loop.time())
        head = self.head
        host = b"" if head.host is not None else self._entry.authority.encode()
        data = head.forward(client.forwarded, host)
        last = client.body_done
        taken = True
        if self._replay is None:
            connection.post(data, last=last)
        elif self._unsent is not None:
            pieces = [data, *self._unsent]
            self._unsent = None
            taken = connection.write(pieces, last=last)
        else:
            connection.post(b"".join((data, *self._replay.pieces)), last=last)
        if taken and not last:
            client.want_body()

    def on_connect_failed(self, error: OSError) -> None:
        own = error.errno in OWN_ERRORS
        self.on_attempt_failed(Failure.NO_ROOM if own else Failure.CONNECT, str(error))

    @property
    def _connection(self) -> SetConnection | None:
        return None if self._place is None else self._place.connection

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        """Pass on a part of the body; False: wait for `ClientConnection.want_body`."""
        connection = self._connection
        if last and self._record is not None:
            self._record.whole(self._entry)
        if pieces:
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
        if not self._client.body_done:
            self._client.want_body()
        elif not connection.stream.broken:
            connection.mark_sent()

    # The answer's way back.

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
        status = head.status
        if self._record is not None:
            self._record.headed()
        bodied = has_body(head, self.head)
        if status in _FAILURES and _is_failure(head):
            self._held = held(head, bodied=bodied)
            if self._held is not None:
                self._hold(self._held, buf, view, start, end)
                return
            self._traffic.set_failed(self._entry.name, f"answered {status} without a task's id")
        self._answer = head
        if bodied:
            if head.content_length == end - start < JOIN_BELOW_BYTES:
                # The usual small answer: all of it came at once.
                if self._record is not None:
                    self._record.relayed(end - start)
                self._client.post(self._begin_answer(head, bodied=True, body=view[start:end]))
                self._release(head, clean=True)
                self._done()
                return
            self._body = body_of(head, self.head)
            self._rechunk = self.head.minor == 1 and isinstance(self._body, UntilCloseBody)
        self._relay(buf, view, start, end, shared)

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
        if self._connection is None:
            return
        if self._held is not None:
            self._hold(self._held, buf, view, start, end)
        else:
            self._relay(buf, view, start, end, shared)

    def _relay(self, buf: bytes | bytearray, view: memoryview, start: int, end: int, shared: bool) -> None:
        """Pass on a part of the answer's body, with the head where that is not out yet."""
        body = self._body
        answer = self._answer
        assert answer is not None
        pos = start
        pieces: list[Piece] = []
        if body is not None:
            try:
                pieces, pos = body.feed(buf, view, start, end)
            except FramingError as error:
                self.on_attempt_failed(Failure.BAD_ANSWER, str(error))
                return
        if self._record is not None:
            self._record.relayed(pos - start)
        done = body is None or body.done
        if self._rechunk and pieces:
            pieces = [b"%x\r\n" % (end - start), *pieces, b"\r\n"]
        client = self._client
        drained = True
        if not client.answering:
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
            self._release(answer, clean=pos == end)
            self._done()
        elif not drained and (connection := self._connection) is not None:
            connection.stream.pause_reading()

    def on_client_drained(self) -> None:
        """The client took all: read on."""
        connection = self._connection
        if connection is not None and not connection.closed:
            connection.stream.resume_reading()

    def on_answer_end(self) -> None:
        """The set closed the connection within, or at the end of, the answer's body."""
        body = self._body
        self._drop()
        if self._held is not None:
            self.on_attempt_failed(Failure.BAD_ANSWER, "it ended within its answer")
        elif body is None or body.end_of_connection():
            if self._rechunk:
                self._client.write([b"0\r\n\r\n"])
            self._done()
        else:
            self._truncate()

    def _hold(
        self, answer: HeldAnswer, buf: bytes | bytearray, view: memoryview, start: int, end: int
    ) -> None:
        """Collect a short 503 problem; then decide."""
        try:
            pos = answer.feed(buf, view, start, end)
        except FramingError as error:
            self.on_attempt_failed(Failure.BAD_ANSWER, str(error))
            return
        if self._record is not None:
            self._record.relayed(pos - start)
        if not answer.done:
            return
        self._release(answer.head, clean=pos == end)
        self._held = None
        traffic = self._traffic
        name = self._entry.name
        refusal = answer.refusal
        if refusal is None:
            traffic.set_failed(name, "answered 503 without a task's id")
            self._note_failed(Failure.BAD_ANSWER)
            self._pass_held(answer)
            return
        traffic.set_succeeded(name)
        if refusal == DRAINING:
            traffic.set_drains(name)
        traffic.stats[name].note_back_pressure()
        self._note_failed(Failure.BACK_PRESSURE)
        if not self._repeat(Failure.BACK_PRESSURE, "it takes nothing now", refused=answer):
            self.pass_refusal(answer)

    def pass_refusal(self, answer: HeldAnswer) -> None:
        """No other set takes the request either."""
        if self._retrier is not None and self._retrier.recovery.may_have_run:
            # Its `executed: false` speaks of this attempt alone.
            self.give_up(Failure.RESET, "it is full, and an earlier attempt was lost")
        else:
            self._pass_held(answer)

    def _pass_held(self, answer: HeldAnswer) -> None:
        self._client.write([self._begin_answer(answer.head, bodied=True, body=memoryview(answer.body))])
        self._done()

    # Attempts that fail.

    def on_attempt_failed(self, failure: Failure, detail: str) -> None:
        """The attempt ended without a whole answer."""
        connection = self._connection
        reused = connection is not None and connection.reused
        self._drop()
        if self._client.answering:
            if failure is Failure.BAD_ANSWER:
                self._traffic.set_failed(self._entry.name, detail)
            self._truncate()
            return
        self._forget_answer()
        self._traffic.attempt_failed(self._entry.name, failure, detail, reused=reused)
        if not reused or failure is not Failure.SEND:
            self._note_failed(failure)
        if not self._repeat(failure, detail, reused=reused):
            self.give_up(failure, detail)

    def _repeat(
        self, failure: Failure, detail: str, *, reused: bool = False, refused: HeldAnswer | None = None
    ) -> bool:
        """Try once more where that is allowed and useful; False: it is not."""
        retrier = self._retrier
        if retrier is None:
            traffic = self._traffic
            recovery = Recovery(
                traffic,
                self._table,
                self.head,
                self._purpose,
                self._choice,
                self._client.address,
                self.started_at,
            )
            retrier = self._retrier = Retrier(self, recovery, traffic.loop)
        retrier.refused = refused
        retrier.recovery.note(failure, detail)
        if self._replay is not None and not self._replay.whole and self._unsent is None:
            return False
        return retrier.retry(self._entry, failure, reused=reused)

    def wait_for_retry(self) -> None:
        self._client.hold_body()

    def begin_again(self, entry: SetEntry, *, fresh: bool) -> None:
        if self._record is not None:
            self._record.tried_again(elsewhere=entry is not self._entry)
        self._entry = entry
        self._forget_answer()
        self._attempt(fresh=fresh)

    def _forget_answer(self) -> None:
        """Drop what has come of the answer so far: this attempt is over."""
        self._held = None
        self._body = None
        self._answer = None

    def timed_out(self, now: float) -> bool:
        """Called every sweep; True when a time-out ended the exchange."""
        limits = self._traffic.limits
        connection = self._connection
        if now - self.started_at > limits.total_s:
            self.on_attempt_failed(Failure.TIMEOUT, "the request took longer than allowed in all")
            return True
        if connection is None or connection.closed:
            return False
        late = overdue(limits, self._purpose, connection, client_drained=self._client.drained, now=now)
        if late is None:
            return False
        self.on_attempt_failed(*late)
        return True

    # Ends.

    def give_up(self, failure: Failure, detail: str) -> None:
        assert self._retrier is not None
        problem = self._retrier.recovery.problem(self._entry, failure, detail)
        self._log(problem.status, problem)
        self._client.respond(problem, logged=True)
        self._end()

    def _truncate(self) -> None:
        self._traffic.stats[self._entry.name].note_truncated()
        self._note_failed(Failure.BAD_ANSWER)
        self._log(self._client.status, reason="the set's answer broke off")
        self._client.truncate()
        self._end()

    def cancel(self, problem: Problem | None = None) -> None:
        """The client is gone, or its request is broken: let the set know at once by closing its
        connection."""
        if self.ended:
            return
        self._traffic.note_cancelled()
        if self._record is not None and self._client.body_done:
            # An upload that its client gives up tells nothing of the set.
            self._record.left(self._entry, unanswered=not self._client.answering)
        status = self._client.status or (0 if problem is None else problem.status)
        self._log(status, problem, "" if problem is not None else CLIENT_LEFT)
        self._drop()
        self._end()

    def _drop(self) -> None:
        """The attempt is over, and its connection with it."""
        if self._place is not None:
            self._place.drop()

    def _release(self, answer: AnswerHead, *, clean: bool) -> None:
        """The attempt is over; its connection may carry another request where nothing is left on it."""
        if self._place is not None:
            self._place.release(reusable=clean and answer.keep_alive)

    def _done(self) -> None:
        """The answer is relayed whole."""
        traffic = self._traffic
        client = self._client
        answer = self._answer
        self._end()
        if traffic.board.uneasy and answer is not None and not _is_failure(answer):
            # Only now: what begins well may still turn out to be no HTTP answer.
            traffic.set_succeeded(self._entry.name)
        traffic.stats[self._entry.name].note_answer(client.status, traffic.loop.time() - self.started_at)
        if self._record is not None:
            if answer is not None and traffic.observer is not None:
                self._record.answered(self._entry, answer)
            self._log(client.status)
        client.exchange_done()

    def _note_failed(self, failure: Failure) -> None:
        if self._record is not None:
            self._record.failed(self._entry, failure)

    def _log(self, status: int, problem: Problem | None = None, reason: str = "") -> None:
        record = self._record
        if record is None:
            return
        attempts, last_failure = 1, ""
        if self._retrier is not None:
            attempts, last_failure = self._retrier.recovery.attempts, self._retrier.recovery.reason
        answer = self._answer if self._held is None else self._held.head
        task_id = b"" if answer is None else answer.get(b"x-task-id") or b""
        record.log(
            self._client.address, status, self._entry, attempts, problem, reason, task_id, last_failure
        )

    def _end(self) -> None:
        self.ended = True
        if self._record is not None and self._record.open is not None:
            self._record.ended()
        if self._retrier is not None:
            self._retrier.end()
        self._client.exchange_ended()


def _is_failure(answer: AnswerHead) -> bool:
    """The set's own, as no task is behind it."""
    return answer.status in _FAILURES and answer.get(b"x-task-id") is None
