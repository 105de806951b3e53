"""`gcompute run` when the service refuses or is not there: exit codes and hints."""

from __future__ import annotations

import json
import socket

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.plays import drain_and
from tests.ops.cli.program import Program

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
