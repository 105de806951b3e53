"""What the reports say of one and of several: `1 pause`, `2 pauses`."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ops.cli import report, router_plan

PLAN: dict[str, Any] = {
    "set": "b",
    "stable": ["a"],
    "refused": None,
    "dry_run": False,
    "returning": False,
    "lowers": None,
    "steps": [],
    "about_s": 600,
    "requests_per_s": 3.0,
    "on_no_data": "hold",
    "checks": [
        {
            "name": "errors",
            "unit": "points",
            "threshold": 1.0,
            "aborts": True,
            "fails_after": 1,
            "proves_after": 2,
        }
    ],
}


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, ["about 10 min; at"]), (1, ["1 pause", "1 gate"]), (2, ["2 pauses", "2 gates"])],
)
def test_a_plan_counts_its_pauses_and_gates(count: int, words: list[str]) -> None:
    document = PLAN | {"pauses": count, "gates": count, "min_requests": count or 1}
    told = "\n".join(router_plan.lines(document))
    for word in words:
        assert re.search(rf"\b{word}\b", told)
    assert not re.search(r"\b1 (pauses|gates|requests)\b", told)
    assert "after 1 request a side" in told


def test_a_plan_with_too_few_requests_for_a_step_gives_no_total() -> None:
    document = PLAN | {"pauses": 1, "gates": 0, "min_requests": 100, "about_s": None}
    told = "\n".join(router_plan.lines(document))
    assert "it would not get through all steps by itself: there are too few requests" in told
    assert "about" not in told


def test_a_number_and_its_noun() -> None:
    assert [report.counted(number, "byte") for number in (0, 1, 2)] == ["0 bytes", "1 byte", "2 bytes"]
