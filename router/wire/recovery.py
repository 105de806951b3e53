"""One request whose attempt failed: may it be sent again, where to, and what its client is told if not.

Made at the first failure, so that requests that go well pay nothing for it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from router.choice import Choice
from router.request import Purpose
from router.retry import NOTHING_RAN, Failure, backoff_s, may_repeat, within_budget
from router.table import SetEntry, Table
from router.traffic import Traffic

from .problems import Problem
from .request_head import RequestHead

_rng = random.SystemRandom()  # Forked workers would share any other one's numbers.


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """`fresh`: on a new connection, at once; else after `delay_s`."""

    entry: SetEntry
    delay_s: float = 0.0
    fresh: bool = False


class Recovery:
    """What is known of a request's failed attempts. `may_have_run`: one of them failed after which an
    algorithm may have run. `table` is the one by which `choice` was made."""

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
        """What the last one failed for."""
        self._tried: frozenset[str] = frozenset()
        self._stale_used = False
        self._counted = False
        self.may_have_run = False

    def next_attempt(self, entry: SetEntry, failure: Failure, *, reused: bool) -> NextAttempt | None:
        """What to do after a failure at a set, on a connection that was `reused` or new; None: no more."""
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
            # The connection was old, the set is not at fault: the same set, a new connection, at once.
            self._stale_used = True
            return NextAttempt(entry, fresh=True)
        if self.attempts >= policy.attempts:
            return None
        now = traffic.loop.time()
        if failure is Failure.BACK_PRESSURE and now - self._started_at > traffic.patience_s(
            self._purpose, self._head.query
        ):
            return None
        if not within_budget(policy, active_requests=traffic.active, active_retries=traffic.active_retries):
            traffic.retries_over_budget += 1
            return None
        self._tried |= {entry.name}
        other = self._other(entry, failure, now)
        if other is None or other.name not in traffic.pools:
            return None
        delay_s = backoff_s(self.attempts, _rng)
        self.attempts += 1
        if not self._counted:
            self._counted = True
            traffic.active_retries += 1
        traffic.stats[other.name].retries += 1
        return NextAttempt(other, delay_s)

    def _other(self, entry: SetEntry, failure: Failure, now: float) -> SetEntry | None:
        traffic = self._traffic
        other = traffic.chooser.another(self._choice, self._tried, now)
        if other is None and self._table is not traffic.table:
            other = self.chosen_anew()
        if other is None:
            return entry if failure is Failure.CONNECT else None
        if other.name == entry.name and failure is Failure.BACK_PRESSURE:
            return None
        return other

    def chosen_anew(self) -> SetEntry | None:
        """A set by the table that is in force now, unless it was tried."""
        self._choice = self._traffic.choose(self._head, self._client, self._purpose)
        entry = self._choice.entry
        return None if entry is None or entry.name in self._tried else entry

    def note(self, failure: Failure) -> None:
        """Another attempt failed."""
        self.reason = failure.name.lower()
        if failure not in NOTHING_RAN:
            self.may_have_run = True

    def problem(self, entry: SetEntry, failure: Failure, detail: str) -> Problem:
        """What the client is told when the last attempt failed at a set."""
        name = entry.name
        # Reading runs no algorithm.
        executed = self.may_have_run and self._head.method not in (b"GET", b"HEAD", b"OPTIONS")
        if failure is Failure.TIMEOUT:
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
        """The request is over: it is no longer a retry in work."""
        if self._counted:
            self._counted = False
            self._traffic.active_retries -= 1
