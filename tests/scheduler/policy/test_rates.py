"""Token buckets: no account exceeds its rate, a refusal says when to come back, an idle account takes no memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.policy.rates import REMEMBERED, Rate, Rates


def test_a_burst_passes_and_then_one_for_each_step() -> None:
    rates = Rates(Rate(10, 3))
    assert [rates.take("a", 100.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.1])
    assert rates.refused == 2
    assert rates.take("a", 100.05) == pytest.approx(0.05)
    assert rates.take("a", 100.1001) == 0, "the time that it said"
    assert rates.take("a", 100.1001) > 0


def test_a_rest_fills_the_bucket_and_no_more_than_that() -> None:
    rates = Rates(Rate(10, 3))
    while not rates.take("a", 0.0):
        pass
    assert [rates.take("a", 3600.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_accounts_do_not_pay_for_each_other_and_may_have_rates_of_their_own() -> None:
    rates = Rates(Rate(10, 1), {"fast": Rate(1000, 2), "slow": Rate(1, 1)}.get, 1.0)
    assert (rates.rate_of("other"), rates.rate_of("fast")) == pytest.approx((10, 1000))
    for account in ("other", "fast", "fast", "slow"):
        assert rates.take(account, 0.0) == 0
    waits = [rates.take(account, 0.0) for account in ("other", "fast", "slow")]
    assert waits == pytest.approx([0.1, 0.001, 1.0])


def test_without_a_rate_nothing_is_refused_or_remembered() -> None:
    rates = Rates(None, {"slow": Rate(1, 1)}.get, 1.0)
    assert not any(rates.take("a", 0.0) for _ in range(1000))
    assert rates.rate_of("a") is None
    assert rates.remembered == 0
    assert not rates.take("slow", 0.0)
    assert rates.take("slow", 0.0)


def test_idle_accounts_are_forgotten_and_their_number_is_bounded() -> None:
    rates = Rates(Rate(10, 3))
    for number in range(REMEMBERED // 2):
        assert not rates.take(f"a{number}", 0.0)
    assert rates.remembered == REMEMBERED // 2
    for now in (10.0, 20.0):
        rates.take("b", now)
    assert rates.remembered <= 2, "all buckets but b's are full"
    for number in range(5 * REMEMBERED):
        assert not rates.take(f"c{number}", 20.0)
    assert rates.remembered <= 2 * REMEMBERED


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2)), max_size=60),
    st.floats(0.5, 20),
    st.integers(1, 5),
)
def test_it_decides_as_buckets_that_are_never_forgotten(
    arrivals: list[tuple[str, float]], per_s: float, burst: int
) -> None:
    rates = Rates(Rate(per_s, burst))
    tokens, now, at = {"a": float(burst), "b": float(burst)}, 0.0, {"a": 0.0, "b": 0.0}
    for account, pause_s in arrivals:
        now += pause_s
        tokens[account] = min(burst, tokens[account] + (now - at[account]) * per_s)
        at[account] = now
        wait_s = rates.take(account, now)
        assert wait_s == pytest.approx(max(0.0, (1.0 - tokens[account]) / per_s), abs=1e-6)
        if not wait_s:
            tokens[account] -= 1.0
