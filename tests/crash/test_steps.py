"""A process dies at the step that it was told, and each step is a function that exists."""

from __future__ import annotations

import importlib
import inspect
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.clock import boot_s
from tests.conftest import ROOT
from tests.crash.steps import STEPS, Death

PROGRAM = """
import json, sys
from pathlib import Path
from scheduler.store.blobs import BlobStore
from tests.crash.steps import Death, arm

arm(Death(**json.loads(sys.argv[1])))
folder = Path(sys.argv[2])
blobs = BlobStore(folder, min_free_mib=0)
for name in ("1" * 32, "2" * 32, "3" * 32):
    blobs.create_unfinished(name).close()
    blobs.finish(name)
"""
"""Takes a step three times."""


@pytest.mark.parametrize(("before", "finished"), [(True, 1), (False, 2)])
def test_a_process_dies_at_the_second_time_before_or_after_the_step(
    tmp_path: Path, before: bool, finished: int
) -> None:
    death = Death("a large input becomes a blob", before, 2, str(tmp_path / "death"))
    blobs = tmp_path / "blobs"
    began_s = boot_s()
    words = [sys.executable, "-c", PROGRAM, death.words(), str(blobs)]
    done = subprocess.run(words, cwd=ROOT, start_new_session=True, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    died_at = death.died_at()
    assert died_at is not None
    assert began_s <= died_at <= boot_s()
    names = sorted(
        path.name[0] for path in blobs.rglob("*") if path.is_file() and path.parent.name != "unfinished"
    )
    assert names == ["1", "2"][:finished]


def test_a_process_that_takes_a_step_too_seldom_lives(tmp_path: Path) -> None:
    death = Death("a large input becomes a blob", True, 4, str(tmp_path / "death"))
    words = [sys.executable, "-c", PROGRAM, death.words(), str(tmp_path / "blobs")]
    done = subprocess.run(words, cwd=ROOT, start_new_session=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert death.died_at() is None


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_a_function_of_the_platform(step: str) -> None:
    module, _, place = STEPS[step].partition(":")
    owner, _, name = place.partition(".")
    assert inspect.isfunction(inspect.getattr_static(getattr(importlib.import_module(module), owner), name))
