"""The part of a task in an answer's headers: any text, but no line end, only ASCII, and nothing long."""

from __future__ import annotations

import pytest

from scheduler.task import State, Task, TaskSpec
from sets.api.native.view import HEADER_CHARS, facts


def header(detail: str | None, state: State = State.SUCCEEDED) -> str | None:
    task = Task("a-1", TaskSpec("acme", "cat:1", "sha256:00"), created_us=1, state=state, detail=detail)
    return facts(task).get("X-Detail")


@pytest.mark.parametrize(
    ("detail", "value"),
    [
        (None, None),
        ("the kernel killed 1 of its processes", "the kernel killed 1 of its processes"),
        ("/tmp/a\r\nX-Exit-Code: 1: not there", "/tmp/a\\r\\nX-Exit-Code: 1: not there"),
        ("/tmp/Übung 😀", "/tmp/\\xdcbung \\U0001f600"),
        ("/tmp/a\ud800", "/tmp/a\\ud800"),
    ],
)
def test_detail_as_a_header(detail: str | None, value: str | None) -> None:
    assert header(detail) == value


def test_a_long_detail_is_cut_and_marked() -> None:
    value = header("ü" * 2000)
    assert value is not None
    assert len(value) == HEADER_CHARS
    assert value.endswith("...")


def test_a_task_that_failed_has_its_detail_in_the_problem() -> None:
    assert header("exit code 1", State.FAILED) is None
