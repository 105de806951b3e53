"""Standard streams as a shell may leave them: closed, full, without a reader, without UTF-8. Never a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import ROOT, Program

TASK = {"id": "a-1", "image": "µ:1", "state": "succeeded", "exit_code": 0, "stderr_head": "9 µs"}
SPEAKING = [
    (["--help"], 74),
    (["--version"], 74),
    (["--completion", "bash"], 74),
    (["run", "--help"], 74),
    (["run", "cat"], 125),
    (["submit", "cat"], 125),
    (["status", "a-1"], 74),
    (["status", "--json", "a-1"], 74),
    (["result", "a-1"], 125),
    (["wait", "a-1"], 125),
    (["cancel", "a-1"], 74),
    (["tasks"], 74),
    (["token", "operator", "acme"], 74),
    (["router", "--help"], 74),
    (["router", "check", "ops/local/router.yaml"], 74),
    (["router", "history"], 74),
    (["router", "simulate", "--list"], 74),
]
"""Commands that print something, and how they end where that fails."""


@pytest.fixture
def answering(api: FakeApi, gcompute: Program) -> Program:
    """The program, before an API that has something to print for each command."""

    def accept(call: Call) -> None:
        call.read()
        if call.headers.get("prefer"):
            call.json({"id": "a-1", "state": "queued"}, 202)
        else:
            call.output(b"output")

    api.on("POST", "/v1/run/", accept)
    api.on("POST", "/v1/tasks/a-1/cancel", lambda call: call.json(TASK))
    api.on("GET", "/v1/tasks", lambda call: call.json({"tasks": [TASK], "next": None}))
    api.on("GET", "/v1/tasks/a-1", lambda call: call.json(TASK))
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b"output"))
    api.on("GET", "/history", lambda call: call.json({"changes": [], "digest": ""}))
    gcompute.environment["GC_ADMIN_URL"] = api.url
    return gcompute


def closed(*descriptors: int) -> dict[str, Any]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return {"preexec_fn": close, "cwd": ROOT}


@pytest.mark.parametrize(("command", "code"), SPEAKING, ids=lambda each: str(each))
def test_a_closed_or_full_output_is_an_exit_code(answering: Program, command: list[str], code: int) -> None:
    for_closed = answering(*command, **closed(1))
    assert (for_closed.returncode, b"Bad file descriptor" in for_closed.stderr) == (code, True)
    with open("/dev/full", "wb") as full:
        for_full = answering(*command, stdout=full, cwd=ROOT)
    assert (for_full.returncode, b"No space left" in for_full.stderr) == (code, True)
    assert for_closed.stderr.count(b"\n") == for_full.stderr.count(b"\n") == 1, "one line says it"


@pytest.mark.parametrize(("command", "_code"), SPEAKING, ids=lambda each: str(each))
def test_an_output_that_nobody_reads_ends_quietly(answering: Program, command: list[str], _code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = answering(*command, stdout=writer, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_without_a_word_to_say_a_closed_output_does_not_matter(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/run/", lambda call: call.output(b""))
    assert gcompute("run", "true:1", **closed(1)).returncode == 0


@pytest.mark.parametrize("how", ["closed", "full", "unread"])
@pytest.mark.parametrize(
    ("command", "code"), [(["status", "a-9"], 66), (["run", "--wrong", "x"], 125), (["router", "chek"], 64)]
)
def test_errors_that_nobody_can_be_told_keep_their_exit_code(
    answering: Program, api: FakeApi, how: str, command: list[str], code: int
) -> None:
    api.on("GET", "/v1/tasks/a-9", lambda call: call.problem(404, "task-unknown", "no such task"))
    if how == "closed":
        done = answering(*command, **closed(2))
    elif how == "full":
        with open("/dev/full", "wb") as full:
            done = answering(*command, stderr=full)
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = answering(*command, stderr=writer)
        os.close(writer)
    assert (done.returncode, done.stdout) == (code, b"")


def test_all_streams_closed_reach_the_service_still(answering: Program, api: FakeApi) -> None:
    """The connection must not get the number of a closed stream: output would go into it."""
    assert answering("run", "cat", **closed(0, 1, 2)).returncode == 125
    assert [call.target for call in api.calls] == ["/v1/run/cat"]
    assert answering("cancel", "a-1", **closed(0, 2)).returncode == 0


@pytest.mark.parametrize(
    "encoding",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_a_terminal_without_utf8_gets_what_it_can_show(answering: Program, encoding: dict[str, str]) -> None:
    done = answering("status", "a-1", env=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"state" in done.stdout
    assert answering("wait", "a-1", env=encoding).returncode == 0
    assert json.loads(answering("status", "--json", "a-1", env=encoding).stdout)["image"] == "µ:1"
    assert answering("--help", env=encoding).returncode == 0


def test_an_argument_that_is_not_utf8_can_be_named_in_an_error(gcompute: Program, tmp_path: Path) -> None:
    done = gcompute("router", "check", b"caf\xe9.yaml", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 66
    assert b"Traceback" not in done.stderr
    assert b"caf" in done.stderr
