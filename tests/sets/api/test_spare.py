"""Spare tasks through the API: they run on what normal tasks leave, and give way to them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sets.api.conftest import Api, StartApi, mark, running, until

pytestmark = pytest.mark.docker


def gave_way(api: Api) -> float:
    metrics = api.http.get("/metrics").text
    (line,) = [line for line in metrics.splitlines() if line.startswith("gc_spare_gave_way_total ")]
    return float(line.split()[1])


def test_a_spare_task_gives_way_to_a_normal_one_and_runs_again(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    spare = api.submit("sleep", "600", word, priority="spare", cpu=2)
    assert spare["priority"] == "spare"
    until(lambda: running(word), "the spare task runs")
    room = api.http.get("/readyz").json()
    assert (room["cores_busy"], room["cores_spare"]) == (0, 2)
    # The normal one has a core, though nobody cancelled anything.
    assert api.run("say", "now").content == b"now\n"
    assert gave_way(api) == 1
    until(lambda: running(word), "the spare task runs again")
    task = api.task(spare["id"])
    assert (task["state"], task["attempts"], task["cpu_us"]) == ("running", 1, 0)
    api.http.post(f"/v1/tasks/{spare['id']}/cancel")
    assert api.task(spare["id"], wait=30)["state"] == "cancelled"


def test_a_sync_spare_call_waits_again_a_few_times_and_is_then_told(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    with api.wire() as wire:
        query: dict[str, Any] = {"priority": "spare", "cpu": 2, "timeout_s": 300, "queue_timeout_s": 300}
        wire.post(api.target("sleep", "600", word, **query), "Content-Length: 0")
        until(lambda: running(word), "the spare task runs")
        # Its caller has seen nothing, so it waits again; others have the core as often as they want it.
        for number in range(1, 4):
            assert api.run("say", "now").content == b"now\n"
            until(lambda number=number: gave_way(api) == number and running(word), "it runs again")  # type: ignore[misc]
        assert api.run("say", "now").content == b"now\n"
        answer = wire.answer()
    assert answer.problem(503, "gave-way")["executed"]
