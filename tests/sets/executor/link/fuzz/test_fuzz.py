"""The fuzz targets of a link hold over inputs that hypothesis makes, and atheris can drive them."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzer import ROOT
from tests.sets.executor.link.fuzz import run
from tests.sets.executor.link.fuzz.targets import TARGETS

steps = st.lists(st.binary(min_size=4, max_size=4), min_size=5, max_size=40).map(b"".join)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_a_node_s_frames_in_any_order_break_no_promise(data: bytes) -> None:
    TARGETS["set_end"](data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_a_set_s_frames_in_any_order_break_no_promise(data: bytes) -> None:
    TARGETS["executor_end"](data)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_break_no_promise(data: bytes) -> None:
    TARGETS["raw"](data)


def test_the_names_are_the_targets() -> None:
    assert set(run.FUZZER.targets) == set(TARGETS)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this platform")
@pytest.mark.parametrize("name", run.FUZZER.targets)
def test_a_short_run_of_atheris_finds_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        run.FUZZER.command(name, tmp_path, "-runs=300"), cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
