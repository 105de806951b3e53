"""Which requests may be sent again, after which failures."""

from __future__ import annotations

import random

import pytest

from router.choosing.retry import (
    LONGEST_WAIT_S,
    MAX_WAITING,
    Admission,
    RequestKind,
    admission,
    backoff_s,
    may_repeat,
    wait_s,
    within_budget,
)
from router.routing.policies import RetryPolicy
from router.wire.failure import NOTHING_RAN, Failure

USUAL = RetryPolicy()


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("kind", list(RequestKind))
def test_what_may_be_repeated(kind: RequestKind, failure: Failure) -> None:
    allowed = may_repeat(kind, failure, USUAL)
    if failure in (Failure.TIMEOUT, Failure.SILENT):
        assert not allowed
    elif failure in NOTHING_RAN or kind is RequestKind.SAFE:
        assert allowed
    elif kind is RequestKind.SYNC_RUN:
        assert allowed == (failure in (Failure.RESET, Failure.STALE))
    else:
        assert not allowed


def test_sync_runs_are_not_repeated_where_that_is_turned_off() -> None:
    policy = RetryPolicy(retry_sync=False)
    assert not may_repeat(RequestKind.SYNC_RUN, Failure.RESET, policy)
    assert may_repeat(RequestKind.SYNC_RUN, Failure.CONNECT, policy)


@pytest.mark.parametrize(
    ("active", "retries", "allowed"), [(1, 2, True), (1, 3, False), (100, 19, True), (100, 20, False)]
)
def test_the_budget_is_a_share_and_never_below_three(active: int, retries: int, allowed: bool) -> None:
    assert within_budget(USUAL, active_requests=active, active_retries=retries) is allowed


def test_the_backoff_is_jittered_and_bounded() -> None:
    rng = random.Random(1)
    for retry in range(1, 12):
        draws = [backoff_s(retry, rng) for _ in range(200)]
        bound = min(1.0, 0.025 * 2 ** (retry - 1))
        assert 0 <= min(draws) < bound / 4
        assert bound * 3 / 4 < max(draws) <= bound


def admitted(
    kind: RequestKind = RequestKind.UNSAFE,
    failure: Failure = Failure.CONNECT,
    *,
    active: int = 20,
    retries: int = 4,
    waiting: int = 1,
    waited_s: float = 0.0,
) -> Admission:
    return admission(
        USUAL,
        kind,
        failure,
        active_requests=active,
        active_retries=retries,
        waiting=waiting,
        waited_s=waited_s,
    )


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("kind", list(RequestKind))
def test_without_room_only_what_surely_did_nothing_waits(kind: RequestKind, failure: Failure) -> None:
    patient = failure in NOTHING_RAN or kind is RequestKind.SAFE
    assert admitted(kind, failure) is (Admission.LATER if patient else Admission.NEVER)
    assert admitted(kind, failure, retries=3) is Admission.NOW


def test_waiting_is_bounded_in_time_and_number() -> None:
    assert admitted(waited_s=USUAL.patience_s - 0.01) is Admission.LATER
    assert admitted(waited_s=USUAL.patience_s) is Admission.NEVER
    assert admitted(waited_s=USUAL.patience_s, retries=3) is Admission.NOW
    assert admitted(waiting=MAX_WAITING) is Admission.LATER
    assert admitted(waiting=MAX_WAITING + 1) is Admission.NEVER


def test_looks_for_room_are_jittered_never_at_once_and_bounded() -> None:
    rng = random.Random(1)
    for looks in range(1, 40):
        draws = [wait_s(looks, rng) for _ in range(200)]
        assert 0 < min(draws) < max(draws) <= LONGEST_WAIT_S
