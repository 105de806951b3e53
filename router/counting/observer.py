"""Turns the data plane's reports about requests into the tallies of the two cohorts. No I/O; some microseconds each.

A request counts for the set that is its *home*, whatever happened to it after: a canary whose failed requests are
retried elsewhere with success is no good canary, and one that is so unwell that the router no longer asks it must
not look as if it had no traffic. Only requests that the default weights placed count: rules pick their
requests, so theirs cannot be compared. What began before the last change of weights belongs to that time
and is left out.

The canary's requests are compared with all of the old sets' over the same period. As a hash of the sticky key chose
between them, the two differ in nothing but their set; and a control that is larger takes nothing away, but lets the
canary be judged by half as many requests as one of its own size would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, Protocol

from router.counting.open_requests import OpenRequest, OpenRequests
from router.counting.parts import ACCOUNTS, IMAGES, Parts
from router.counting.shares import Networks, Shares
from router.counting.tally import Answered, Ended, Outcome, Tally
from router.counting.witnesses import MOST, OPEN_FROM_S, Kind, Witness, Witnesses, witness
from router.routing.plan import PartName
from router.routing.table import Rule, SetEntry, Weights
from router.wire.failure import TOO_LATE, Failure

_NOT_THE_SET: Final = frozenset({Failure.STALE, Failure.BACK_PRESSURE, Failure.NO_ROOM})
_OK: Final = Outcome.OK


class Routed(Protocol):
    """The part of `choice.Choice` that is needed here."""

    entry: SetEntry | None
    home: SetEntry | None
    key: int
    weights: Weights | None
    rule: Rule | None
    head: Any
    """The request's head, with the `facts` that its choice looked at; None: nobody keeps it."""


