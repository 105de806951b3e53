"""`gcompute submit`, `status`, `result`, `wait`, `cancel`, `tasks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

DONE = {
    "id": "a-1",
    "set": "a",
    "image": "ocr:1",
    "state": "succeeded",
    "exit_code": 0,
    "duration_us": 812_004,
}


def accept(call: Call) -> None:
    call.read()
    call.json({"id": "a-1", "state": "queued"}, 202, Location="/v1/tasks/a-1")


def test_submit_prints_the_id_and_sends_its_headers(api: FakeApi, gcompute: Program, tmp_path: Path) -> None:
    api.on("POST", "/v1/run/", accept)
    (tmp_path / "page").write_bytes(b"page")
    done = gcompute(
        *(
            "submit",
            "--input",
            str(tmp_path / "page"),
            "--idempotency-key",
            "k1",
        ),
        *("--timeout-s", "7200", "ocr:1", "-l", "eng"),
    )
    assert (done.returncode, done.stdout) == (0, b"a-1\n"), done.stderr
    call = api.calls[0]
    assert call.body == b"page"
    assert sorted(call.query) == [("arg", "-l"), ("arg", "eng"), ("timeout_s", "7200")]
    sent = [call.headers.get(name) for name in ("prefer", "idempotency-key")]
    assert sent == ["respond-async", "k1"]


def test_submit_of_a_missing_file_is_125(api: FakeApi, gcompute: Program) -> None:
    done = gcompute("submit", "--input", "/nonexistent", "ocr:1")
    assert done.returncode == 125
    assert b"--input /nonexistent: No such file" in done.stderr
    assert api.connections == 0


def test_submit_wait_exits_as_the_task_did(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", accept)
    api.task({**DONE, "state": "failed", "reason": "exit", "exit_code": 5, "stderr_head": "bad page"})
    done = gcompute("submit", "--wait", "ocr:1")
    assert done.returncode == 5
    assert done.stdout.splitlines()[0] == b"a-1"
    assert b"failed: exit code 5" in done.stdout
    assert b"bad page" in done.stderr


def test_status_for_people_and_for_programs(api: FakeApi, gcompute: Program) -> None:
    api.task({**DONE, "stderr_head": "", "name": None, "args": ["-l", "eng"]})
    done = gcompute("status", "a-1")
    lines = dict(line.split(None, 1) for line in done.stdout.decode().splitlines())
    assert lines["state"] == "succeeded"
    assert lines["duration_us"] == "812004 (812.0 ms)"
    assert "name" not in lines
    assert json.loads(gcompute("status", "--json", "a-1").stdout)["duration_us"] == 812_004


def test_an_unknown_task_is_66_with_a_hint(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/", lambda call: call.problem(404, "task-unknown", "no task a-2"))
    done = gcompute("status", "a-2")
    assert done.returncode == 66
    assert b"no task a-2" in done.stderr
    assert b"gcompute tasks" in done.stderr


def test_what_a_task_chose_cannot_steer_the_terminal(api: FakeApi, gcompute: Program) -> None:
    api.task({**DONE, "stderr_head": "\x1b]0;owned\x07\x9b31m"})
    done = gcompute("status", "a-1")
    assert b"\x1b" not in done.stdout
    assert "\\x1b]0;owned\\x07\\x9b31m" in done.stdout.decode()


def test_result_of_a_failed_task_says_so_and_exits_as_it_did(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b"3c3\n"))
    api.on("GET", "/v1/tasks/a-1/stderr", lambda call: call.output(b"all of it\n"))
    api.task({**DONE, "state": "failed", "reason": "exit", "exit_code": 3, "stderr_head": "no page\n"})
    done = gcompute("result", "a-1")
    assert (done.returncode, done.stdout) == (3, b"3c3\n")
    assert done.stderr == b"no page\ngcompute: task a-1 failed: exit code 3\n"
    done = gcompute("result", "a-1", "--stderr")
    assert (done.returncode, done.stdout) == (3, b"all of it\n")
    assert done.stderr == b"gcompute: task a-1 failed: exit code 3\n"


@pytest.mark.parametrize("command", ["result", "wait"])
@pytest.mark.parametrize("detail", ["of its stderr, 13 bytes, this set keeps the first 10", None])
def test_a_tasks_detail_is_told_although_it_succeeded(
    api: FakeApi, gcompute: Program, command: str, detail: str | None
) -> None:
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b"out"))
    api.task({**DONE, "detail": detail})
    done = gcompute(command, "a-1")
    assert done.returncode == 0
    assert done.stderr.decode() == (f"gcompute: task a-1: {detail}\n" if detail else "")


def test_a_result_that_was_not_kept_whole_is_no_success(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b"0123"))
    api.task({**DONE, "stdout_bytes": 10})
    done = gcompute("result", "a-1")
    assert (done.returncode, done.stdout) == (125, b"0123")
    assert done.stderr == b"gcompute: only the first 4 of 10 bytes of its stdout were kept\n"


@pytest.mark.parametrize(("state", "code"), [("timed_out", 124), ("cancelled", 130)])
def test_result_of_another_bad_end_does_as_well(
    api: FakeApi, gcompute: Program, state: str, code: int
) -> None:
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b"half"))
    api.task({**DONE, "state": state, "exit_code": None})
    done = gcompute("result", "a-1")
    assert (done.returncode, done.stdout) == (code, b"half")
    assert f"task a-1 {state.replace('_', ' ')}".encode() in done.stderr


# --- result ---------------------------------------------------------------------------------------------------


def test_result_fetches_each_stream_and_file(api: FakeApi, gcompute: Program, tmp_path: Path) -> None:
    for tail in ("stdout", "stderr", "files/tmp/o ut.pdf"):
        api.on("GET", f"/v1/tasks/a-1/{tail}", lambda call, tail=tail: call.output(tail.encode()))  # type: ignore[misc]
    api.task(DONE)
    assert gcompute("result", "a-1").stdout == b"stdout"
    assert gcompute("result", "a-1", "--stderr").stdout == b"stderr"
    done = gcompute("result", "a-1", "--file", "/tmp/o ut.pdf", "-o", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out").read_bytes() == b"files/tmp/o ut.pdf"


def test_result_resumes_where_the_download_broke_off(api: FakeApi, gcompute: Program) -> None:
    data = bytes(range(256)) * 4

    def unreliable(call: Call) -> None:
        start = int(call.headers.get("range", "bytes=0-")[6:-1])
        status = 206 if start else 200
        call.head(status, Content_Length=len(data) - start)
        call.send(data[start : start + 400])
        call.closes = True

    api.on("GET", "/v1/tasks/a-1/stdout", unreliable)
    api.task(DONE)
    done = gcompute("result", "a-1")
    assert (done.returncode, done.stdout) == (0, data)
    assert [call.headers.get("range") for call in api.calls[:3]] == [None, "bytes=400-", "bytes=800-"]


def test_a_download_that_cannot_be_resumed_is_an_error(api: FakeApi, gcompute: Program) -> None:
    """A server that ignores Range would give the beginning once more, and nobody would notice."""

    def ignores_range(call: Call) -> None:
        call.head(Content_Length=8)
        call.send(b"beginnin"[: 8 if "range" in call.headers else 4])
        call.closes = True

    api.on("GET", "/v1/tasks/a-1/stdout", ignores_range)
    done = gcompute("result", "a-1")
    assert (done.returncode, done.stdout) == (125, b"begi")
    assert b"cannot resume" in done.stderr


def test_a_result_that_stays_broken_leaves_no_file(api: FakeApi, gcompute: Program, tmp_path: Path) -> None:
    def half(call: Call) -> None:
        call.head(Content_Length=100)
        call.send(b"half")
        call.closes = True

    api.on("GET", "/v1/tasks/a-1/stdout", half)
    done = gcompute("result", "a-1", "-o", str(tmp_path / "out"))
    assert done.returncode == 125
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "name", "hint"),
    [
        (404, "file-unknown", b"gcompute status"),
        (409, "task-not-finished", b"gcompute wait"),
        (410, "result-gone", b"gcompute submit"),
    ],
)
def test_a_result_that_cannot_be_had_says_what_to_do(
    api: FakeApi, gcompute: Program, status: int, name: str, hint: bytes
) -> None:
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.problem(status, name, "not there"))
    done = gcompute("result", "a-1")
    assert done.returncode == 125
    assert hint in done.stderr


@pytest.mark.parametrize("wrong", [["--file", "relative"], ["--file", "/x", "--stderr"]])
def test_result_refuses_options_that_contradict(api: FakeApi, gcompute: Program, wrong: list[str]) -> None:
    done = gcompute("result", "a-1", *wrong)
    assert done.returncode == 125
    assert b"--file" in done.stderr
    assert api.connections == 0


# --- wait, cancel ---------------------------------------------------------------------------------------------


def test_wait_asks_until_each_has_ended_also_over_a_restart(api: FakeApi, gcompute: Program) -> None:
    answers = iter(["queued", "restart", "running", "succeeded"])

    def next_state(call: Call) -> None:
        state = next(answers)
        if state == "restart":
            call.problem(503, "set-starting", "a moment", hdr={"Retry-After": 1})
        else:
            call.json({**DONE, "state": state})

    api.on("GET", "/v1/tasks/a-1", next_state)
    api.task({**DONE, "id": "b-1", "state": "failed", "reason": "signal", "signal": 9, "exit_code": None})
    done = gcompute("wait", "a-1", "b-1")
    assert done.returncode == 137
    assert [line.split(",")[1] for line in done.stdout.decode().splitlines()] == [
        " succeeded",
        " failed: signal 9",
    ]
    assert all(float(call.values("wait")[0]) > 0 for call in api.calls)


def test_wait_gives_up_when_told_to(api: FakeApi, gcompute: Program) -> None:
    api.task({**DONE, "state": "running"})
    done = gcompute("wait", "--timeout-s", "0.2", "a-1")
    assert done.returncode == 125
    assert b"still running" in done.stderr


def test_wait_does_not_ask_again_for_what_does_not_exist(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks/", lambda call: call.problem(404, "task-unknown", "no task"))
    assert gcompute("wait", "a-9").returncode == 125
    assert len(api.calls) == 1


def test_cancel_shows_what_became_of_each(api: FakeApi, gcompute: Program) -> None:
    for task_id, state in (("a-1", "cancelled"), ("b-1", "succeeded")):
        api.on(
            "POST",
            f"/v1/tasks/{task_id}/cancel",
            lambda call, found={"id": task_id, "state": state}: call.json(found),  # type: ignore[misc]
        )
    done = gcompute("cancel", "a-1", "b-1")
    assert done.stdout.decode().splitlines() == ["task a-1, cancelled", "task b-1, succeeded"]
    assert api.connections == 1, "one connection serves call after call"


# --- the list -------------------------------------------------------------------------------------------------


def pages(call: Call) -> None:
    before = call.values("before")
    if not before:
        call.json({"tasks": [{**DONE, "id": "a-3"}, {**DONE, "id": "b-2"}], "next": "c2", "sets": ["a", "b"]})
    else:
        call.json(
            {
                "tasks": [{**DONE, "id": "a-1", "name": "odd\tname"}],
                "next": None,
                "sets": ["a"],
                "partial": True,
                "missing": {"b": "its health check fails"},
            }
        )


def test_tasks_lists_a_page_and_says_how_to_go_on(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks", pages)
    done = gcompute("tasks", "--state", "succeeded", "--image", "ocr:1", "--name", "n", "--limit", "2")
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == ["ID", "a-3", "b-2"]
    assert rows[1][5] == "812.0 ms"
    assert b"--before c2" in done.stderr
    expected = [("image", "ocr:1"), ("limit", "2"), ("name", "n"), ("state", "succeeded")]
    assert sorted(api.calls[0].query) == expected


def test_tasks_all_pages_through_and_tells_what_is_missing(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks", pages)
    done = gcompute("tasks", "--all")
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == ["ID", "a-3", "b-2", "a-1"]
    assert {len(row) for row in rows} == {8}
    assert b"tasks of others are missing" in done.stderr
    assert b"set b: its health check fails" in done.stderr
    shown = [json.loads(line) for line in gcompute("tasks", "--all", "--json").stdout.splitlines()]
    assert [[task["id"] for task in page["tasks"]] for page in shown] == [["a-3", "b-2"], ["a-1"]]


def test_a_cursor_that_does_not_move_ends_the_list(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks", lambda call: call.json({"tasks": [DONE], "next": "same"}))
    assert gcompute("tasks", "--all").returncode == 0
    assert len(api.calls) == 2


def test_a_list_into_a_closed_pipe_ends_quietly(api: FakeApi, gcompute: Program) -> None:
    many = [{**DONE, "id": f"a-{number}"} for number in range(5000)]
    api.on("GET", "/v1/tasks", lambda call: call.json({"tasks": many, "next": None}))
    with gcompute.start("tasks") as process:
        assert process.stdout
        assert process.stdout.readline().startswith(b"ID\t")
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr
        assert process.stderr.read() == b""
