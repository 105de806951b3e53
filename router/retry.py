"""May a request be sent once more? Pure: what happened and what is asked in, yes or no out."""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

FIRST_BACKOFF_S = 0.025
MIN_CONCURRENT_RETRIES = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` counts the first one. `budget` is a share (0.2) of the requests in flight that may be
    retries."""

    attempts: int = 2
    budget: float = 0.2
    replay_body_max_bytes: int = 64 * 1024
    retry_sync: bool = True


class RequestKind(enum.Enum):
    """What a repetition of the request would mean.

    SAFE: reads, and calls that change nothing twice (cancel). SYNC_RUN: a stateless task without network,
    which may run twice. UNSAFE: everything else, async runs above all: at most once.
    """

    SAFE = enum.auto()
    SYNC_RUN = enum.auto()
    UNSAFE = enum.auto()


class Failure(enum.Enum):
    """How an attempt ended without an answer that could be relayed."""

    CONNECT = enum.auto()
    """No connection: nothing was sent."""
    SEND = enum.auto()
    """The connection broke before the request was sent whole: the set cannot have taken it."""
    STALE = enum.auto()
    """A kept connection ended before the answer's first byte: most likely it was closed while idle."""
    RESET = enum.auto()
    """The connection ended after the request was sent whole and before the answer's first byte."""
    BACK_PRESSURE = enum.auto()
    """The set answered 503 with `executed: false`: full, draining or starting."""
    BAD_ANSWER = enum.auto()
    """What came was no HTTP answer."""
    TIMEOUT = enum.auto()
    """No answer's first byte in time: it may still be at work."""


NOTHING_RAN = frozenset({Failure.CONNECT, Failure.SEND, Failure.BACK_PRESSURE})
"""Failures after which surely no algorithm ran: the problem then says `executed: false`."""


def may_repeat(kind: RequestKind, failure: Failure, policy: RetryPolicy) -> bool:
    """Whether the request may be sent again at all, attempts and budget aside."""
    if failure is Failure.TIMEOUT:
        return False
    if failure in NOTHING_RAN:
        return True
    if kind is RequestKind.SAFE:
        return True
    if kind is RequestKind.SYNC_RUN and policy.retry_sync:
        return failure in (Failure.STALE, Failure.RESET)
    return False


def within_budget(policy: RetryPolicy, *, active_requests: int, active_retries: int) -> bool:
    """Retries in flight stay below a share of all requests in flight, yet a few are always allowed."""
    return active_retries < max(MIN_CONCURRENT_RETRIES, int(policy.budget * active_requests))


def backoff_s(retry: int, rng: random.Random) -> float:
    """Full jitter: uniform up to 25 ms × 2^(retry - 1), at most 1 s. `retry` counts from 1."""
    return rng.uniform(0.0, min(1.0, FIRST_BACKOFF_S * 2 ** (retry - 1)))
