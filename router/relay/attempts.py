"""One request on its way to sets: an attempt, and further ones where it fails, until one is answered or none is left.

What a failed attempt leads to is decided in recovery.py; what is done with an answer, in exchange.py.
"""

from __future__ import annotations

import asyncio
import errno
from time import monotonic

from router.choosing.choice import Choice
from router.choosing.request import Purpose
from router.choosing.retry import RequestKind
from router.counting.open_requests import OpenRequests
from router.relay.recovery import Recovery
from router.relay.replay import Replay
from router.relay.traffic import Traffic
from router.routing.table import SetEntry
from router.wire.answer_head import AnswerHead
from router.wire.dial import OWN_ERRORS, Dial
from router.wire.downstream import ClientConnection
from router.wire.failure import Failure
from router.wire.pool import SetPool
from router.wire.problems import Problem
from router.wire.request_head import RequestHead
from router.wire.stream import Piece
from router.wire.upstream import AnswerTaker, Pool, SetConnection

_SAFE = RequestKind.SAFE
_UNSAFE = RequestKind.UNSAFE
_CROWDED = "the router has no file descriptor to spare"
CLIENT_LEFT = "the client left"


class Attempts(AnswerTaker):
    """Knows what was sent, and tells of it; `Exchange` takes the answer, by the methods of `AnswerTaker` and these:"""

    # Defaults in the class, not slots: most exchanges leave most of them as they are.
    _connection: SetConnection | None = None
    _dial: Dial | None = None
    _dial_pool: SetPool | None = None
    """While a connection is being made, and where."""
    _refused: tuple[AnswerHead, bytearray] | None = None
    """The answer of a set that took nothing, for the case that no other one does."""
    _replay: Replay | None = None
    """None: nothing of a body was sent."""
    _unsent: list[Piece] | None = None
    """What came of the body with the head, where it is too long for a replay: it must still be sent once."""
    _recovery: Recovery | None = None
    _timer: asyncio.TimerHandle | None = None
    _observed_at: float | None = None
    """When it began, by a clock finer than the loop's milliseconds, where a rollout compares latencies, or for the
    access log."""
    _tried_at = 0.0
    """Likewise, when the last attempt began …"""
    _waiting: OpenRequests | None = None
    """Where a rollout counts the request among those without an answer, while it is one, and since when."""
    _waiting_since = 0.0
    _headed_at = 0.0
    """… and its answer's head came."""
    _bytes_in = 0
    _bytes_out = 0
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
            self._observed_at = self._tried_at = monotonic()

    def _forget_answer(self) -> None:
        """Another attempt follows, or none: what came of this one's answer counts no more."""
        raise NotImplementedError

    def _pass_refusal(self, head: AnswerHead, held: bytearray) -> None:
        """No other set takes the request either: the client gets the answer of one that took nothing."""
        raise NotImplementedError

    def start(self, pieces: list[Piece]) -> None:
        """Send the head and what came of the body with it."""
        if pieces:
            replay = self._remember(pieces)
            if not replay.whole:
                self._unsent = pieces
        if self._client.body_done:
            self._note_waiting()
        self._attempt()

    def _remember(self, pieces: list[Piece]) -> Replay:
        """Note a part of the body that is sent now."""
        for piece in pieces:
            self._bytes_in += len(piece)
        replay = self._replay
        if replay is None:
            replay = self._replay = Replay(self._table.retry.replay_body_max_bytes)
        replay.add(pieces)
        return replay

    def _attempt(self, *, fresh: bool = False) -> None:
        pool = self._traffic.pools[self._entry.name]
        kind = self._purpose.kind
        pool.enter(reading=kind is _SAFE)
        connection = None if fresh else pool.take(used_just_now=kind is _UNSAFE)
        if connection is None:
            self._client.hold_body()
            self._dial_pool = pool
            refusal = OSError(errno.EMFILE, _CROWDED) if self._traffic.crowded() else None
            self._dial = pool.connect(self._dialled, self._connect_failed, refusal)
        else:
            self._connection = connection
            self._connected(connection)

    def _dialled(self, connection: SetConnection) -> None:
        self._dial = None
        self._connection = connection
        self._connected(connection)

    def _connected(self, connection: SetConnection) -> None:
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

    def _connect_failed(self, error: OSError) -> None:
        own = error.errno in OWN_ERRORS
        self.on_attempt_failed(Failure.NO_ROOM if own else Failure.CONNECT, str(error))

    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool:
        """Pass on a part of the body; False: wait for `ClientConnection.want_body`."""
        connection = self._connection
        if last:
            self._note_waiting()
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

    # Ends.

    def on_attempt_failed(self, failure: Failure, detail: str) -> None:
        """The attempt ended without a whole answer."""
        connection = self._connection
        reused = connection is not None and connection.reused
        self._drop_connection()
        if self._client.answering:
            if failure is Failure.BAD_ANSWER:
                self._traffic.set_failed(self._entry.name, detail)
            self._truncate()
            return
        self._forget_answer()
        self._traffic.attempt_failed(self._entry.name, failure, detail, reused=reused)
        if not reused or failure is not Failure.SEND:
            self._note_failed(failure)
        self._refused = None
        if not self._repeat(failure, detail, reused=reused):
            self._give_up(failure, detail)

    def _repeat(self, failure: Failure, detail: str, *, reused: bool = False) -> bool:
        """Try once more where that is allowed and useful; False: it is not."""
        recovery = self._recovery
        if recovery is None:
            recovery = self._recovery = Recovery(
                self._traffic,
                self._table,
                self.head,
                self._purpose,
                self._choice,
                self._client.address,
                self.started_at,
            )
        recovery.note(failure, detail)
        if self._replay is not None and not self._replay.whole and self._unsent is None:
            return False
        attempt = recovery.next_attempt(self._entry, failure, reused=reused)
        if attempt is None:
            return False
        if attempt.fresh:
            self._begin_again(attempt.entry, fresh=True)
        else:
            self._client.hold_body()
            self._timer = self._traffic.loop.call_later(attempt.delay_s, self._retry, recovery)
        return True

    def _retry(self, recovery: Recovery) -> None:
        self._timer = None
        attempt = recovery.turn()
        if attempt is None:
            if self._refused is not None and recovery.failure is Failure.BACK_PRESSURE:
                self._pass_refusal(*self._refused)
            else:
                self._give_up(recovery.failure, recovery.detail)
        elif attempt.delay_s:
            self._timer = self._traffic.loop.call_later(attempt.delay_s, self._retry, recovery)
        else:
            self._begin_again(attempt.entry)

    def _begin_again(self, entry: SetEntry, *, fresh: bool = False) -> None:
        if entry is not self._entry:
            self._wait_is_over()
        self._entry = entry
        self._refused = None
        self._forget_answer()
        self._bytes_out = 0
        self._headed_at = 0.0
        self._tried_at = monotonic()
        self._attempt(fresh=fresh)

    def _give_up(self, failure: Failure, detail: str) -> None:
        assert self._recovery is not None
        problem = self._recovery.problem(self._entry, failure, detail)
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
        if not self.ended:
            self._traffic.note_cancelled()
            observer = self._traffic.observer
            # An upload that its client gives up tells nothing of the set.
            if observer is not None and self._observed_at is not None and self._client.body_done:
                waited_s = monotonic() - self._observed_at
                observer.left(self._choice, self._entry, waited_s, unanswered=not self._client.answering)
            status = self._client.status or (0 if problem is None else problem.status)
            self._log(status, problem, "" if problem is not None else CLIENT_LEFT)
            self._drop_connection()
            self._end()

    def timed_out(self, now: float) -> bool:
        """Called every sweep; True when a time-out ended the exchange."""
        limits = self._traffic.limits
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
            long_wait = self._purpose.long_wait
            allowed = limits.task_first_byte_s if long_wait else limits.first_byte_s
            if now - connection.at > allowed:
                failure = Failure.TIMEOUT if long_wait else Failure.SILENT
                self.on_attempt_failed(failure, f"no answer within {allowed:g} s")
                return True
        elif stream.stalled_since and now - stream.stalled_since > limits.task_first_byte_s:
            self.on_attempt_failed(Failure.TIMEOUT, "the set does not read the request's body")
            return True
        return False

    def _drop_connection(self) -> None:
        connection = self._connection
        self._connection = None
        if connection is not None:
            self._leave(connection.pool)
            connection.close()
        elif self._dial is not None and self._dial_pool is not None:
            self._dial.cancel()
            self._dial = None
            self._leave(self._dial_pool)

    def _leave(self, pool: Pool) -> None:
        """The attempt is no longer at the set."""
        pool.leave(reading=self._purpose.kind is _SAFE)

    def _log(self, status: int, problem: Problem | None = None, reason: str = "") -> None:
        """Give the access log its line."""
        traffic = self._traffic
        access = traffic.access
        began = self._observed_at
        if access is None or began is None:
            return
        error = status >= 500 or problem is not None or (reason != "" and reason is not CLIENT_LEFT)
        if (error or not access.everything) and not access.wants(error=error):
            return
        headed = self._headed_at
        choice = self._choice
        attempts = 1
        if self._recovery is not None:
            attempts = self._recovery.attempts
            reason = reason or self._recovery.reason
        access.note(
            self.head,
            self._client.address,
            status,
            began,
            (headed - self._tried_at) * 1e6 if headed else 0,
            self._bytes_in,
            self._bytes_out,
            choice,
            self._entry.name,
            attempts,
            "" if traffic.observer is None else traffic.observer.cohort(choice),
            reason if problem is None else f"{problem.name}: {problem.detail}",
            None if problem is None else problem.executed,
            self._task_id(),
        )

    def _task_id(self) -> bytes:
        """The task that the answer names; empty where it names none."""
        return b""

    def _note_failed(self, failure: Failure) -> None:
        observer = self._traffic.observer
        if observer is not None and self._observed_at is not None:
            observer.failed(self._choice, self._entry, failure, monotonic() - self._observed_at)

    def _note_waiting(self) -> None:
        """The request is whole: a rollout counts it as open from now on."""
        observer = self._traffic.observer
        if observer is not None and self._observed_at is not None and self._waiting is None:
            self._waiting_since = monotonic()
            self._waiting = observer.began(self._choice, self._entry, self._waiting_since)

    def _wait_is_over(self) -> None:
        if self._waiting is not None:
            self._waiting.ended(self._waiting_since)
            self._waiting = None

    def _end(self) -> None:
        self.ended = True
        if self._waiting is not None:
            self._wait_is_over()
        if self._recovery is not None:
            self._recovery.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._client.exchange_ended()
