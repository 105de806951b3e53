"""The set's own life: health, draining, an orderly end, `kill -9` and what the next start goes on with."""

from __future__ import annotations

import os
import re
import signal
import threading
from datetime import UTC, datetime

import httpx
import pytest

from scheduler.task import FINAL_STATES
from sets.build import build_name
from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = pytest.mark.docker


def test_health(api: Api) -> None:
    live = api.http.get("/livez")
    assert (live.status_code, live.headers["X-Set"]) == (200, api.process.name)
    ready = api.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.headers["X-Set"] == api.process.name
    assert (ready.json()["set"], ready.json()["build"]) == (api.process.name, build_name())


def metric(api: Api, name: str, headers: dict[str, str] | None = None) -> float:
    text = api.http.get("/metrics", headers=headers).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def test_metrics_count_what_ended(start_api: StartApi) -> None:
    api = start_api()
    assert api.run("burn", "50").status_code == 200
    assert problem(api.run("exit", "1"), 422, "task-failed")["exit_code"] == 1
    task = api.submit("say", "x")
    assert api.task(task["id"], wait=60)["state"] == "succeeded"
    assert metric(api, 'gc_tasks_ended_total{kind="sync",state="succeeded"}') == 1
    assert metric(api, 'gc_tasks_ended_total{kind="sync",state="failed"}') == 1
    assert metric(api, 'gc_tasks_ended_total{kind="async",state="succeeded"}') == 1
    assert metric(api, "gc_task_cpu_seconds_total") >= 0.05
    assert metric(api, "gc_task_run_seconds_count") == 3
    assert metric(api, "gc_slots_running") == 0
    assert metric(api, "gc_slots_idle") >= 1
    assert (metric(api, "gc_ready"), metric(api, "gc_launcher_up")) == (1, 1)
    assert metric(api, "gc_tasks_waiting_max") == 100_000
    assert metric(api, "gc_disk_reserve_bytes") == 256 << 20
    assert metric(api, "gc_disk_free_bytes") > 0
    assert metric(api, 'gc_tasks_given_up_total{kind="sync"}') == 0
    text = api.http.get("/metrics")
    assert text.headers["X-Set"] == api.process.name
    assert f'gc_build_info{{build="{build_name()}"}} 1.0' in text.text
    states = set(re.findall(r'^gc_tasks_ended_total\{kind="a?sync",state="(\w+)"\}', text.text, re.MULTILINE))
    assert states == set(FINAL_STATES), "tasks end in no other state"


def test_saturation_shows(start_api: StartApi) -> None:
    api = start_api()
    assert (metric(api, "gc_cores"), metric(api, "gc_cores_busy"), metric(api, "gc_slots_max")) == (2, 0, 32)
    tasks = [api.submit("sleep", "60") for _ in range(5)]
    until(lambda: metric(api, "gc_cores_busy") == 2, "both cores are busy")
    assert metric(api, "gc_slots_running") == 2
    assert metric(api, "gc_tasks_waiting") == 3
    until(lambda: metric(api, "gc_oldest_wait_seconds") > 0.1, "the oldest wait grows")
    for task in tasks:
        api.http.post(f"/v1/tasks/{task['id']}/cancel")
    assert (metric(api, "gc_tasks_waiting"), metric(api, "gc_oldest_wait_seconds")) == (0, 0)


