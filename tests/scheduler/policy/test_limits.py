"""Limits that make no sense are refused where they are made."""

from __future__ import annotations

import pytest

from scheduler.policy.limits import Limits


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_below_one_is_refused(weight: int) -> None:
    with pytest.raises(ValueError, match="the weight of acme is"):
        Limits(account_weights={"acme": weight})
