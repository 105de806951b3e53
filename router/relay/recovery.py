"""Decides about a request whose attempt failed: whether it may be sent again, where to, and what its client is told if
not.

Made at the first failure, so that requests that go well pay nothing for it.
"""

from __future__ import annotations

import random

import msgspec

from router.choosing.choice import Choice
from router.choosing.request import Purpose
from router.choosing.retry import (
    Admission,
    RequestKind,
    backoff_s,
    may_repeat,
    wait_s,
)
from router.relay.traffic import Traffic
from router.routing.table import SetEntry, Table
from router.wire.failure import NOTHING_RAN, TOO_LATE, Failure
from router.wire.problems import Problem
from router.wire.request_head import RequestHead

_rng = random.SystemRandom()  # A generator of our own would give the same numbers in every forked worker.


class NextAttempt(msgspec.Struct, frozen=True):
    """Another attempt. `fresh`: at once, on a new connection. Otherwise ask `Recovery.turn` after `delay_s`, or begin
    now if that is 0."""

    entry: SetEntry
    delay_s: float = 0.0
    fresh: bool = False


class Recovery:
    """The failed attempts of a request. `may_have_run`: after one of them an algorithm may have run. `table` is the one
    by which `choice` was made."""

    def __init__(
        self,
        traffic: Traffic,
        table: Table,
        head: RequestHead,
        purpose: Purpose,
        choice: Choice,
        client: bytes,
        started_at: float,
    ) -> None:
        self._traffic = traffic
        self._table = table
        self._head = head
        self._purpose = purpose
        self._choice = choice
        self._client = client
        self._started_at = started_at
        self.attempts = 1
        self.reason = ""
        """Reason of the last failure."""
        self._tried: frozenset[str] = frozenset()
        self._stale_used = False
        self._counted = False
        self._waiting = False
        self._waiting_since = 0.0
        self._looks = 0
        self._next: SetEntry | None = None
        self.failure = Failure.CONNECT
        self.detail = ""
        """Details of the last failure."""
        self.may_have_run = False

    def next_attempt(self, entry: SetEntry, failure: Failure, *, reused: bool) -> NextAttempt | None:
        """Choose the next attempt after a failure at a set; None: there will be none. `reused`: the failure came on a
        kept connection."""
        traffic = self._traffic
        policy = traffic.table.retry
        if not may_repeat(self._purpose.kind, failure, policy):
            return None
        if (
            reused
            and not self._stale_used
            and entry.name in traffic.pools
            and failure in (Failure.STALE, Failure.SEND)
        ):
            # The connection was old and the set is not at fault: try the same set at once, on a new connection.
            self._stale_used = True
            return NextAttempt(entry, fresh=True)
        if self.attempts >= policy.attempts:
            return None
        now = traffic.loop.time()
        if failure is Failure.BACK_PRESSURE and now - self._started_at > traffic.patience_s(
            self._purpose, self._head
        ):
            return None
        self._tried |= {entry.name}
        other = self._other(entry, failure, now)
        if other is None or other.name not in traffic.pools:
            return None
        self._uncount()
        self._waiting = True
        self._waiting_since = now
        self._looks = 0
        traffic.retries.begin_waiting()
        self._next = other
        if self._admission() is Admission.NEVER:
            self._uncount()
            traffic.retries.refuse()
            return None
        return NextAttempt(other, backoff_s(self.attempts, _rng))

    def turn(self) -> NextAttempt | None:
        """The time of a retry has come. Returns how to begin it now, or when to look again (`delay_s`); None: give
        up."""
        traffic = self._traffic
        verdict = self._admission()
        if verdict is Admission.LATER:
            assert self._next is not None
            self._looks += 1
            return NextAttempt(self._next, wait_s(self._looks, _rng))
        self._uncount()
        if verdict is Admission.NEVER:
            traffic.retries.refuse()
            return None
        entry = self._where_now()
        if entry is None:
            return None
        self.attempts += 1
        self._counted = True
        traffic.retries.begin()
        traffic.stats[entry.name].note_retry()
        return NextAttempt(entry)

    def _admission(self) -> Admission:
        traffic = self._traffic
        waited_s = traffic.loop.time() - self._waiting_since
        return traffic.retries.admission(traffic.table.retry, self._purpose.kind, self.failure, waited_s)

    def _where_now(self) -> SetEntry | None:
        """Return the set that was chosen when the retry began to wait, unless it has gone away since."""
        traffic = self._traffic
        entry = self._next
        if entry is None or entry.name not in traffic.pools:
            # The set has left the configuration since: choose by the new table.
            entry = self.chosen_again()
            if entry is None:
                self.failure, self.detail = Failure.CONNECT, "it left the configuration"
            return entry
        now = traffic.loop.time()
        if not traffic.board.of(entry.name).well(now):
            return self._another(now) or entry
        return entry

    def _other(self, entry: SetEntry, failure: Failure, now: float) -> SetEntry | None:
        traffic = self._traffic
        other = self._another(now)
        if other is None and self._table is not traffic.table:
            other = self.chosen_again()
        if other is None:
            return entry if failure in (Failure.CONNECT, Failure.NO_ROOM) else None
        if other.name == entry.name and failure is Failure.BACK_PRESSURE:
            return None
        return other

    def _another(self, now: float) -> SetEntry | None:
        needs_room = self._purpose.kind is not RequestKind.SAFE
        return self._traffic.chooser.another(self._choice, self._tried, now, needs_room=needs_room)

    def chosen_again(self) -> SetEntry | None:
        """Return a set by the table in force now that was not tried yet."""
        self._choice = self._traffic.choose(self._head, self._client, self._purpose)
        entry = self._choice.entry
        return None if entry is None or entry.name in self._tried else entry

    def note(self, failure: Failure, detail: str) -> None:
        """Another attempt failed."""
        self.failure = failure
        self.detail = detail
        self.reason = failure.name.lower()
        if failure not in NOTHING_RAN:
            self.may_have_run = True

    def problem(self, entry: SetEntry, failure: Failure, detail: str) -> Problem:
        """Return the answer for the client after the last attempt failed at a set."""
        name = entry.name
        # Reading runs no algorithm.
        executed = self.may_have_run and self._head.method not in (b"GET", b"HEAD", b"OPTIONS")
        if failure in TOO_LATE:
            return Problem(
                504,
                "answer-timeout",
                "The set did not answer in time",
                f"set {name!r}: {detail}",
                executed=executed,
            )
        if not self.may_have_run:
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

    def end(self) -> None:
        """The request is over: it no longer counts as a retry that runs or waits."""
        self._uncount()

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self._traffic.retries.end()
        if self._waiting:
            self._waiting = False
            self._traffic.retries.end_waiting()
