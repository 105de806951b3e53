"""A client that goes away ends its task, whatever it waits for; the slot serves the next."""

from __future__ import annotations

import threading
import time

import pytest

from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until
from tests.sets.api.wire import Wire

pytestmark = pytest.mark.docker


def cancelled(api: Api, name: str) -> dict[str, object]:
    """The one task of this name, once it is recorded as cancelled."""
    return until(  # type: ignore[no-any-return]
        lambda: next((task for task in api.tasks(name=name) if task["state"] == "cancelled"), None),
        "the task is recorded as cancelled",
    )


@pytest.mark.parametrize("how", ["close", "vanish"])
@pytest.mark.parametrize("body", ["small", "streamed"])
def test_while_the_task_runs(api: Api, how: str, body: str) -> None:
    word = mark()
    with api.wire() as wire:
        target = api.target("children", "2", "take", "1", "sleep", "60", word, name=word)
        if body == "small":
            wire.post(target, "Content-Length: 2")
            wire.send("ab")
        else:
            wire.post(target, "Transfer-Encoding: chunked")
            wire.send("1\r\na\r\n")
        until(lambda: len(running(word)) == 3, "the program and its children run")
        wire.vanish() if how == "vanish" else wire.close()
        until(lambda: running(word) == [], "the whole process tree is gone")
    task = cancelled(api, word)
    assert (task["reason"], task["kind"]) == ("client_gone", "sync")
    assert api.run("say", "next").content == b"next\n"


def test_while_the_answer_streams(api: Api) -> None:
    word = mark()
    wire = api.wire()
    wire.post(api.target("print", "1000000000", "say", word, name=word), "Content-Length: 0")
    assert wire.begun().read(100_000) == b"x" * 100_000
    assert len(running(word)) == 1
    wire.vanish()
    until(lambda: running(word) == [], "the program is gone")
    assert cancelled(api, word)["reason"] == "client_gone"


def test_while_it_waits_for_a_slot(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    busy = [api.wire() for _ in range(2)]
    for wire in busy:
        wire.post(api.target("sleep", "60", "say", word), "Content-Length: 0")
    until(lambda: len(running(word)) == 2, "both cores are busy")
    waiting = api.wire()
    waiting.post(api.target("say", "waited", mark(), queue_timeout_s=60), "Content-Length: 0")

    def facts() -> dict[str, int]:
        return api.http.get("/readyz").json()  # type: ignore[no-any-return]

    until(lambda: facts()["tasks_waiting"] == 1, "the third waits")
    waiting.vanish()
    until(lambda: facts()["tasks_waiting"] == 0, "it no longer waits")
    for wire in busy:
        wire.vanish()
    until(lambda: facts()["slots_running"] == 0, "no slot runs a task")
    assert facts()["tasks_known"] == 0
    assert api.run("say", "next").headers["X-Cold-Start"] == "0"


def test_the_queue_time_out(start_api: StartApi) -> None:
    api = start_api()
    word = mark()
    busy = [api.wire() for _ in range(2)]
    for wire in busy:
        wire.post(api.target("sleep", "60", "say", word), "Content-Length: 0")
    until(lambda: len(running(word)) == 2, "both cores are busy")
    for body in (b"", b"b" * 100_000):
        answer = api.run("say", "x", body=body, queue_timeout_s=0.2)
        found = problem(answer, 503, "queue-timeout")
        assert found["executed"] is False
        assert "queue_timeout_s" in found["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
    assert problem(api.run("say", "x", queue_timeout_s=0), 503, "queue-timeout")["executed"] is False
    for wire in busy:
        wire.vanish()


def test_a_reader_that_stops_reading_holds_its_slot_only_until_the_time_out(api: Api) -> None:
    word = mark()
    with api.wire() as wire:
        wire.post(api.target("print", "1000000000", "say", word, name=word, timeout_s=1), "Content-Length: 0")
        answer = wire.begun()
        assert answer.read(10) == b"x" * 10
        until(lambda: running(word) == [], "the program is gone")
        state = until(lambda: api.task(answer.headers["X-Task-Id"])["ended_at"], "its end is recorded")
        assert state
        assert api.task(answer.headers["X-Task-Id"])["state"] == "timed_out"


def test_a_client_that_leaves_while_its_task_is_being_kept_has_submitted_it(api: Api) -> None:
    name = mark()
    leaving = 20
    body = b"k" * 40_000

    def submit_and_leave(delay_s: float) -> None:
        with Wire(api.process.port) as wire:
            wire.post(api.target("sink", name=name), "Prefer: respond-async", f"Content-Length: {len(body)}")
            wire.send(body)
            time.sleep(delay_s)
            wire.vanish()

    threads = [threading.Thread(target=submit_and_leave, args=(n * 0.0005,)) for n in range(leaving)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # However far each came: what was kept runs to its end, with its whole input.
    until(
        lambda: all(task["state"] not in ("queued", "running") for task in api.tasks(name=name)),
        "every task that was kept has ended",
    )
    for task in api.tasks(name=name):
        assert (task["state"], task["stdout_head"]) == ("succeeded", str(len(body)))
