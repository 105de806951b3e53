"""`gcompute run` behaves like a local program: bodies both ways, exit codes, what it says when something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cli.conftest import Program
from tests.ops.cli.fake_api import Call, FakeApi


def echo(call: Call) -> None:
    call.output(call.read())


def echo_as_it_comes(call: Call) -> None:
    call.head(Transfer_Encoding="chunked", X_Task_Id="a-1", X_Set="a")
    for piece in call.pieces():
        call.chunk(piece)
    call.end()


def drain_and(call: Call, status: int, name: str, detail: str, **more: Any) -> None:
    call.read()
    call.problem(status, name, detail, **more)


# --- what is sent ---------------------------------------------------------------------------------------------


def test_what_stands_after_the_image_is_the_algorithms(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    done = gcompute(
        "run", "host:5000/acme/ocr:1", "-l", "eng", "--help", "--", "-v", "", "a b&c", stdin=b"in"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in", b"")
    assert api.calls[0].path == "/v1/run/host:5000/acme/ocr:1"
    assert api.calls[0].values("arg") == ["-l", "eng", "--help", "--", "-v", "", "a b&c"]


@pytest.mark.parametrize("option", ["--callback-url", "--priority"])
def test_what_the_service_does_not_do_yet_is_not_offered(gcompute: Program, option: str) -> None:
    for command in ("run", "submit"):
        assert option.encode() not in gcompute(command, "--help").stdout
        assert b"No such option" in gcompute(command, option, "x", "cat").stderr


def test_every_option_becomes_its_parameter(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    done = gcompute(
        *(
            "run",
            "--env",
            "A=1",
            "--env",
            "B=x=y",
            "--name",
            "mine",
            "--timeout-s",
            "30",
            "--queue-timeout-s",
            "2.5",
        ),
        *("--stream", "--cpu", "0.25", "--memory-mib", "64", "--isolation", "fresh", "--cpu-feature", "avx2"),
        *("--cpu-feature", "fma", "cat:1", "x"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(api.calls[0].query) == sorted(
        [
            ("arg", "x"),
            ("env", "A=1"),
            ("env", "B=x=y"),
            ("name", "mine"),
            ("timeout_s", "30"),
            ("queue_timeout_s", "2.5"),
            ("stream", "1"),
            ("cpu", "0.25"),
            ("memory_mib", "64"),
            ("isolation", "fresh"),
            ("cpu_feature", "avx2"),
            ("cpu_feature", "fma"),
        ]
    )


def test_without_options_nothing_but_the_path_is_sent(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    assert gcompute("run", "cat").returncode == 0
    assert api.calls[0].target == "/v1/run/cat"


def test_arguments_that_are_not_utf8_travel_as_bytes(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    assert gcompute("run", "cat", b"caf\xe9", "café").returncode == 0
    assert "arg=caf%E9&arg=caf%C3%A9" in api.calls[0].target


def test_token_and_account_travel_and_options_go_before_the_environment(
    api: FakeApi, gcompute: Program
) -> None:
    api.on("POST", "/v1/run/", echo)
    secrets = {"GC_TOKEN": "gc_acme_x", "GC_ACCOUNT": "acme"}
    assert gcompute("run", "cat", env=secrets).returncode == 0
    assert gcompute("--account", "outer", "run", "cat", env=secrets).returncode == 0
    assert (
        gcompute(
            "--account", "outer", "run", "--account", "inner", "--token", "t", "cat", env=secrets
        ).returncode
        == 0
    )
    seen = [(call.headers["authorization"], call.headers["x-account"]) for call in api.calls]
    assert seen == [("Bearer gc_acme_x", "acme"), ("Bearer gc_acme_x", "outer"), ("Bearer t", "inner")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--env", "NOVALUE", "cat"], b"--env"),
        (["--env", "=x", "cat"], b"--env"),
        (["--output", "relative", "cat"], b"--output"),
        (["--isolation", "none", "cat"], b"--isolation"),
        (["--memory-mib", "much", "cat"], b"--memory-mib"),
        (["--unknown", "cat"], b"--unknown"),
        ([], b"IMAGE"),
    ],
)
def test_wrong_usage_names_the_option_and_calls_nobody(
    api: FakeApi, gcompute: Program, arguments: list[str], named: bytes
) -> None:
    done = gcompute("run", *arguments)
    assert done.returncode == 125
    assert named in done.stderr
    assert api.connections == 0


# --- bodies ---------------------------------------------------------------------------------------------------


def test_a_file_and_a_short_pipe_have_a_length_and_a_long_pipe_is_chunked(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    api.on("POST", "/v1/run/", echo)
    (tmp_path / "in").write_bytes(b"f" * 100_000)
    with (tmp_path / "in").open("rb") as file:
        file.seek(1000)
        assert gcompute("run", "cat", stdin=file).stdout == b"f" * 99_000
    for data in (b"p" * 4000, b""):
        # Filled and closed before the program starts: whether it ends early is not left to chance.
        far, near = os.pipe()
        os.write(near, data)
        os.close(near)
        with open(far, "rb") as pipe:
            assert gcompute("run", "cat", stdin=pipe).stdout == data
    assert gcompute("run", "cat", stdin=b"l" * 200_000).stdout == b"l" * 200_000
    lengths = [call.headers.get("content-length") for call in api.calls]
    assert lengths == ["99000", "4000", "0", None]
    assert api.calls[3].headers["transfer-encoding"] == "chunked"


def test_a_closed_stdin_and_no_stdin_are_empty_bodies(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    closed = gcompute("run", "cat", preexec_fn=lambda: os.close(0), stdin=subprocess.DEVNULL)  # type: ignore[arg-type]
    assert (closed.returncode, closed.stdout) == (0, b"")
    assert gcompute("run", "-n", "cat", stdin=b"unread").stdout == b""
    assert [call.headers["content-length"] for call in api.calls] == ["0", "0"]


def test_both_directions_flow_at_once(api: FakeApi, gcompute: Program, tmp_path: Path) -> None:
    """A server that answers as it reads stops for good on a client that reads only once it has sent everything."""
    api.on("POST", "/v1/run/", echo_as_it_comes)
    data = os.urandom(1 << 20) * 48
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as file, (tmp_path / "out").open("wb") as out:
        done = gcompute("run", "cat", stdin=file, stdout=out)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_output_comes_while_the_input_is_still_open(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo_as_it_comes)
    with gcompute.start("run", "cat") as process:
        assert process.stdin
        assert process.stdout
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline() == line
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(20) == 0


def test_a_task_that_ends_before_its_input_does_is_a_success(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", lambda call: call.output(b"first line only"))
    with gcompute.start("run", "head") as process:
        assert process.wait(20) == 0
        assert process.stdout
        assert process.stdout.read() == b"first line only"


def test_a_terminal_is_read_until_ctrl_d(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    leader, follower = pty.openpty()
    with gcompute.start("run", "cat", stdin=follower, stderr=follower) as process:
        os.close(follower)
        hint = b""
        while b"Ctrl-D" not in hint:
            hint += os.read(leader, 1000)
        os.write(leader, b"typed\n\x04")
        assert process.stdout
        assert process.stdout.read() == b"typed\n"
        assert process.wait(20) == 0
    os.close(leader)


# --- how tasks end --------------------------------------------------------------------------------------------


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


# --- answers that come early ----------------------------------------------------------------------------------


def test_an_early_refusal_of_a_large_upload_is_shown(api: FakeApi, gcompute: Program, tmp_path: Path) -> None:
    """The server closes without reading: what the client sends meets a reset, and the answer must still be seen."""

    def refuse(call: Call) -> None:
        call.problem(413, "input-too-large", "the limit is 1 MiB", hdr={"Connection": "close"})
        call.closes = True

    api.on("POST", "/v1/run/", refuse)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 30)
    with (tmp_path / "large").open("rb") as file:
        done = gcompute("run", "cat", stdin=file)
    assert done.returncode == 125
    assert b"input too large: the limit is 1 MiB" in done.stderr
    assert b"hint: send less" in done.stderr


def test_an_early_refusal_needs_no_end_of_the_input(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", lambda call: call.problem(404, "image-unknown", "no image nope:1"))
    with gcompute.start("run", "nope:1") as process:
        assert process.wait(20) == 125
        assert process.stderr
        said = process.stderr.read()
    assert b"no image nope:1" in said
    assert b"hint: check the image's name" in said


def test_interim_answers_are_passed_over(api: FakeApi, gcompute: Program) -> None:
    def interim(call: Call) -> None:
        call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        call.output(call.read())

    api.on("POST", "/v1/run/", interim)
    assert gcompute("run", "cat", stdin=b"body").stdout == b"body"


# --- the service's own troubles -------------------------------------------------------------------------------


REFUSALS: list[tuple[int, str, dict[str, str | int], int, int, bytes]] = [
    (400, "bad-parameter", {}, 125, 64, b"the detail"),
    (401, "unauthorized", {}, 125, 77, b"GC_TOKEN"),
    (403, "forbidden", {}, 125, 77, b"GC_ACCOUNT"),
    (422, "image-unusable", {}, 126, 126, b"the detail"),
    (429, "account-limit", {"Retry-After": 7}, 125, 75, b"try again in 7 s"),
    (503, "set-full", {"Retry-After": 2}, 125, 75, b"try again in 2 s"),
    (503, "router-no-set", {"X-Router": "r1"}, 125, 69, b"(said by router r1)"),
    (500, "internal", {}, 125, 70, b"the detail"),
]


@pytest.mark.parametrize(("status", "name", "headers", "of_run", "of_status", "said"), REFUSALS)
def test_each_problem_has_its_exit_code_and_hint(
    api: FakeApi,
    gcompute: Program,
    status: int,
    name: str,
    headers: dict[str, str | int],
    of_run: int,
    of_status: int,
    said: bytes,
) -> None:
    """Where an algorithm could end with every code, one code is ours; elsewhere the codes tell more."""
    api.on("POST", "/v1/run/", lambda call: drain_and(call, status, name, "the detail", hdr=headers))
    api.on("GET", "/v1/tasks/", lambda call: call.problem(status, name, "the detail", hdr=headers))
    for done, code in ((gcompute("run", "cat", stdin=b"x"), of_run), (gcompute("status", "a-1"), of_status)):
        assert done.returncode == code
        assert b"the detail" in done.stderr
        assert said in done.stderr


@pytest.mark.parametrize("code", [1, 2, 42, 64, 69, 75, 77, 124, 125, 126, 127, 128, 137, 255])
def test_an_algorithms_own_exit_code_passes_through_as_it_is(
    api: FakeApi, gcompute: Program, code: int
) -> None:
    facts = {"task": "a-1", "reason": "exit", "exit_code": code, "signal": None, "stderr_head": ""}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", f"exit code {code}", **facts))
    done = gcompute("run", "mine:1")
    assert done.returncode == code
    assert done.stderr == f"gcompute: task a-1 failed: exit code {code}\n".encode()


def test_a_task_that_the_platform_failed_is_125(api: FakeApi, gcompute: Program) -> None:
    facts = {"task": "a-1", "reason": "platform", "exit_code": None, "signal": None}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", "slot lost", **facts))
    assert gcompute("run", "mine:1").returncode == 125


def test_a_problem_is_json_when_asked(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 429, "limit", "slowly", hdr={"Retry-After": 3}))
    done = gcompute("--json", "run", "cat")
    document = json.loads(done.stderr)
    assert document["detail"] == "slowly"
    assert document["retry_after_s"] == 3
    assert document["exit_code_of_gcompute"] == done.returncode == 125


def test_no_router_says_how_to_start_one(gcompute: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = gcompute("--url", nobody, "run", "cat")
    assert done.returncode == 125
    assert f"no router at {nobody}".encode() in done.stderr
    assert b"make up" in done.stderr
    assert b"GC_URL" in done.stderr


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://h:port", "http://u:p@h/", "http://h/?q"]
)
def test_a_bad_address_is_refused(gcompute: Program, url: str) -> None:
    done = gcompute("run", "--url", url, "cat")
    assert done.returncode == 125
    assert b"the address" in done.stderr


def test_a_server_of_another_kind_is_told_apart(api: FakeApi, gcompute: Program) -> None:
    def page(call: Call) -> None:
        call.read()
        call.head(404, Content_Type="text/html", Content_Length=13)
        call.send(b"<h1>nginx</h1>"[:13])

    api.on("POST", "/v1/run/", page)
    done = gcompute("run", "cat")
    assert done.returncode == 125
    assert b"not as General Compute does" in done.stderr


# --- going away -----------------------------------------------------------------------------------------------


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


# --- facts ----------------------------------------------------------------------------------------------------


def test_verbose_shows_the_tasks_facts_and_stderr(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    row = {
        "id": "a-1",
        "set": "a",
        "state": "succeeded",
        "duration_us": 2500,
        "cpu_us": 999,
        "stderr_head": "warn!\n",
    }
    api.task({**row, "memory_peak_kib": 2048, "cold_start": True})
    done = gcompute("run", "-v", "cat", stdin=b"x")
    assert (done.returncode, done.stdout) == (0, b"x")
    line = "task a-1 on set a, succeeded, ran 2.5 ms, CPU 999 µs, memory 2.0 MiB, cold start"
    assert done.stderr.decode().splitlines() == ["warn!", line]


def test_verbose_shows_the_facts_of_a_failed_task_below_what_it_said(api: FakeApi, gcompute: Program) -> None:
    more = {"task": "a-1", "reason": "exit", "exit_code": 2, "stderr_head": "no picture\n"}
    api.on("POST", "/v1/run/", lambda call: drain_and(call, 422, "task-failed", "exit code 2", **more))
    api.task({"id": "a-1", "state": "failed", "reason": "exit", "exit_code": 2, "cpu_us": 7})
    done = gcompute("run", "-v", "convert")
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "no picture",
        "gcompute: task a-1 failed: exit code 2",
        "task a-1, failed: exit code 2, CPU 7 µs",
    ]


def test_facts_come_from_the_headers_where_the_row_cannot_be_had(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    done = gcompute("run", "--json", "cat", stdin=b"x")
    assert (done.returncode, done.stdout) == (0, b"x")
    facts = json.loads(done.stderr)
    assert facts["id"] == "a-1"
    assert (facts["cpu_us"], facts["duration_us"], facts["queue_us"], facts["cold_start"]) == (
        1500,
        2500,
        100,
        False,
    )
