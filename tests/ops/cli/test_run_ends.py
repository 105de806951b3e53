"""How `gcompute run` ends: the task's exit code, broken answers, signals and readers that go away."""

from __future__ import annotations

import signal
import subprocess
import threading

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.plays import drain_and, echo
from tests.ops.cli.program import Program


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"reason": "exit", "exit_code": 3, "signal": None}, 3),
        ({"reason": "signal", "exit_code": None, "signal": 11}, 139),
        ({"reason": "signal", "exit_code": None, "signal": "SIGTERM"}, 143),
        ({"reason": "out_of_memory", "exit_code": None, "signal": None}, 137),
        ({"reason": "not_executable", "exit_code": None, "signal": None}, 126),
        ({"reason": "exit", "exit_code": 0, "signal": None}, 1),
    ],
)
def test_a_failed_tasks_exit_code_is_ours(
    api: FakeApi, gcompute: Program, facts: dict[str, object], code: int
) -> None:
    more = {"executed": True, "task": "a-1", "stderr_head": "no decode delegate\n", **facts}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", "it ended badly", **more))
    done = gcompute("run", "convert", stdin=b"x")
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr == b"no decode delegate\ngcompute: task a-1 failed: it ended badly\n"


def test_the_output_of_a_failed_task_is_ours(api: FakeApi, gcompute: Program) -> None:
    """Programs such as diff and linters answer on standard output and exit with 1."""
    facts = {"task": "a-1", "reason": "exit", "exit_code": 1, "stdout_head": "3c3\n", "stdout_bytes": 4}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", "exit code 1", **facts))
    done = gcompute("run", "diff", "a", "b")
    assert (done.returncode, done.stdout) == (1, b"3c3\n")
    assert done.stderr == b"gcompute: task a-1 failed: exit code 1\n"
    facts |= {"stdout_tail": "< old\n", "stdout_cut_bytes": 0}
    assert gcompute("run", "diff", "a", "b").stdout == b"3c3\n< old\n"
    facts["stdout_cut_bytes"] = 9000
    done = gcompute("run", "diff", "a", "b")
    assert (done.returncode, done.stdout) == (1, b"3c3\n")
    assert done.stderr.decode() == (
        "[… 9000 bytes of stdout left out …]\n< old\n"
        "gcompute: `gcompute submit` keeps all of an output\ngcompute: task a-1 failed: exit code 1\n"
    )
    with open("/dev/full", "wb") as full:
        assert gcompute("run", "diff", stdout=full).returncode == 125


@pytest.mark.parametrize(
    ("cut_bytes", "shown"),
    [
        (0, "begin-end\n"),
        (1, "begin-\n[… 1 byte of stderr left out …]\nend\n"),
        (8_988, "begin-\n[… 8988 bytes of stderr left out …]\nend\n"),
        (None, "begin-end\n"),
    ],
)
def test_both_ends_of_a_failed_tasks_stderr_are_shown_and_the_cut_is_marked(
    api: FakeApi, gcompute: Program, cut_bytes: int | None, shown: str
) -> None:
    facts = {
        "task": "a-1",
        "reason": "exit",
        "exit_code": 1,
        "stderr_head": "begin-",
        "stderr_tail": "end",
    }
    more = facts if cut_bytes is None else facts | {"stderr_cut_bytes": cut_bytes}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", "exit code 1", **more))
    done = gcompute("run", "tex")
    assert done.stderr.decode() == f"{shown}gcompute: task a-1 failed: exit code 1\n"


def test_what_the_platform_noticed_of_a_task_that_succeeded_is_told(api: FakeApi, gcompute: Program) -> None:
    killed = "the kernel killed 1 of the task's processes"
    api.on("POST", "/v1/run/", lambda call: call.output(b"half?", X_Detail=killed))
    done = gcompute("run", "make")
    assert (done.returncode, done.stdout) == (0, b"half?")
    assert done.stderr.decode() == f"gcompute: task a-1: {killed}\n"


def test_a_timed_out_task_is_124(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 504, "task-timed-out", "after 60 s", task="a-1"))
    done = gcompute("run", "sleep", "100")
    assert done.returncode == 124
    assert b"after 60 s" in done.stderr


def break_off(call: Call) -> None:
    call.read()
    call.head(Transfer_Encoding="chunked", X_Task_Id="a-1", X_Set="a")
    call.chunk(b"half of")
    call.closes = True


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        (
            {"state": "failed", "reason": "exit", "exit_code": 9, "stderr_head": "disk gone"},
            9,
            b"disk gone\n",
        ),
        ({"state": "timed_out"}, 124, b"after part of its output"),
        ({"state": "succeeded", "exit_code": 0}, 125, b"broke off"),
        (None, 125, b"broke off"),
    ],
)
def test_an_answer_that_breaks_off_is_never_a_success(
    api: FakeApi, gcompute: Program, row: dict[str, object] | None, code: int, said: bytes
) -> None:
    api.on("POST", "/v1/run/", break_off)
    if row is not None:
        api.task({"id": "a-1", **row})
    done = gcompute("run", "cat", stdin=b"x")
    assert (done.returncode, done.stdout) == (code, b"half of")
    assert said in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\n\r\nno length at all",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
def test_other_cut_or_endless_answers_are_errors_too(api: FakeApi, gcompute: Program, answer: bytes) -> None:
    def cut(call: Call) -> None:
        call.read()
        call.send(answer)
        call.closes = True

    api.on("POST", "/v1/run/", cut)
    assert gcompute("run", "cat", stdin=b"x").returncode == 125


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 O"])
def test_no_http_answer_is_an_error(api: FakeApi, gcompute: Program, answer: bytes) -> None:
    def hang_up(call: Call) -> None:
        call.read()
        call.send(answer)
        call.closes = True

    api.on("POST", "/v1/run/", hang_up)
    done = gcompute("run", "cat", stdin=b"x")
    assert done.returncode == 125
    assert b"no answer came" in done.stderr


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_cancels_by_closing_the_connection(
    api: FakeApi, gcompute: Program, sent: int, code: int
) -> None:
    reached, closed = threading.Event(), threading.Event()

    def run_for_ever(call: Call) -> None:
        reached.set()
        if call.gone():
            closed.set()

    api.on("POST", "/v1/run/", run_for_ever)
    with gcompute.start("run", "sleep") as process:
        assert reached.wait(20)
        process.send_signal(sent)
        assert process.wait(20) == code
        assert process.stderr
        assert b"Traceback" not in process.stderr.read()
    assert closed.wait(20)


def test_a_reader_that_goes_away_cancels_the_task(api: FakeApi, gcompute: Program) -> None:
    closed = threading.Event()

    def print_for_ever(call: Call) -> None:
        call.head(Transfer_Encoding="chunked", X_Task_Id="a-1")
        try:
            while True:
                call.chunk(b"y\n" * 8192)
        except OSError:
            closed.set()

    api.on("POST", "/v1/run/", print_for_ever)
    with gcompute.start("run", "yes", stdin=subprocess.DEVNULL) as process:
        assert process.stdout
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr
        assert process.stderr.read() == b""
    assert closed.wait(20)


def test_a_full_disk_under_the_output_is_a_failure_of_ours(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    with open("/dev/full", "wb") as full:
        done = gcompute("run", "cat", stdin=b"x", stdout=full)
    assert done.returncode == 125
    assert b"No space left on device" in done.stderr
