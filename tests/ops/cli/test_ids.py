"""Ids of tasks as people give them: whole, or a part that one task alone fits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

FIRST = "a-01kb9s3q4tc1d2e3f4g5h6j7k8"
SECOND = "a-01kb9s3q4tzzzzzzzzzzzzq7k9"
OTHER_SET = "b-01kb9s3q50m0n0p0q0r0s0t0v0"
OLDEST = "a-01k00000000000000000000abc"


@pytest.fixture
def listed(api: FakeApi) -> FakeApi:
    """An API with four tasks on two pages, that knows them by their whole ids alone."""

    def page(call: Call) -> None:
        newest = call.values("before") == []
        ids = [OTHER_SET, SECOND, FIRST] if newest else [OLDEST]
        call.json({"tasks": [{"id": each} for each in ids], "next": "more" if newest else None})

    def row(call: Call) -> None:
        task_id, _, rest = call.path.removeprefix("/v1/tasks/").partition("/")
        if task_id not in (FIRST, SECOND, OTHER_SET, OLDEST):
            call.problem(404, "router-unknown-task", "no set here is named so")
        elif rest == "stdout":
            call.output(task_id.encode())
        else:
            call.json({"id": task_id, "state": "succeeded", "exit_code": 0})

    api.on("GET", "/v1/tasks", page)
    api.on("GET", "/v1/tasks/", row)
    api.on("POST", "/v1/tasks/", row)
    return api


@pytest.mark.parametrize(
    ("part", "whole"),
    [("j7k8", FIRST), ("zq7k9", SECOND), ("b-01", OTHER_SET), ("a-01kb9s3q4tc", FIRST), ("0abc", OLDEST)],
)
def test_a_part_that_one_task_fits_is_that_task_in_every_command(
    listed: FakeApi, gcompute: Program, part: str, whole: str
) -> None:
    assert whole.encode() in gcompute("status", part).stdout
    assert gcompute("result", part).stdout == whole.encode()
    assert gcompute("wait", part).stdout.startswith(b"task " + whole.encode())
    assert gcompute("cancel", part).stdout.startswith(b"task " + whole.encode())


def test_a_part_that_fits_several_names_them(listed: FakeApi, gcompute: Program) -> None:
    done = gcompute("status", "a-01kb")
    assert (done.returncode, done.stdout) == (64, b"")
    assert all(each.encode() in done.stderr for each in (FIRST, SECOND))
    assert OTHER_SET.encode() not in done.stderr
    assert gcompute("cancel", "a-01kb").returncode == 64
    assert gcompute("result", "a-01kb").returncode == 125
    assert not [call for call in listed.calls if call.method == "POST" and "01kb9" in call.path]


@pytest.mark.parametrize("part", ["7k8", "nope", "a-01kb9s3q4tc1d2e3f4g5h6j7k7"])
def test_what_no_task_fits_is_unknown(listed: FakeApi, gcompute: Program, part: str) -> None:
    """Three characters are too few to be meant, and a whole id that is unknown is not a part of another."""
    done = gcompute("status", part)
    assert done.returncode == 66
    assert b"gcompute tasks" in done.stderr


def test_a_whole_id_costs_no_list(listed: FakeApi, gcompute: Program) -> None:
    assert gcompute("status", FIRST).returncode == 0
    assert [call.target for call in listed.calls] == [f"/v1/tasks/{FIRST}"]


def test_the_search_is_bounded(api: FakeApi, gcompute: Program) -> None:
    def endless(call: Call) -> None:
        number = len(api.calls)
        tasks: list[dict[str, Any]] = [{"id": f"a-{number:026d}"}]
        call.json({"tasks": tasks, "next": f"c{number}"})

    api.on("GET", "/v1/tasks", endless)
    api.on("GET", "/v1/tasks/", lambda call: call.problem(404, "task-unknown", "no such task"))
    done = gcompute("status", "zzzz")
    assert done.returncode == 66
    assert b"no task among the newest 1000 has an id that begins or ends with zzzz" in done.stderr
    assert len(api.calls) == 1 + 10


def test_sets_that_were_not_asked_are_told(api: FakeApi, gcompute: Program) -> None:
    page = {"tasks": [{"id": FIRST}], "next": None, "sets": ["a"], "partial": True}
    api.on("GET", "/v1/tasks", lambda call: call.json(page))
    api.on("GET", "/v1/tasks/", lambda call: call.problem(404, "task-unknown", "no such task"))
    api.task({"id": FIRST, "state": "succeeded"})
    done = gcompute("status", "j7k8")
    assert done.returncode == 0
    assert b"looked only there" in done.stderr
