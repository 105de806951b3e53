"""The simulated crowd: real links to played nodes, and every slot runs a task before it is idle."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.bench.cluster import crowd
from ops.bench.crowd import decision_us, measure


@pytest.mark.timeout(300)
def test_a_small_crowd_is_measured_to_its_end(tmp_path: Path) -> None:
    found = measure(tmp_path, 3, 4)
    assert (found["links"], found["slots"]) == (3, 12)
    assert 0 < found["now_mib"] <= found["peak_mib"] < 300


def test_a_decision_is_timed() -> None:
    assert 0 < decision_us(2, 3) < 10_000


@pytest.mark.timeout(300)
def test_the_rows_name_their_targets() -> None:
    memory, decision = crowd(2, 2)
    assert memory.target == "≤ 300 MiB"
    assert decision.text.endswith("µs")
