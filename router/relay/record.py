"""Reports one request to the access log and to a rollout's observer."""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

from router.choosing.choice import Choice
from router.counting.observer import Observer
from router.counting.open_requests import OpenRequest
from router.dialects.contract import Dialect
from router.relay.access_log import AccessLog
from router.routing.table import SetEntry
from router.wire.answer_head import AnswerHead
from router.wire.failure import Failure
from router.wire.problems import Problem
from router.wire.request_head import RequestHead

CLIENT_LEFT: Final = "the client left"


class Listeners(Protocol):
    """The listeners to requests, each None if absent, and the dialect that tells how an answer counts."""

    dialect: Dialect

    access: AccessLog | None
    observer: Observer | None


class Record:
    """Made only for requests that begin while somebody listens. Times are those of `time.monotonic`, finer than the
    loop's milliseconds."""

    # Defaults in the class: most records are made, asked once, and forgotten.
    _headed_at = 0.0
    _bytes_in = 0
    _bytes_out = 0
    open: OpenRequest | None = None
    """The request in a rollout's count of those without an answer, while it is one of them."""
    slow_upload = False
    """It took too long because its body did not end: that says nothing about a set."""

    def __init__(self, listeners: Listeners, head: RequestHead, choice: Choice) -> None:
        self._listeners = listeners
        self._head = head
        self._choice = choice
        self._began = self._tried_at = monotonic()

    def sent(self, count: int) -> None:
        """Count bytes of the request's body that went to a set, or wait to."""
        self._bytes_in += count

    def whole(self, entry: SetEntry) -> None:
        """The request has arrived completely: a rollout counts it as open from now on."""
        observer = self._listeners.observer
        if observer is not None and self.open is None:
            self.open = observer.began(self._choice, entry, monotonic())

    def ended(self) -> None:
        """The request no longer waits for an answer."""
        if self.open is not None:
            self.open.end()
            self.open = None

    def tried_again(self, *, elsewhere: bool) -> None:
        """Another attempt begins; `elsewhere`: at another set."""
        if elsewhere:
            self.ended()
        self._bytes_out = 0
        self._headed_at = 0.0
        self._tried_at = monotonic()

    def headed(self) -> None:
        """The answer's head came."""
        if self.open is not None:
            self.ended()
        self._headed_at = monotonic()

    def relayed(self, count: int) -> None:
        """Bytes of the answer's body came."""
        self._bytes_out += count

    def failed(self, entry: SetEntry, failure: Failure) -> None:
        """An attempt ended without a whole answer."""
        observer = self._listeners.observer
        if observer is not None and not self.slow_upload:
            observer.failed(self._choice, entry, failure, monotonic() - self._began)

    def client_left(self, entry: SetEntry, *, unanswered: bool) -> None:
        """The client went away; `unanswered`: before it got anything."""
        observer = self._listeners.observer
        if observer is not None:
            observer.client_left(self._choice, entry, monotonic() - self._began, unanswered=unanswered)

    def answered(self, entry: SetEntry, answer: AnswerHead) -> None:
        """The answer was relayed whole."""
        observer = self._listeners.observer
        if observer is None:
            return
        answered = self._listeners.dialect.outcome_of(answer)
        if answered is not None:
            observer.answered(self._choice, entry, answered, monotonic() - self._began)

    def log(
        self,
        client: bytes,
        status: int,
        entry: SetEntry,
        attempts: int,
        problem: Problem | None,
        reason: str,
        task_id: bytes,
        last_failure: str,
    ) -> None:
        """Write the line of the access log. `reason`: why it did not go well; if it did, the `last_failure` of an
        earlier attempt is written there."""
        access = self._listeners.access
        if access is None:
            return
        error = status >= 500 or problem is not None or (reason != "" and reason is not CLIENT_LEFT)
        if (error or not access.everything) and not access.wants(error=error):
            return
        observer = self._listeners.observer
        headed = self._headed_at
        access.note(
            self._head,
            client,
            status,
            self._began,
            (headed - self._tried_at) * 1e6 if headed else 0,
            self._bytes_in,
            self._bytes_out,
            self._choice,
            entry.name,
            attempts,
            "" if observer is None else observer.cohort(self._choice),
            reason or last_failure if problem is None else f"{problem.name}: {problem.detail}",
            None if problem is None else problem.executed,
            task_id,
        )
