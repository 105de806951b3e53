"""Who may be sent again, after what."""

from __future__ import annotations

import random

import pytest

from router.retry import NOTHING_RAN, Failure, RequestKind, RetryPolicy, backoff_s, may_repeat, within_budget

USUAL = RetryPolicy()


@pytest.mark.parametrize("failure", list(Failure))
@pytest.mark.parametrize("kind", list(RequestKind))
def test_what_may_be_repeated(kind: RequestKind, failure: Failure) -> None:
    allowed = may_repeat(kind, failure, USUAL)
    if failure is Failure.TIMEOUT:
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
