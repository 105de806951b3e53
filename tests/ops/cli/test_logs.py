"""`gcompute logs`: what a task writes, over broken connections and lost attempts."""

from __future__ import annotations

import os
import signal
from typing import Any, cast

import pytest

from ops.cli.logs import _follow_all
from ops.cli.session import Session
from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

RUNNING = {
    "id": "a-1",
    "set": "a",
    "image": "ocr:1",
    "state": "running",
    "stdout_bytes": 0,
    "stderr_bytes": 0,
}
BROKEN = None
"""Stands behind the pieces of an answer that is broken off."""


class Answers:
    """Answers followers of one output in turn: the attempt, its first byte's place, and the pieces."""

    def __init__(self, *answers: tuple[int, int, list[bytes | None]]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def __call__(self, call: Call) -> None:
        self.asked += call.values("follow")
        attempt, first, pieces = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        call.head(
            Content_Type="application/octet-stream",
            Transfer_Encoding="chunked",
            X_Attempt=attempt,
            X_First_Byte=first,
        )
        for piece in pieces:
            if piece is None:
                call.closes = True
                return
            call.chunk(piece)
        call.send(b"0\r\n\r\n")


def outputs(
    api: FakeApi, stdout: Answers | None = None, stderr: Answers | None = None
) -> tuple[Answers, Answers]:
    found = stdout or Answers((1, 0, [])), stderr or Answers((1, 0, []))
    api.task(RUNNING)
    api.on("GET", "/v1/tasks/a-1/stdout", found[0])
    api.on("GET", "/v1/tasks/a-1/stderr", found[1])
    return found


def test_each_output_goes_to_its_own_descriptor(api: FakeApi, gcompute: Program) -> None:
    out, err = outputs(api, Answers((1, 0, [b"page ", b"one"])), Answers((1, 0, [b"careful"])))
    done = gcompute("logs", "a-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"page one", b"careful")
    assert (out.asked, err.asked) == (["0"], ["0"])
    done = gcompute("logs", "-f", "a-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"page one", b"careful")
    assert (out.asked, err.asked) == (["0", "1"], ["0", "1"])


@pytest.mark.parametrize("more", [(), ("-f",)])
def test_one_output_alone(api: FakeApi, gcompute: Program, more: tuple[str, ...]) -> None:
    outputs(api, Answers((1, 0, [b"page"])), Answers((1, 0, [b"careful"])))
    done = gcompute("logs", *more, "--stdout", "a-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"page", b"")
    done = gcompute("logs", *more, "--stderr", "a-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"careful")


def test_a_broken_connection_is_made_again_and_no_byte_comes_twice(api: FakeApi, gcompute: Program) -> None:
    outputs(
        api, Answers((1, 0, [b"page ", b"on", BROKEN]), (1, 0, [BROKEN]), (1, 0, [b"pa", b"ge one, all"]))
    )
    done = gcompute("logs", "-f", "a-1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"page one, all", b"")


def test_a_new_attempt_is_told_and_shown_from_its_beginning(api: FakeApi, gcompute: Program) -> None:
    outputs(api, Answers((1, 0, [b"of the first", BROKEN]), (2, 0, [b" of the second"])))
    done = gcompute("logs", "-f", "a-1")
    assert (done.returncode, done.stdout) == (0, b"of the first of the second")
    assert done.stderr == b"gcompute: the attempt was lost or failed; here begins attempt 2 of the task\n"


def test_bytes_of_a_sync_task_that_were_missed_are_told(api: FakeApi, gcompute: Program) -> None:
    outputs(api, Answers((1, 1000, [b"tail", BROKEN]), (1, 5000, [b"later"])))
    done = gcompute("logs", "-f", "--stdout", "a-1")
    assert (done.returncode, done.stdout) == (69, b"tail")
    assert b"the first 1000 bytes of its stdout are no longer held" in done.stderr
    assert b"3996 bytes of its stdout were missed" in done.stderr


def test_a_task_that_is_not_there(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/", lambda call: call.problem(404, "task-unknown", "no such task"))
    assert gcompute("logs", "-f", "a-unknown-1").returncode == 66


class NoClient:
    """A session whose client fails as a bug would."""

    def client(self) -> Any:
        raise RuntimeError("a bug")


def test_a_follower_that_meets_a_bug_ends_the_command() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        _follow_all(cast(Session, NoClient()), "a-1", ["stdout", "stderr"])


def test_ctrl_c_and_a_reader_that_is_gone_end_it_cleanly(api: FakeApi, gcompute: Program) -> None:
    def endless(call: Call) -> None:
        call.head(Transfer_Encoding="chunked", X_Attempt=1, X_First_Byte=0)
        call.chunk(b"first\n")
        call.gone()

    api.task(RUNNING)
    api.on("GET", "/v1/tasks/a-1/stdout", endless)
    api.on("GET", "/v1/tasks/a-1/stderr", endless)
    with gcompute.start("logs", "-f", "--stdout", "a-1") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 130
    assert b"Traceback" not in err

    reading, writing = os.pipe()
    os.close(reading)
    with gcompute.start("logs", "-f", "--stdout", "a-1", stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (141, b"")
