"""`gcompute tasks dead` and `gcompute replay`."""

from __future__ import annotations

import json

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

DEAD = {"set": "a", "image": "ocr:1", "state": "failed", "reason": "platform", "dead": True}


def dead_pages(call: Call) -> None:
    """Three dead letters on two pages."""
    if call.values("before"):
        call.json({"tasks": [{**DEAD, "id": "a-1"}], "next": None, "sets": ["a", "b"]})
    else:
        both = [{**DEAD, "id": "a-3"}, {**DEAD, "id": "b-2"}]
        call.json({"tasks": both, "next": "b-2", "sets": ["a", "b"]})


def again(call: Call) -> None:
    call.read()
    old = call.path.split("/")[3]
    call.json({"id": f"{old}x", "state": "queued", "replay_of": old}, 202)


def replayed(api: FakeApi) -> list[str]:
    return [call.path.split("/")[3] for call in api.calls if call.path.endswith("/replay")]


def test_dead_letters_are_listed(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks", dead_pages)
    for asked in (("tasks", "dead"), ("tasks", "--state", "dead"), ("tasks", "dead", "--state", "dead")):
        done = gcompute(*asked)
        assert done.returncode == 0, done.stderr
        assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == ["ID", "a-3", "b-2"]
        assert ("state", "dead") in api.calls[-1].query
    done = gcompute("tasks", "dead", "--state", "failed")
    assert done.returncode == 64
    assert b"cannot be combined with dead" in done.stderr


def test_who_waits_for_a_dead_letter_is_told_what_to_do(api: FakeApi, gcompute: Program) -> None:
    api.task({**DEAD, "id": "a-1", "detail": "the platform lost every attempt (attempts: 3)"})
    done = gcompute("wait", "a-1")
    assert done.returncode == 125
    assert b"to run it again: gcompute replay a-1" in done.stderr
    assert b"the platform lost every attempt" in done.stderr


def test_the_named_tasks_are_replayed(api: FakeApi, gcompute: Program) -> None:
    api.on("POST", "/v1/tasks/", again)
    done = gcompute("replay", "a-1", "b-2")
    assert (done.returncode, done.stdout) == (0, b"a-1x\nb-2x\n")
    done = gcompute("replay", "--json", "a-1")
    assert json.loads(done.stdout)["replay_of"] == "a-1"


def test_all_of_an_image_are_replayed(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/tasks", dead_pages)
    api.on("POST", "/v1/tasks/", again)
    done = gcompute("replay", "--all", "--image", "ocr:1", "--name", "n")
    assert (done.returncode, done.stdout) == (0, b"a-3x\nb-2x\na-1x\n")
    assert done.stderr == b"3 tasks replayed\n"
    asked = sorted(api.calls[0].query)
    assert asked == [("image", "ocr:1"), ("limit", "100"), ("name", "n"), ("state", "dead")]
    shown = [json.loads(line) for line in gcompute("replay", "--all", "--json").stdout.splitlines()]
    assert [task["replay_of"] for task in shown] == ["a-3", "b-2", "a-1"]


def test_one_that_is_no_longer_dead_is_passed_over(api: FakeApi, gcompute: Program) -> None:
    def gone(call: Call) -> None:
        call.read()
        call.problem(409, "task-not-dead", "task b-2 is failed and not a dead letter")

    api.on("GET", "/v1/tasks", dead_pages)
    api.on("POST", "/v1/tasks/", again)
    api.on("POST", "/v1/tasks/b-2/", gone)
    done = gcompute("replay", "--all")
    assert (done.returncode, done.stdout) == (0, b"a-3x\na-1x\n")
    assert done.stderr == b"gcompute: task b-2 is no longer a dead letter\n2 tasks replayed\n"
    # By its id it is an error.
    assert gcompute("replay", "b-2").returncode == 66


def test_at_a_limit_it_stops_and_says_how_far_it_came(api: FakeApi, gcompute: Program) -> None:
    def full(call: Call) -> None:
        call.read()
        call.problem(429, "account-limit", "no more tasks of this account may wait", hdr={"Retry_After": 1})

    api.on("GET", "/v1/tasks", dead_pages)
    api.on("POST", "/v1/tasks/", again)
    api.on("POST", "/v1/tasks/b-2/", full)
    done = gcompute("replay", "--all")
    assert (done.returncode, done.stdout) == (75, b"a-3x\n")
    assert b"1 task replayed" in done.stderr
    assert b"no more tasks of this account may wait" in done.stderr
    assert replayed(api) == ["a-3", "b-2"]


def test_sets_that_did_not_answer_are_named_and_the_code_says_so(api: FakeApi, gcompute: Program) -> None:
    page = {"tasks": [{**DEAD, "id": "a-3"}], "next": None, "sets": ["a"], "partial": True}
    api.on("GET", "/v1/tasks", lambda call: call.json(page | {"missing": {"b": "its health check fails"}}))
    api.on("POST", "/v1/tasks/", again)
    done = gcompute("replay", "--all")
    assert (done.returncode, done.stdout) == (69, b"a-3x\n")
    assert b"set b: its health check fails" in done.stderr


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ((), "name the tasks to replay, or say --all"),
        (("--all", "a-1"), "cannot be combined with ids"),
        (("a-1", "--image", "ocr:1"), "which is missing"),
    ],
)
def test_wrong_usage(api: FakeApi, gcompute: Program, asked: tuple[str, ...], says: str) -> None:
    done = gcompute("replay", *asked)
    assert done.returncode == 64
    assert says in done.stderr.decode()
    assert api.calls == []


def test_submit_sends_the_retries(api: FakeApi, gcompute: Program) -> None:
    def accept(call: Call) -> None:
        call.read()
        call.json({"id": "a-1", "state": "queued"}, 202)

    api.on("POST", "/v1/run/", accept)
    codes = ("--retry-exit-code", "75", "--retry-exit-code", "74")
    assert gcompute("submit", "-n", "--retries", "3", *codes, "ocr:1").returncode == 0
    assert sorted(api.calls[0].query) == [
        ("retries", "3"),
        ("retry_exit_code", "74"),
        ("retry_exit_code", "75"),
    ]
    assert gcompute("submit", "-n", "--retries", "21", "ocr:1").returncode == 125