class Observer:
    """Counts for one stint of one rollout in one process. `watch` begins a stint, `rest` ends it."""

    __slots__ = (
        "_accounts",
        "_canary",
        "_images",
        "_open",
        "_shares",
        "_weights",
        "_witnesses",
        "canary",
        "control",
        "stint",
    )

    def __init__(self) -> None:
        self._weights: Weights | None = None
        self._canary = ""
        self.stint = 0
        self._begin((PartName.IMAGE,), Networks())

    def _begin(self, by: Collection[PartName], shared: Networks) -> None:
        self.canary = Tally()
        self.control = Tally()
        self._shares = Shares(shared=shared), Shares(shared=shared)
        self._witnesses = Witnesses()
        self._open = self._nothing_open()
        self._images = (Parts(IMAGES), Parts(IMAGES)) if PartName.IMAGE in by else None
        self._accounts = (Parts(ACCOUNTS), Parts(ACCOUNTS)) if PartName.ACCOUNT in by else None

    @property
    def watching(self) -> bool:
        return self._weights is not None

    def watch(
        self,
        stint: int,
        canary: str,
        weights: Weights,
        by: Collection[PartName] = (PartName.IMAGE,),
        shared: Iterable[str] = (),
    ) -> None:
        """Count requests placed by `weights`, the default ones in force; from 0 if `stint` is another one. `by`: the
        parts that are also counted by themselves. `shared`: networks of addresses that stand for many clients."""
        if stint != self.stint:
            self.stint = stint
            self._begin(by, Networks(shared))
        elif weights is not self._weights:
            # Requests that other weights placed are not judged when they end, so they do not count while they are open.
            self._open = self._nothing_open()
        self._weights = weights
        self._canary = canary

    def _nothing_open(self) -> tuple[OpenRequests, OpenRequests]:
        canary, control = self._shares
        return OpenRequests(canary), OpenRequests(control)

    def rest(self) -> None:
        """Count nothing until told again."""
        self._weights = None

    def seen(self, now_s: float) -> tuple[Tally, Tally]:
        """Copies of canary's and control's tallies, with the requests that are open at `now_s`."""
        canary, control = self.canary.copy(), self.control.copy()
        canary.open, control.open = (each.ages(now_s) for each in self._open)
        canary.witnesses = (*self._witnesses.chosen(), *self._waiting(now_s))
        if self._images is not None:
            canary.images, control.images = (each.table() for each in self._images)
        if self._accounts is not None:
            canary.accounts, control.accounts = (each.table() for each in self._accounts)
        return canary, control

    def _waiting(self, now_s: float) -> list[Witness]:
        """The canary's requests that have waited longest."""
        return [
            witness(Kind.OPEN, each.caller.head, self._canary, "no answer yet", now_s - each.at_s)
            for each in self._open[0].oldest(MOST)
            if each.caller.head is not None and now_s - each.at_s >= OPEN_FROM_S
        ]

    def began(self, choice: Routed, entry: SetEntry, at_s: float) -> OpenRequest | None:
        """A request was sent whole to `entry` and waits for its answer since `at_s`. Tell what this returns when it
        ends; None: it is not compared."""
        home = choice.home
        if home is None or entry.name != home.name:
            return None
        tally = self._tally(choice)
        if tally is None:
            return None
        return self._open[0 if tally is self.canary else 1].began(at_s, choice)

    # What the data plane calls, once per event; `latency_s` since the request began.

    def answered(self, choice: Routed, entry: SetEntry, answer: Answered, latency_s: float) -> None:
        """The answer of `entry` was relayed whole."""
        home = choice.home
        if home is None or entry.name != home.name:
            return
        tally = self._counted(choice)
        if tally is None:
            return
        outcome = answer.outcome
        tally.note(outcome, latency_s * 1e6)
        if tally is self.canary:
            self._witness(choice, entry, outcome, str(answer.status), latency_s)
        if answer.cause is not None:
            tally.note_cause(answer.cause)
        if not answer.refused:
            self._part(choice, tally, outcome)

    def failed(self, choice: Routed, entry: SetEntry, failure: Failure, latency_s: float) -> None:
        """An attempt at `entry` ended without a whole answer (also: broken off half way), or with `executed: false`."""
        home = choice.home
        if home is None or entry.name != home.name:
            return
        shed = failure is Failure.BACK_PRESSURE
        if failure in _NOT_THE_SET and not shed:
            return
        tally = self._counted(choice)
        if tally is None:
            return
        if shed:
            tally.note(Outcome.SHED)
        else:
            # A hang until the time-out shows in the latencies too; a refusal, quick as it is, must not.
            tally.note(Outcome.ERROR, latency_s * 1e6 if failure in TOO_LATE else None)
            self._part(choice, tally, Outcome.ERROR)
            if tally is self.canary:
                self._witness(choice, entry, Outcome.ERROR, failure.name.lower().replace("_", " "), latency_s)

    def _witness(
        self, choice: Routed, entry: SetEntry, outcome: Outcome, status: str, latency_s: float
    ) -> None:
        """Remember a request of the canary that an operator may want to look at."""
        if choice.head is None:
            return
        if outcome is _OK:
            self._witnesses.note_slow(choice.head, entry.name, status, latency_s)
        else:
            kind = Kind.ERROR if outcome is Outcome.ERROR else Kind.TASK
            self._witnesses.note(kind, choice.head, entry.name, status, latency_s)

    def _part(self, choice: Routed, tally: Tally, outcome: Outcome) -> None:
        """Count a request among those of its image and its account."""
        if choice.head is None:
            return
        side = 0 if tally is self.canary else 1
        error, failed = outcome is Outcome.ERROR, outcome is Outcome.TASK_FAILED
        facts = choice.head.facts
        if self._images is not None and (image := facts.image) is not None:
            self._images[side].note(image, choice.key, error=error, failed=failed)
        if self._accounts is not None:
            self._accounts[side].note(facts.account, choice.key, error=error, failed=failed)

    def passed_over(self, choice: Routed, *, unwell: bool) -> None:
        """The home set was not asked at all: it is `unwell`, or has no room."""
        tally = self._counted(choice)
        if tally is not None:
            tally.note(Outcome.ERROR if unwell else Outcome.SHED)

    def client_left(
        self, choice: Routed, entry: SetEntry, latency_s: float, *, unanswered: bool = True
    ) -> None:
        """The client went away before the answer of `entry` was whole; `unanswered`: before it began."""
        if choice.home is None or entry.name != choice.home.name:
            return
        tally = self._counted(choice)
        if tally is not None:
            tally.note_client_left(latency_s * 1e6, unanswered=unanswered)

    def ended(self, canary: Ended, control: Ended) -> None:
        """Asynchronous tasks that ended at the canary, and at the old sets."""
        self.canary.note_ended(canary)
        self.control.note_ended(control)

    def cohort(self, choice: Routed) -> str:
        """The cohort that a request belongs to; empty: none."""
        tally = self._tally(choice)
        return "" if tally is None else "canary" if tally is self.canary else "control"

    def _counted(self, choice: Routed) -> Tally | None:
        """The tally of a request that ended; None too where its caller has had its share."""
        tally = self._tally(choice)
        if tally is None or self._shares[0 if tally is self.canary else 1].admit(choice):
            return tally
        tally.note_left_out()
        return None

    def _tally(self, choice: Routed) -> Tally | None:
        if self._weights is None or choice.weights is not self._weights:
            return None
        if choice.rule is not None or choice.home is None:
            return None
        return self.canary if choice.home.name == self._canary else self.control