def test_kill_9_loses_no_accepted_task(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    inputs = {"small": b"s" * 100, "large": b"l" * 200_000}
    ended = api.submit("say", "before")
    api.task(ended["id"], wait=20)
    sync_id = api.run("say", "sync").headers["X-Task-Id"]
    run = [api.submit("sink", "sleep", "4", "say", word, body=body) for body in inputs.values()]
    until(lambda: len(running(word)) == 2, "both cores are busy")
    queued = [api.submit("cat", body=body) for body in inputs.values()]
    key = {"Idempotency-Key": mark()}
    keyed = api.submit("say", "once", headers=key)
    api.process.kill()
    # The guests kill what they run as soon as their set is gone.
    until(lambda: running(word) == [], "no program outlives its set")
    api.process.start()
    assert api.task(ended["id"])["state"] == "succeeded"
    assert api.http.get(f"/v1/tasks/{ended['id']}/stdout").content == b"before\n"
    assert api.task(sync_id)["state"] == "succeeded"
    assert api.submit("say", "once", headers=key)["id"] == keyed["id"]
    for task, body in zip(run, inputs.values(), strict=True):
        again = api.task(task["id"], wait=30)
        assert (again["state"], again["attempts"]) == ("succeeded", 2), again
        assert again["stdout_head"] == f"{len(body)}{word}\n"
    for task, body in zip(queued, inputs.values(), strict=True):
        assert api.task(task["id"], wait=30)["state"] == "succeeded"
        assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == body
    assert api.task(keyed["id"], wait=30)["attempts"] == 1


def test_an_orderly_end_answers_what_runs_and_refuses_the_rest(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    idle = httpx.Client(base_url=api.process.url)
    assert idle.get("/livez").status_code == 200
    answers: list[httpx.Response] = []
    caller = threading.Thread(
        target=lambda: answers.append(
            httpx.post(api.process.url + api.target("take", "1", "sleep", "4", "say", word), timeout=30)
        )
    )
    caller.start()
    until(lambda: len(running(word)) == 1, "it runs")
    on = mark()
    kept = api.submit("sleep", "60", "say", on)
    until(lambda: len(running(on)) == 1, "the asynchronous one runs as well")
    stopping = threading.Thread(target=api.process.stop)
    stopping.start()
    found = until(
        lambda: (answer := httpx.get(f"{api.process.url}/readyz")).status_code == 503 and answer,
        "the set says that it drains",
    )
    assert problem(found, 503, "set-draining")["build"] == build_name()
    assert found.json()["executed"] is False
    assert found.headers["Connection"] == "close"
    for headers in ({}, {"Prefer": "respond-async"}):
        refused = httpx.post(api.process.url + api.target("say", "x"), headers=headers)
        assert problem(refused, 503, "set-draining")["executed"] is False
        assert int(refused.headers["Retry-After"]) >= 1
    assert httpx.get(f"{api.process.url}/livez").status_code == 200
    assert httpx.get(f"{api.process.url}/v1/tasks/{kept['id']}").status_code == 200
    caller.join()
    assert (answers[0].status_code, answers[0].content) == (200, f"{word}\n".encode())
    stopping.join()
    idle.close()
    # The asynchronous task goes on with the next start.
    api.process.start()
    until(lambda: len(running(on)) == 1, "it runs again")
    assert api.task(kept["id"])["state"] == "running"
    api.http.post(f"/v1/tasks/{kept['id']}/cancel")


def test_a_drain_has_an_end(start_api: StartApi) -> None:
    api = start_api("drain_timeout_s: 1\n")
    word = mark()
    with api.wire() as wire:
        wire.post(api.target("sleep", "60", "say", word), "Content-Length: 0")
        until(lambda: len(running(word)) == 1, "it runs")
        assert api.process.stop() == 0
        assert wire.received() == b""
    assert running(word) == []


def test_idle_connections_do_not_hold_up_the_end(start_api: StartApi) -> None:
    api = start_api("drain_timeout_s: 3600\n")
    with api.wire() as silent, api.wire() as kept:
        kept.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.answer().status == 200
        assert api.process.stop() == 0
        assert silent.received() == b""


def test_an_interrupt_ends_it_at_once_and_in_order(start_api: StartApi) -> None:
    api = start_api("drain_timeout_s: 3600\n")
    word = mark()
    with api.wire() as wire:
        wire.post(api.target("sleep", "60", "say", word), "Content-Length: 0")
        until(lambda: len(running(word)) == 1, "it runs")
        os.kill(api.process.pid, signal.SIGINT)
        assert wire.received() == b""
    assert api.process.stop() == 0
    assert running(word) == []


def test_expired_tasks_are_unknown(start_api: StartApi) -> None:
    api = start_api("sync_keep_s: 1\nasync_keep_s: 1\n")
    sync_id = api.run("say", "x").headers["X-Task-Id"]
    task = api.submit("print", "100000")
    expires_at = datetime.fromisoformat(api.task(task["id"], wait=20)["expires_at"])
    api.process.stop()
    # Expiry is looked for at the start, and then once a minute.
    until(lambda: datetime.now(UTC) > expires_at, "it expires")
    api.process.start()
    until(lambda: api.tasks() == [], "no task is kept any longer")
    for task_id in (sync_id, task["id"]):
        problem(api.http.get(f"/v1/tasks/{task_id}"), 404, "task-unknown")
    blobs = api.process.folder / "state" / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


def test_a_second_set_on_the_same_state_folder_ends_and_harms_nothing(start_api: StartApi) -> None:
    first = start_api()
    assert first.run("say", "x").content == b"x\n"
    with pytest.raises(RuntimeError, match=r"store is in use by process.*set cannot start"):
        start_api(folder=first.process.folder)
    assert first.run("say", "y").content == b"y\n"
    assert first.http.get("/readyz").status_code == 200
