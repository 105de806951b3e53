"""Contract of a dialect: the facts about an API that the data plane needs. Pure.

A router relays what clients and sets say to each other unread. A dialect tells the few things that it must understand:
where a request goes, how a set's answer counts, and how the router's own answers look. `native.py` is the only one so
far.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from router.choosing.request import Purpose
from router.counting.tally import Answered
from router.routing.rules import Facts
from router.wire.answer_head import AnswerHead
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead


class Ask(NamedTuple):
    """A request that the router itself makes of a set: its target, and header lines beside Host."""

    target: bytes
    lines: tuple[bytes, ...] = ()


class Refused(Enum):
    """A set's word that it did not take a request, so that another set may. DRAINS: it takes no further ones either."""

    FULL = "full"
    DRAINS = "drains"


class BadQuery(Exception):
    """A list was asked for in a way that the router cannot read; `problem` is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Merging(Protocol):
    """One request for a list that all sets answer together."""

    content_type: str

    def target(self, set_name: str) -> bytes:
        """The request for one set, with that set's own cursor."""

    def merge(self, bodies: Mapping[str, bytes], missing: Mapping[str, str]) -> bytes:
        """One body of several, by set name.

        `missing`: the sets whose body is not there, and why. May run beside the event loop. Raises
        `merging.Unreadable`.
        """


class Dialect(Protocol):
    """One API. Each method is a function of its arguments alone."""

    not_relayed: Problem
    """The answer to a request whose destination is NOWHERE."""

    def purpose_of(self, head: RequestHead) -> Purpose:
        """Where a request goes and what its repetition would mean; for a task's own requests, the set that owns it."""

    def facts_of(self, head: RequestHead, client: bytes) -> Facts:
        """The facts that rules and sticky keys may look at, read when asked for. `client`: the client's address."""

    def account_of(self, head: RequestHead) -> str:
        """The account that a request speaks for, as readable from it; the set alone checks the secret."""

    def task_named(self, head: RequestHead) -> bytes:
        """The task that a request is about, as its path spells it; empty where it names none."""

    def idempotency_key(self, head: RequestHead) -> bytes | None: ...

    def queue_timeout_s(self, head: RequestHead) -> float:
        """How long the caller lets a run wait for a slot."""

    def key_inquiry(self, head: RequestHead) -> Ask:
        """The question whether a set knows the request's idempotency key; a set that does answers 200."""

    def merging(self, head: RequestHead) -> Merging:
        """How the list that a request of destination MERGED asks for is made. Raises `BadQuery`."""

    def page(self, head: RequestHead) -> OwnAnswer:
        """The router's own answer to a request of destination PAGE."""

    def task_of(self, answer: AnswerHead) -> bytes:
        """The id of the task that a set's answer is about; empty where it names none."""

    def outcome_of(self, answer: AnswerHead) -> Answered | None:
        """How an answer that was relayed whole counts in a rollout; None: not at all."""

    def may_refuse(self, answer: AnswerHead) -> bool:
        """Return True if the body of an answer may hold a refusal, so that a short one is worth reading before it is
        relayed."""

    def refusal_of(self, body: bytes | bytearray) -> Refused | None:
        """The refusal that such a body holds; None: it does not say that nothing ran."""

    def error(self, problem: Problem, head: RequestHead | None) -> OwnAnswer:
        """The answer that tells a client of a problem. `head` is None where no head could be read."""
