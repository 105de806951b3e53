"""One request at sets: an attempt, further ones where it fails, and its end.

client ── ClientConnection ── Exchange ── Attempt ── SetConnection ── set

Its parts: `Attempt` (one try at a set, and the answer's way back), `Replay` (what was sent of the body), `HeldAnswer`
(a short answer that may be a refusal, read whole), `Retrier` (further attempts), `Record` (what logs and rollouts learn
of it). All but the first are made only for requests that need them.
"""

from __future__ import annotations

import errno
from typing import Final

from router.choosing.choice import Choice
from router.choosing.request import Purpose
from router.choosing.retry import RequestKind
from router.dialects.contract import Refused
from router.relay.attempt import FAILURES, Attempt, Attempted, begin_answer
from router.relay.held_answer import HeldAnswer
from router.relay.record import CLIENT_LEFT, Record
from router.relay.recovery import Recovery
from router.relay.replay import Replay
from router.relay.retrier import Retrier, Tried
from router.relay.traffic import Traffic
from router.routing.table import SetEntry
from router.wire.answer_head import AnswerHead
from router.wire.downstream import ClientConnection
from router.wire.failure import Failure
from router.wire.problems import Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Piece
from router.wire.upstream import SetConnection
from router.wire.work import Work

_SAFE: Final = RequestKind.SAFE
_UNSAFE: Final = RequestKind.UNSAFE
_CROWDED: Final = "the router has no file descriptor to spare"
_TOO_LONG: Final = (Failure.TIMEOUT, "the request took longer than allowed in all")


