"""Rounds of `kill -9` over a real store with slots in memory: each accepted task has one outcome and one bill."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.task import State, Task, TaskSpec
from tests.cluster.books import faults_of, summary
from tests.conftest import ROOT
from tests.crash.simulated import judge, read, stdin_of

ROUNDS = 30
FAULTY_ROUNDS = 10


@pytest.mark.timeout(1800)
def test_books_are_right_after_thirty_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (sys.executable, "-m", "tests.crash.simulated", str(tmp_path), "1", str(ROUNDS))
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    books = read(tmp_path)
    found = summary(books)
    with capsys.disabled():
        print(f"\n{ROUNDS} simulated rounds: {found}")
    assert faults_of(books) == []
    assert found["succeeded"] > 0
    assert "the set was restarted" in (tmp_path / "log").read_text(), "no attempt was lost"


@pytest.mark.timeout(1800)
def test_books_are_right_where_the_store_and_the_launcher_fail_at_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = str(random.randrange(2**32))
    words = (sys.executable, "-m", "tests.crash.simulated", str(tmp_path), seed, str(FAULTY_ROUNDS), "0.1")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    books = read(tmp_path)
    found = summary(books)
    with capsys.disabled():
        print(f"\n{FAULTY_ROUNDS} simulated rounds with faults, seed {seed}: {found}")
    assert (seed, faults_of(books)) == (seed, [])
    assert found["succeeded"] > 0
    assert "the store fails" in (tmp_path / "log").read_text()


def test_an_output_shows_whose_it_is_and_what_its_attempt_used() -> None:
    spec = TaskSpec("acme", "cat:1", "sha256:" + "c" * 64, name="m1")
    task = Task("t-1", spec, 0, state=State.SUCCEEDED, cpu_us=1234)
    assert judge("m1", task, b"1234 " + stdin_of("m1")) == (1234, "")
    assert judge("m1", task, b"1234 " + stdin_of("m2"))[1] == "its input was another one"
    assert judge("m1", task, b"99 " + stdin_of("m1"))[1] == "its attempt used 99 us, and it is billed 1234 us"
    assert judge("m1", task, b"")[1] == "what came (0 bytes) is no output"
