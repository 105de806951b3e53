"""model:1: a small network that loads Python, numpy and its weights before it reads its input."""

from __future__ import annotations

import pytest

from tests.images.conftest import Run

pytestmark = pytest.mark.docker


def test_the_three_highest_classes(run: Run) -> None:
    done = run("model:1", stdin=b" ".join(b"%d" % (number % 7) for number in range(512)))
    assert done.code == 0, done.err
    lines = done.out.decode().splitlines()
    assert len(lines) == 3
    scores = [float(line.partition(": ")[2]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1.001


def test_other_input_gives_another_answer(run: Run) -> None:
    assert run("model:1", stdin=b"1 2 3").out != run("model:1", stdin=b"3 2 1").out


def test_what_is_no_number_is_said(run: Run) -> None:
    done = run("model:1", stdin=b"one two")
    assert done.code == 65
    assert "not numbers" in done.err
