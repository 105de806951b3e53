"""`gcompute run` behaves like a local program: arguments, bodies in both directions, early answers, facts."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.plays import drain_and, echo, echo_as_it_comes
from tests.ops.cli.program import Program


def test_what_stands_after_the_image_is_the_algorithms(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", echo)
    done = gcompute(
        "run", "host:5000/acme/ocr:1", "-l", "eng", "--help", "--", "-v", "", "a b&c", stdin=b"in"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in", b"")
    assert api.calls[0].path == "/v1/run/host:5000/acme/ocr:1"
    assert api.calls[0].values("arg") == ["-l", "eng", "--help", "--", "-v", "", "a b&c"]


def test_a_callback_is_asked_for_by_a_header_of_a_submission(api: FakeApi, gcompute: Program) -> None:
    def accepted(call: Call) -> None:
        call.read()
        call.json({"id": "a-1", "state": "queued"}, 202)

    api.on("POST", "/v1/run/", accepted)
    done = gcompute("submit", "--callback-url", "https://you.example/hook?x=1", "cat:1", stdin=b"in")
    assert (done.returncode, done.stdout) == (0, b"a-1\n"), done.stderr
    assert api.calls[0].headers["x-callback-url"] == "https://you.example/hook?x=1"
    assert api.calls[0].values("callback_url") == []
    assert b"No such option" in gcompute("run", "--callback-url", "x", "cat").stderr


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
        *("--priority", "spare"),
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
            ("priority", "spare"),
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
