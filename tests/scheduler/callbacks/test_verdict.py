"""What becomes of a callback after each try."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from scheduler.callback import Callback, CallbackState
from scheduler.callbacks.verdict import (
    FAILED_KEEP_US,
    MADE_KEEP_US,
    TRY_FOR_US,
    Answer,
    after_try,
    again,
    give_up,
)

T0_US = 1_800_000_000_000_000
S = 1_000_000
NEW = Callback("a-1", "acme", "https://example.com/", T0_US, T0_US, due_us=T0_US)


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_any_status_of_success_makes_it(status: int) -> None:
    made = after_try(NEW, Answer(status), T0_US + S)
    assert (made.state, made.tries, made.status, made.error) == (CallbackState.MADE, 1, status, None)
    assert (made.due_us, made.ended_us, made.expires_us) == (None, T0_US + S, T0_US + S + MADE_KEEP_US)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(500), "the receiver answered 500"),
        (Answer(404), "the receiver answered 404"),
        (Answer(302), "redirects are not followed"),
        (Answer(error="no answer came within 15 s"), "no answer came within 15 s"),
    ],
)
def test_it_is_tried_again_after_some_seconds(answer: Answer, said: str) -> None:
    tried = after_try(NEW, answer, T0_US)
    assert (tried.state, tried.tries, tried.last_us, tried.ended_us) == (
        CallbackState.WAITING,
        1,
        T0_US,
        None,
    )
    assert tried.due_us is not None
    assert 2.5 * S <= tried.due_us - T0_US <= 5 * S
    assert said in (tried.error or "")


def test_410_ends_it() -> None:
    failed = after_try(NEW, Answer(410), T0_US)
    assert (failed.state, failed.due_us, failed.expires_us) == (
        CallbackState.FAILED,
        None,
        T0_US + FAILED_KEEP_US,
    )
    assert "410" in (failed.error or "")


def test_pauses_grow_to_hours_and_it_is_given_up_after_three_days() -> None:
    callback, now_us = NEW, T0_US
    pauses = []
    while callback.state is CallbackState.WAITING:
        assert callback.due_us is not None
        pauses.append(callback.due_us - now_us)
        now_us = callback.due_us
        assert now_us <= T0_US + TRY_FOR_US
        callback = after_try(callback, Answer(500), now_us)
    assert callback.state is CallbackState.FAILED
    assert now_us > T0_US + TRY_FOR_US - 6 * 3600 * S, "it was tried until the end"
    assert 20 <= callback.tries <= 40
    assert max(pauses) <= 6 * 3600 * S
    for before, after in pairwise(pauses):
        assert after >= before / 2


def test_pauses_of_callbacks_that_fail_together_differ() -> None:
    dues = {
        after_try(replace(NEW, task_id=f"a-{number}"), Answer(500), T0_US).due_us for number in range(100)
    }
    assert len(dues) > 8


def test_a_busy_receiver_says_when_it_is_tried_again() -> None:
    for status in (429, 503):
        tried = after_try(NEW, Answer(status, retry_after_s=120), T0_US)
        assert tried.due_us == T0_US + 120 * S
    # Never for longer than the longest pause, and from no other status.
    assert after_try(NEW, Answer(503, retry_after_s=10**9), T0_US).due_us == T0_US + 6 * 3600 * S
    other = after_try(NEW, Answer(500, retry_after_s=120), T0_US)
    assert (other.due_us or 0) <= T0_US + 5 * S


def test_one_that_failed_is_tried_for_three_more_days() -> None:
    failed = give_up(replace(NEW, tries=25, error="the receiver answered 500"), T0_US + TRY_FOR_US)
    later_us = T0_US + TRY_FOR_US + 3600 * S
    waiting = again(failed, later_us)
    assert (waiting.state, waiting.tries, waiting.due_us) == (CallbackState.WAITING, 0, later_us)
    assert (waiting.ended_us, waiting.expires_us, waiting.created_us) == (None, None, T0_US)
    assert after_try(waiting, Answer(500), later_us).state is CallbackState.WAITING
