"""Tasks that run again: asked for by their caller, or replayed after the platform gave them up."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = pytest.mark.docker


def end_of(api: Api, task: dict[str, Any]) -> dict[str, Any]:
    """The task once it has ended, over as many attempts as it takes."""

    def ended() -> dict[str, Any] | None:
        found = api.task(task["id"], wait=30)
        return found if found["ended_at"] else None

    found: dict[str, Any] = until(ended, "the task ends", timeout_s=600)
    return found


def test_a_task_that_fails_runs_again_as_often_as_it_asked(api: Api) -> None:
    task = api.submit("burn", "20", "exit", "7", retries=1)
    assert (task["retries"], task["retry_exit_codes"], task["failed_attempts"]) == (1, [], [])
    ended = end_of(api, task)
    assert (ended["state"], ended["reason"], ended["exit_code"], ended["attempts"]) == (
        "failed",
        "exit",
        7,
        2,
    )
    (failed,) = ended["failed_attempts"]
    assert (failed["reason"], failed["exit_code"], failed["signal"]) == ("exit", 7, None)
    assert failed["started_at"] < ended["started_at"]
    assert failed["cpu_us"] > 0
    # Both attempts burnt 20 ms.
    assert ended["cpu_us"] >= failed["cpu_us"] + 20_000
    assert ended["duration_us"] > failed["duration_us"]
    assert not ended["dead"]


def test_only_the_named_exit_codes_count(api: Api) -> None:
    once = api.submit("exit", "7", retries=3, retry_exit_code=[74, 75])
    assert once["retry_exit_codes"] == [74, 75]
    assert end_of(api, once)["attempts"] == 1


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ({"retries": 21}, "retries", "from 0 to 20"),
        ({"retries": -1}, "retries", "from 0 to 20"),
        ({"retries": 1, "retry_exit_code": 0}, "retry_exit_code", "from 1 to 255"),
        ({"retry_exit_code": 75}, "retry_exit_code", "say with retries=1 or more"),
    ],
)
def test_retries_that_make_no_sense_are_refused(
    api: Api, query: dict[str, Any], field: str, says: str
) -> None:
    answer = api.run("cat", headers={"Prefer": "respond-async"}, **query)
    told = problem(answer, 400, "bad-parameter")
    assert told["field"] == field
    assert says in told["detail"]


@pytest.mark.parametrize("query", [{"retries": 1}, {"retries": 1, "retry_exit_code": 75}])
def test_a_synchronous_call_is_not_run_again(api: Api, query: dict[str, Any]) -> None:
    told = problem(api.run("cat", **query), 400, "bad-parameter")
    assert told["field"] == "retries"
    assert "Prefer: respond-async" in told["detail"]
    assert api.run("say", "x", retries=0).status_code == 200


def test_a_set_killed_between_two_attempts_goes_on_with_the_next(start_api: StartApi) -> None:
    api = start_api()
    task = api.submit("burn", "20", "exit", "7", body=b"input", retries=2)
    until(lambda: api.task(task["id"])["failed_attempts"], "the first attempt has failed")
    api.process.kill()
    api.process.start()
    ended = end_of(api, task)
    assert (ended["state"], ended["exit_code"], len(ended["failed_attempts"])) == ("failed", 7, 2)
    # One that ran while the set was killed is lost, and not billed.
    assert ended["attempts"] in (3, 4)
    assert ended["cpu_us"] >= sum(failed["cpu_us"] for failed in ended["failed_attempts"]) + 20_000


def test_a_task_that_the_platform_gave_up_is_replayed_with_its_input(
    start_api: StartApi, engine: docker.DockerClient
) -> None:
    api = start_api()
    word = mark()
    task = api.submit("take", "5", "sleep", "600", "say", word, body=b"input", name="mine")
    label = f"org.general-compute.set={api.process.name}"
    for attempt in (1, 2, 3):
        until(lambda: running(word), "an attempt runs")
        until(lambda attempt=attempt: api.task(task["id"])["attempts"] == attempt, "it is counted")  # type: ignore[misc]
        for slot in engine.containers.list(filters={"label": label}):
            slot.kill()
    ended = end_of(api, task)
    assert (ended["state"], ended["reason"], ended["dead"], ended["cpu_us"]) == (
        "failed",
        "platform",
        True,
        0,
    )
    assert [each["id"] for each in api.tasks(state="dead")] == [task["id"]]
    assert api.tasks(state="dead", name="other") == []
    answer = api.http.post(f"/v1/tasks/{task['id']}/replay")
    replay = answer.json()
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/tasks/{replay['id']}")
    assert (replay["replay_of"], replay["name"], replay["stdin_bytes"]) == (task["id"], "mine", 5)
    # The program waits for its input before it sleeps.
    until(lambda: running(word), "the replay runs")
    assert api.http.post(f"/v1/tasks/{task['id']}/replay").json()["id"] == replay["id"]
    assert api.tasks(state="dead") == []
    assert api.task(task["id"])["replayed_as"] == replay["id"]
    metrics = api.http.get("/metrics").text
    assert "gc_dead_letters 0.0" in metrics
    assert 'gc_attempts_repeated_total{cause="platform"} 3.0' in metrics
    api.http.post(f"/v1/tasks/{replay['id']}/cancel")


def test_what_is_no_dead_letter_is_not_replayed(api: Api) -> None:
    task = api.submit("exit", "7")
    end_of(api, task)
    told = problem(api.http.post(f"/v1/tasks/{task['id']}/replay"), 409, "task-not-dead")
    assert "GET /v1/tasks?state=dead" in told["detail"]
    problem(api.http.post("/v1/tasks/a-none/replay"), 404, "task-unknown")
    problem(
        api.http.post(f"/v1/tasks/{task['id']}/replay", headers={"X-Account": "other"}), 404, "task-unknown"
    )
    assert api.http.get(f"/v1/tasks/{task['id']}/replay").status_code == 405
