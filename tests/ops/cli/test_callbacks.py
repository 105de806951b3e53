"""`gcompute callbacks`: lists callbacks, and tries one again."""

from __future__ import annotations

import json

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

FAILED = {
    "id": "a-3",
    "set": "a",
    "url": "https://you.example/hook",
    "state": "failed",
    "tries": 12,
    "status": 500,
    "error": None,
    "due_at": None,
}
WAITING = FAILED | {
    "id": "b-2",
    "state": "waiting",
    "tries": 1,
    "status": None,
    "error": "it did not answer within 15 s",
    "due_at": "2026-11-30T10:00:05.000Z",
}


def both(call: Call) -> None:
    call.json({"callbacks": [FAILED, WAITING], "next": "b-2", "sets": ["a", "b"], "partial": False})


def test_they_are_listed(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/callbacks", both)
    done = gcompute("callbacks", "--limit", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows[0] == ["TASK", "STATE", "TRIES", "ANSWER", "NEXT TRY", "URL"]
    assert rows[1] == ["a-3", "failed", "12", "500", "", "https://you.example/hook"]
    assert rows[2][3:5] == ["it did not answer within 15 s", "2026-11-30T10:00:05.000Z"]
    assert b"more: --before b-2" in done.stderr
    assert api.calls[0].query == [("limit", "2")]


def test_those_in_one_state_as_json(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/callbacks", both)
    done = gcompute("callbacks", "--json", "--state", "failed", "--before", "b-9")
    assert [callback["id"] for callback in json.loads(done.stdout)["callbacks"]] == ["a-3", "b-2"]
    assert api.calls[0].values("state") == ["failed"]
    assert api.calls[0].values("before") == ["b-9"]
    assert gcompute("callbacks", "--state", "queued").returncode == 64


def test_a_set_that_is_missing_is_named(api: FakeApi, gcompute: Program) -> None:
    page = {
        "callbacks": [],
        "next": None,
        "sets": ["a"],
        "partial": True,
        "missing": {"b": "it does not answer"},
    }
    api.on("GET", "/v1/callbacks", lambda call: call.json(page))
    done = gcompute("callbacks")
    assert done.returncode == 0
    assert b"only sets a answered: callbacks of others are missing" in done.stderr
    assert b"no callbacks" in done.stderr


def test_a_failed_one_is_tried_again(api: FakeApi, gcompute: Program) -> None:
    def again(call: Call) -> None:
        call.read()
        call.json(FAILED | {"state": "waiting"})

    api.on("POST", "/v1/callbacks/", again)
    done = gcompute("callbacks", "--retry", "a-3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[1].split("\t")[:2] == ["a-3", "waiting"]
    assert api.calls[-1].path == "/v1/callbacks/a-3/retry"
    done = gcompute("callbacks", "--retry", "a-3", "--state", "failed")
    assert done.returncode == 64
    assert b"cannot be combined with a list's options" in done.stderr
