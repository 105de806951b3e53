"""A set that an operator drains for an upgrade: by the command, over HTTP, with real slots."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = pytest.mark.docker


def command(api: Api, *words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("gcompute")), "set", *words, "--url", api.process.url]


def gcompute(api: Api, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(api, *words), capture_output=True, text=True, check=False)


def drain(api: Api) -> dict[str, object]:
    found: dict[str, object] = api.http.get("/v1/admin/drain").json()
    return found


def test_a_drained_set_has_finished_what_ran_and_begun_nothing_new(start_api: StartApi) -> None:
    api = start_api("body_stall_s: 3600\n")
    may_end = threading.Event()

    def held_open() -> Iterator[bytes]:
        """An input that ends when the test says so, and with it the task."""
        yield b"begun"
        may_end.wait()

    def call(*words: str, body: Any = b"") -> httpx.Response:
        target = api.process.url + api.target(*words, queue_timeout_s=300)
        return httpx.post(target, content=body, timeout=None)

    with ThreadPoolExecutor() as callers:
        word = mark()
        run = [callers.submit(call, "sink", "say", word, body=held_open()) for _ in range(2)]
        until(lambda: len(running(word)) == 2, "both cores are busy")
        waits = api.submit("say", "later")
        caller = callers.submit(call, "say", "now")
        until(lambda: drain(api)["waiting"] == 2, "the caller waits")
        with subprocess.Popen(command(api, "drain"), stdout=subprocess.PIPE, text=True) as draining:
            until(lambda: drain(api)["draining"], "the set drains")
            assert problem(caller.result(), 503, "set-draining")["executed"] is False
            assert (drain(api)["running"], draining.poll()) == (2, None)
            may_end.set()
            said = draining.communicate()[0]
    assert draining.returncode == 0
    assert f"set {api.process.name} is drained; tasks that run: 0, that wait: 1" in said
    assert [each.result().text for each in run] == [f"5{word}\n"] * 2
    assert api.task(waits["id"])["state"] == "queued"
    problem(api.http.get("/readyz"), 503, "set-draining")
    for headers in ({}, {"Prefer": "respond-async"}):
        assert problem(api.run("say", "x", headers=headers), 503, "set-draining")["executed"] is False
    # The next start begins what waited.
    api.process.stop()
    api.process.start()
    assert api.task(waits["id"], wait=60)["state"] == "succeeded"


def test_a_set_that_resumes_begins_what_waited(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    runs = api.submit("sleep", "120", "say", word)
    until(lambda: running(word), "it runs")
    done = gcompute(api, "drain", "--timeout", "0")
    assert (done.returncode, "still runs tasks, and goes on draining" in done.stdout) == (75, True)
    api.http.post(f"/v1/tasks/{runs['id']}/cancel")
    done = gcompute(api, "resume")
    assert (done.returncode, "takes tasks" in done.stdout) == (0, True)
    assert api.http.get("/v1/admin/drain").json() == {
        "set": api.process.name,
        "draining": False,
        "running": 0,
        "waiting": 0,
    }
    assert api.run("say", "again").content == b"again\n"
    assert problem(api.http.put("/v1/admin/drain?force=1"), 400, "bad-parameter")["field"] == "force"


def test_only_operators_drain(api: Api) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = api.http.request(method, "/v1/admin/drain", headers={"X-Forwarded-For": "10.0.0.5"})
        assert problem(answer, 403, "forbidden")["executed"] is False
    assert api.http.get("/readyz").status_code == 200
