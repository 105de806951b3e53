"""Decides whether a request may be sent again. Pure."""

from __future__ import annotations

import enum
import random
from typing import Final

from router.backoff import Backoff
from router.routing.policies import RetryPolicy
from router.wire.failure import NOTHING_RAN, TOO_LATE, Failure

_AGAIN: Final = Backoff(0.025, 1.0)
MIN_CONCURRENT_RETRIES: Final = 3
MAX_WAITING: Final = 2048
"""Most retries of a process that may wait for room in the budget at the same time."""
SHORTEST_WAIT_S: Final = 0.001
LONGEST_WAIT_S: Final = 0.25
"""Longest wait between two looks for room in the budget, in seconds."""


class RequestKind(enum.Enum):
    """The effect of a repetition.

    SAFE: reads, and calls that change nothing twice (cancel). SYNC_RUN: a stateless task without network,
    which may run twice. UNSAFE: everything else, async runs above all: at most once.
    """

    SAFE = enum.auto()
    SYNC_RUN = enum.auto()
    UNSAFE = enum.auto()


def may_repeat(kind: RequestKind, failure: Failure, policy: RetryPolicy) -> bool:
    """Return True if the request may be sent again at all, attempts and budget aside."""
    if failure in TOO_LATE:
        return False
    if failure in NOTHING_RAN:
        return True
    if kind is RequestKind.SAFE:
        return True
    if kind is RequestKind.SYNC_RUN and policy.retry_sync:
        return failure in (Failure.STALE, Failure.RESET)
    return False


def within_budget(policy: RetryPolicy, *, active_requests: int, active_retries: int) -> bool:
    """Return True if a retry fits into the budget: a share of the requests in flight, and always a few."""
    return active_retries < max(MIN_CONCURRENT_RETRIES, int(policy.budget * active_requests))


class Admission(enum.Enum):
    """The verdict on a retry whose time has come."""

    NOW = enum.auto()
    LATER = enum.auto()
    """There is no room in the budget: look again."""
    NEVER = enum.auto()


def admission(
    policy: RetryPolicy,
    kind: RequestKind,
    failure: Failure,
    *,
    active_requests: int,
    active_retries: int,
    waiting: int,
    waited_s: float,
) -> Admission:
    """Decide whether a retry may begin. `active_requests` leaves out the `waiting` ones.

    When one of two sets ends, half of all requests need a retry at the same moment. That is more than the budget, which
    protects overloaded sets from more load. These retries can wait: if surely nothing ran, or a read was lost, they
    wait for room in the budget, which still bounds how many are tried at once.
    """
    if within_budget(policy, active_requests=active_requests, active_retries=active_retries):
        return Admission.NOW
    harmless = failure in NOTHING_RAN or kind is RequestKind.SAFE
    may_wait = harmless and waited_s < policy.patience_s and waiting <= MAX_WAITING
    return Admission.LATER if may_wait else Admission.NEVER


def wait_s(looks: int, rng: random.Random) -> float:
    """How long until the next look for room in the budget; `looks` counts from 1."""
    return min(LONGEST_WAIT_S, SHORTEST_WAIT_S + backoff_s(min(looks + 1, 8), rng))


def backoff_s(retry: int, rng: random.Random) -> float:
    """Full jitter: uniform up to 25 ms × 2^(retry - 1), at most 1 s. `retry` counts from 1."""
    return rng.uniform(0.0, _AGAIN.after(retry))
