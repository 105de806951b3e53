"""/v1/tasks/{id}/timeline: JSON for programs, a page with a picture for people."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from scheduler.moments import LostAttempt, Moments
from scheduler.task import Kind, Reason, State, Task, TaskSpec
from scheduler.timeline import MOMENTS
from sets.api.native.timeline import page, timeline_json
from tests.sets.api.conftest import Api, problem, until

CREATED_US = 1_796_000_000_000_000


def a_task(**facts: Any) -> Task:
    spec = TaskSpec("acme", "<b>ocr:1", "sha256:00", kind=Kind.ASYNC)
    return Task("a-1", spec, created_us=CREATED_US, **facts)


RAN = a_task(
    state=State.FAILED,
    reason=Reason.OUT_OF_MEMORY,
    attempts=2,
    started_us=CREATED_US + 2_000_000,
    ended_us=CREATED_US + 4_000_000,
    moments=Moments(0, 1_000_000, 2_000_100, 2_500_000, 4_000_250),
    lost=(LostAttempt(CREATED_US + 100, CREATED_US + 900_000, "the guest <is> gone"),),
)


def test_a_timeline_as_json() -> None:
    found = timeline_json(RAN, "a", None)
    assert (found["id"], found["set"], found["state"], found["reason"]) == (
        "a-1",
        "a",
        "failed",
        "out_of_memory",
    )
    assert list(found["moments"]) == list(MOMENTS)
    assert found["moments"]["started"] == "2026-11-30T00:53:22.000100Z"
    assert found["phases"][0] == {
        "phase": "earlier_attempt",
        "from_us": 100,
        "to_us": 900_000,
        "why": "the guest <is> gone",
    }
    assert found["phases"][-1] == {"phase": "record", "from_us": 4_000_000, "to_us": 4_000_250, "why": None}


def test_a_timeline_as_a_page_is_escaped_and_has_no_script() -> None:
    said = page(RAN, "a", None)
    assert "&lt;b&gt;ocr:1, async, set a, failed, out of memory" in said
    assert "<b>" not in said
    assert "the guest &lt;is&gt; gone" in said
    assert "script" not in said
    assert "http" not in said, "nothing comes from elsewhere"
    assert said.count("<rect ") == len(timeline_json(RAN, "a", None)["phases"])
    # The first byte is a quarter into the run: a tick in its bar.
    assert "first byte of stdout" in said


def test_bars_lie_within_the_picture_and_none_is_invisible() -> None:
    bars = re.findall(r"<rect class=\w+ x=([\d.]+) y=\d+ width=([\d.]+)", page(RAN, "a", None))
    assert len(bars) == 5
    for left, wide in bars:
        assert 150 <= float(left) <= 850
        assert float(wide) >= 2
        assert float(left) + float(wide) <= 853


def test_a_task_that_waits_says_for_what_and_what_it_has_not_reached() -> None:
    waiting = a_task(moments=Moments(0, 10))
    said = page(waiting, "a", "all places for slots are in use")
    assert "waits: all places for slots are in use" in said
    assert "not reached" in said
    assert "goes on" in said
    assert timeline_json(waiting, "a", None)["phases"][-1] == {
        "phase": "slot_wait",
        "from_us": 10,
        "to_us": None,
        "why": None,
    }


@pytest.mark.docker
def test_the_timelines_of_real_tasks(api: Api) -> None:
    def ended(task_id: str) -> bool:
        return api.task(task_id)["ended_at"] is not None

    sync = api.run("sink", body=iter([b"y" * 100_000]))
    assert sync.status_code == 200
    task = api.submit("say", "x")
    api.task(task["id"], wait=60)
    for task_id in (sync.headers["X-Task-Id"], task["id"]):
        until(partial(ended, task_id), "it has ended")
        answer = api.http.get(f"/v1/tasks/{task_id}/timeline")
        assert answer.headers["Vary"] == "Accept"
        moments = answer.json()["moments"]
        assert None not in moments.values(), moments
        times = {name: datetime.fromisoformat(moment) for name, moment in moments.items()}
        way = ("queued", "slot_wanted", "slot_ready", "started", "first_byte", "ended", "recorded")
        assert sorted(way, key=lambda name: (times[name], way.index(name))) == list(way)
        assert api.task(task_id)["timeline"] == moments
    for_people = api.http.get(f"/v1/tasks/{task_id}/timeline", headers={"Accept": "text/html,*/*;q=0.8"})
    assert for_people.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in for_people.headers["Content-Security-Policy"]
    assert "<svg" in for_people.text
    problem(api.http.get("/v1/tasks/a-unknown/timeline"), 404, "task-unknown")
    problem(api.http.get(f"/v1/tasks/{task_id}/timeline", params={"x": "1"}), 400, "bad-parameter")
    other = api.http.get(f"/v1/tasks/{task_id}/timeline", headers={"X-Account": "other"})
    problem(other, 404, "task-unknown")
    metrics = api.http.get("/metrics").text
    for name in ("slot_wait", "input_wait", "begin", "first_byte", "record"):
        count = re.search(rf"gc_task_{name}_seconds_count (\d+)", metrics)
        assert count is not None
        assert int(count[1]) >= (1 if name == "input_wait" else 2)