class Exchange(Work, Attempted, Tried):
    """Created for every request that goes to a set; ends with `ClientConnection.exchange_done`, or in one of `respond`,
    `truncate` and `exchange_ended`."""

    # Defaults in the class, not slots: most exchanges leave most of them as they are.
    _attempt: Attempt | None = None
    """The attempt that is under way, or that got the answer."""
    _replay: Replay | None = None
    """The part of the body that was sent; None: nothing of it was."""
    _unsent: list[Piece] | None = None
    """The part of the body that came with the head and is too long for a replay; it must still be sent once."""
    _retrier: Retrier | None = None
    """The further attempts; None: no attempt has failed."""
    record: Record | None = None
    """Reports this request; None: nobody listens."""
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
        self.traffic = traffic
        self.client = client
        self.purpose = purpose
        self._choice = choice
        self._entry = entry
        self._table = traffic.table
        self.head = head
        self.started_at = client.at
        if traffic.access is not None or traffic.observer is not None:
            self.record = Record(traffic, head, choice)

    # The request's way to a set.

    def start(self, pieces: list[Piece]) -> None:
        """Send the head and the part of the body that came with it."""
        if pieces:
            replay = self._remember(pieces)
            if not replay.whole:
                self._unsent = pieces
        if self.record is not None and self.client.body_done:
            self.record.whole(self._entry)
        self._try()

    def _remember(self, pieces: list[Piece]) -> Replay:
        """Remember a part of the body that is sent now."""
        if self.record is not None:
            self.record.sent(sum(map(len, pieces)))
        replay = self._replay
        if replay is None:
            replay = self._replay = Replay(self._table.retry.replay_body_max_bytes)
        replay.add(pieces)
        return replay

    def _try(self, *, fresh: bool = False) -> None:
        kind = self.purpose.kind
        entry = self._entry
        pool = self.traffic.pools[entry.name]
        idle = None if fresh else pool.take(used_just_now=kind is _UNSAFE)
        attempt = self._attempt = Attempt(self, entry, pool, idle, reading=kind is _SAFE)
        if idle is not None:
            self.send_request(attempt, idle)
            return
        self.client.hold_body()
        attempt.dial(OSError(errno.EMFILE, _CROWDED) if self.traffic.crowded() else None)

    def send_request(self, attempt: Attempt, connection: SetConnection) -> None:
        client = self.client
        connection.begin(attempt, self.traffic.loop.time())
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

    @property
    def entry(self) -> SetEntry:
        """The set at which the request is now."""
        return self._entry

    @property
    def _connection(self) -> SetConnection | None:
        return None if self._attempt is None else self._attempt.connection

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        """Pass on a part of the body; False: wait for `ClientConnection.want_body`."""
        connection = self._connection
        if last and self.record is not None:
            self.record.whole(self._entry)
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
        if not self.client.body_done:
            self.client.want_body()
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
        self.client.write([head.relayed(b"")])

    def on_client_drained(self) -> None:
        if self._attempt is not None:
            self._attempt.on_client_drained()

    def refused(self, answer: HeldAnswer) -> None:
        self._attempt = None
        traffic = self.traffic
        name = self._entry.name
        refusal = traffic.dialect.refusal_of(answer.body)
        if refusal is None:
            traffic.set_failed(name, "answered 503 without a task's id")
            self._note_failed(Failure.BAD_ANSWER)
            self._pass_held(answer)
            return
        traffic.set_succeeded(name)
        if refusal is Refused.DRAINS:
            traffic.set_drains(name)
        traffic.stats[name].note_back_pressure()
        self._note_failed(Failure.BACK_PRESSURE)
        if not self._repeat(Failure.BACK_PRESSURE, "it takes nothing now", refused=answer):
            self.pass_refusal(answer)

    def pass_refusal(self, answer: HeldAnswer) -> None:
        """No other set takes the request either."""
        if self._retrier is not None and self._retrier.recovery.may_have_run:
            # Its `executed: false` is about this attempt only.
            self.give_up(Failure.RESET, "it is full, and an earlier attempt was lost")
        else:
            self._pass_held(answer)

    def _pass_held(self, answer: HeldAnswer) -> None:
        self.client.write([begin_answer(self, answer.head, bodied=True, body=memoryview(answer.body))])
        self.answered(None)

    # Attempts that fail.

    def attempt_failed(self, failure: Failure, detail: str, *, reused: bool) -> None:
        if self.client.answering:
            if failure is Failure.BAD_ANSWER:
                self.traffic.set_failed(self._entry.name, detail)
            self.truncated()
            return
        self._attempt = None
        self.traffic.attempt_failed(self._entry.name, failure, detail, reused=reused)
        if not reused or failure is not Failure.SEND:
            self._note_failed(failure)
        if not self._repeat(failure, detail, reused=reused):
            self.give_up(failure, detail)

    def _repeat(
        self, failure: Failure, detail: str, *, reused: bool = False, refused: HeldAnswer | None = None
    ) -> bool:
        """Try again if that is allowed and useful; False: it is not."""
        retrier = self._retrier
        if retrier is None:
            traffic = self.traffic
            recovery = Recovery(
                traffic,
                self._table,
                self.head,
                self.purpose,
                self._choice,
                self.client.address,
                self.started_at,
            )
            retrier = self._retrier = Retrier(self, recovery, traffic.loop)
        retrier.refused = refused
        retrier.recovery.note(failure, detail)
        if self._replay is not None and not self._replay.whole and self._unsent is None:
            return False
        return retrier.retry(self._entry, failure, reused=reused)

    def wait_for_retry(self) -> None:
        self.client.hold_body()

    def begin_again(self, entry: SetEntry, *, fresh: bool) -> None:
        if self.record is not None:
            self.record.tried_again(elsewhere=entry is not self._entry)
        self._entry = entry
        self._try(fresh=fresh)

    def timed_out(self, now: float) -> bool:
        """Called every sweep; True when a time-out ended the exchange."""
        attempt = self._attempt
        if now - self.started_at > self.traffic.limits.total_s:
            late: tuple[Failure, str] | None = _TOO_LONG
            if self.record is not None and not self.client.body_done:
                connection = None if attempt is None else attempt.connection
                self.record.slow_upload = connection is None or not connection.stream.stalled_since
        else:
            late = None if attempt is None else attempt.overdue(self.purpose, now)
        if late is None:
            return False
        if attempt is None:
            self.attempt_failed(*late, reused=False)
        else:
            attempt.on_attempt_failed(*late)
        return True

    # Ends.

    def give_up(self, failure: Failure, detail: str) -> None:
        assert self._retrier is not None
        problem = self._retrier.recovery.problem(self._entry, failure, detail)
        self._log(problem.status, problem)
        self.client.respond(problem, logged=True)
        self._end()

    def truncated(self) -> None:
        self.traffic.stats[self._entry.name].note_truncated()
        self._note_failed(Failure.BAD_ANSWER)
        self._log(self.client.status, reason="the set's answer broke off")
        self.client.truncate()
        self._end()

    def cancel(self, problem: Problem | None = None) -> None:
        """The client is gone, or its request is broken. Closing the connection tells the set at once."""
        if self.ended:
            return
        self.traffic.note_cancelled()
        if self.record is not None and self.client.body_done:
            # An upload that its client gives up says nothing about the set.
            self.record.client_left(self._entry, unanswered=not self.client.answering)
        status = self.client.status or (0 if problem is None else problem.status)
        self._log(status, problem, "" if problem is not None else CLIENT_LEFT)
        if self._attempt is not None:
            self._attempt.drop()
        self._end()

    def answered(self, answer: AnswerHead | None) -> None:
        """The answer is relayed whole; None: it was a refusal, counted before."""
        traffic = self.traffic
        client = self.client
        if traffic.board.uneasy and answer is not None and not self._is_failure(answer):
            # Only now: an answer that begins well may still turn out not to be HTTP.
            traffic.set_succeeded(self._entry.name)
        traffic.stats[self._entry.name].note_answer(client.status, traffic.loop.time() - self.started_at)
        if self.record is not None:
            if answer is not None and traffic.observer is not None:
                self.record.answered(self._entry, answer)
            self._log(client.status)
        self._end()
        client.exchange_done()

    def _is_failure(self, answer: AnswerHead) -> bool:
        """Return True if the answer is the set's own failure: no task is behind it."""
        return answer.status in FAILURES and not self.traffic.dialect.task_of(answer)

    def _note_failed(self, failure: Failure) -> None:
        if self.record is not None:
            self.record.failed(self._entry, failure)

    def _log(self, status: int, problem: Problem | None = None, reason: str = "") -> None:
        record = self.record
        if record is None:
            return
        attempts, last_failure = 1, ""
        if self._retrier is not None:
            attempts, last_failure = self._retrier.recovery.attempts, self._retrier.recovery.reason
        answer = None if self._attempt is None else self._attempt.answer
        task_id = b"" if answer is None else self.traffic.dialect.task_of(answer)
        record.log(self.client.address, status, self._entry, attempts, problem, reason, task_id, last_failure)

    def _end(self) -> None:
        self.ended = True
        # They refer to each other: without this, the garbage collector would have to find them.
        self._attempt = None
        if self.record is not None and self.record.open is not None:
            self.record.ended()
        if self._retrier is not None:
            self._retrier.end()
        self.client.exchange_ended()
