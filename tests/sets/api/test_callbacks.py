"""Callbacks of a real set: a task's end arrives at a real receiver, whatever happens in between."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from standardwebhooks import Webhook

from tests.conftest import ROOT
from tests.sets.api.conftest import Api, StartApi, problem, until
from tests.sets.api.native.test_openapi import check

pytestmark = pytest.mark.docker

ASYNC = {"Prefer": "respond-async"}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
SETTINGS = f"""
callbacks:
  secrets: {{default: [{SECRET}]}}
  networks: [127.0.0.0/8]
  url: https://compute.example
"""


class Hook:
    """A receiver in a thread; `status_of` decides, by the number of the request, what it answers."""

    def __init__(self, status_of: Callable[[int], int]) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = status_of(len(hook.received))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Say nothing of a sender that was killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def tasks(self) -> list[dict[str, Any]]:
        """The bodies that came, each verified."""
        return [Webhook(SECRET).verify(body, headers) for headers, body in list(self.received)]


@contextmanager
def hook(status_of: Callable[[int], int] = lambda number: 204) -> Iterator[Hook]:
    found = Hook(status_of)
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()


@pytest.fixture(scope="module")
def started(
    engine: docker.DockerClient, tool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartApi]:
    start = StartApi(engine, tool, tmp_path_factory)
    yield start
    start.end()


@pytest.fixture(scope="module")
def calling(started: StartApi) -> Api:
    """A set that makes callbacks."""
    return started(SETTINGS)


def listed(api: Api, **query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.http.get("/v1/callbacks", params=query).json()["callbacks"]
    return found


def one(api: Api, task_id: str) -> dict[str, Any]:
    """The callback of a task; before the task's end there is none."""
    found = [callback for callback in listed(api, limit="1000") if callback["id"] == task_id]
    return found[0] if found else {"state": None, "tries": 0, "error": None}


def in_state(api: Api, task_id: str, state: str) -> dict[str, Any]:
    found: dict[str, Any] = until(
        lambda: callback if (callback := one(api, task_id))["state"] == state else None,
        f"the callback of {task_id} is {state}",
    )
    return found


def test_the_end_of_a_task_is_told_whole_and_signed(calling: Api) -> None:
    with hook() as receiver:
        task = calling.submit("say", "hello", headers={"X-Callback-Url": receiver.url})
        callback = in_state(calling, task["id"], "made")
    (told,) = receiver.tasks()
    ended = calling.task(task["id"], wait=20)
    assert told == ended | {
        "type": "task.ended",
        "timestamp": ended["ended_at"],
        "url": f"https://compute.example/v1/tasks/{task['id']}",
        "left_out": [],
    }
    assert (told["state"], told["stdout_head"]) == ("succeeded", "hello\n")
    assert callback["url"] == receiver.url
    assert (callback["tries"], callback["status"], callback["error"]) == (1, 204, None)
    check("Callback", callback)


@pytest.mark.parametrize(("words", "state"), [(("exit", "3"), "failed"), (("sleep", "600"), "cancelled")])
def test_so_is_a_bad_end(calling: Api, words: tuple[str, ...], state: str) -> None:
    with hook() as receiver:
        task = calling.submit(*words, headers={"X-Callback-Url": receiver.url})
        if state == "cancelled":
            calling.http.post(f"/v1/tasks/{task['id']}/cancel")
        in_state(calling, task["id"], "made")
    assert [told["state"] for told in receiver.tasks()] == [state]


def test_a_receiver_that_fails_once_is_tried_again(calling: Api) -> None:
    with hook(lambda number: 500 if number == 1 else 200) as receiver:
        task = calling.submit("say", "x", headers={"X-Callback-Url": receiver.url})
        waiting = until(lambda: one(calling, task["id"])["tries"] and one(calling, task["id"]), "a first try")
        if waiting["state"] == "waiting":
            assert waiting["error"] == "the receiver answered 500"
            assert waiting["due_at"] > waiting["last_at"]
        assert in_state(calling, task["id"], "made")["tries"] == 2
    assert [told["id"] for told in receiver.tasks()] == [task["id"]] * 2


def test_a_failed_one_is_tried_again_when_asked(calling: Api) -> None:
    with hook(lambda number: 410 if number == 1 else 200) as receiver:
        task = calling.submit("say", "x", headers={"X-Callback-Url": receiver.url})
        failed = in_state(calling, task["id"], "failed")
        assert "410" in failed["error"]
        assert task["id"] in [callback["id"] for callback in listed(calling, state="failed")]
        answer = calling.http.post(f"/v1/callbacks/{task['id']}/retry")
        assert answer.status_code == 200
        check("Callback", answer.json())
        in_state(calling, task["id"], "made")
    again = calling.http.post(f"/v1/callbacks/{task['id']}/retry")
    problem(again, 409, "callback-not-failed")


def test_a_retry_of_anothers_or_of_none_is_refused(calling: Api) -> None:
    with hook() as receiver:
        task = calling.submit("say", "x", headers={"X-Callback-Url": receiver.url})
        in_state(calling, task["id"], "made")
    answer = calling.http.post(f"/v1/callbacks/{task['id']}/retry", headers={"X-Account": "other"})
    problem(answer, 404, "callback-unknown")
    problem(calling.http.post("/v1/callbacks/a-none/retry"), 404, "callback-unknown")
    assert calling.http.get("/v1/callbacks", headers={"X-Account": "other"}).json()["callbacks"] == []


def test_lists_have_pages(calling: Api) -> None:
    with hook() as receiver:
        ids = [
            calling.submit("say", str(number), headers={"X-Callback-Url": receiver.url})["id"]
            for number in range(3)
        ]
        for task_id in ids:
            in_state(calling, task_id, "made")
    first = calling.http.get("/v1/callbacks", params={"state": "made", "limit": 2}).json()
    assert [callback["id"] for callback in first["callbacks"]] == [ids[2], ids[1]]
    assert (first["sets"], first["partial"]) == ([calling.process.name], False)
    rest = listed(calling, state="made", before=first["next"])
    assert rest[0]["id"] == ids[0]


@pytest.mark.parametrize("query", [{"state": "sent"}, {"limit": "0"}, {"limit": "1001"}, {"sate": "made"}])
def test_a_bad_list_is_refused_with_the_parameter(calling: Api, query: dict[str, str]) -> None:
    answer = calling.http.get("/v1/callbacks", params=query)
    assert problem(answer, 400, "bad-parameter")["field"] == next(iter(query))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "must begin with"),
        ("ftp://example.com/", "must begin with"),
        ("https://user:pass@example.com/", "user name"),
        ("https://example.com/#x", "fragment"),
        ("https://example.com:25/", "port 25"),
        ("http://169.254.169.254/latest/meta-data/", "may not reach the address 169.254.169.254"),
        ("https://example.com/" + "x" * 2048, "characters"),
    ],
)
def test_a_bad_address_is_refused_before_the_body_is_read(calling: Api, url: str, said: str) -> None:
    answer = calling.run("say", "x", headers={"X-Callback-Url": url, **ASYNC})
    found = problem(answer, 400, "bad-parameter")
    assert (found["field"], found["executed"]) == ("X-Callback-Url", False)
    assert said in found["detail"]


def test_a_synchronous_call_gets_none(calling: Api) -> None:
    answer = calling.run("say", "x", headers={"X-Callback-Url": "https://example.com/"})
    found = problem(answer, 400, "bad-parameter")
    assert "synchronous" in found["detail"]


def test_a_name_that_leads_to_a_private_address_gets_nothing(started: StartApi) -> None:
    """Where the operator allows no network: `localhost` is a name like any other until it is looked up."""
    private = started(SETTINGS.replace("  networks: [127.0.0.0/8]\n", ""))
    with hook() as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        task = private.submit("say", "x", headers={"X-Callback-Url": url})
        told = until(lambda: one(private, task["id"])["error"], "a first try")
        assert "which callbacks may not reach" in told
    assert receiver.received == []


def test_the_metrics_count_them(calling: Api) -> None:
    with hook() as receiver:
        task = calling.submit("say", "x", headers={"X-Callback-Url": receiver.url})
        in_state(calling, task["id"], "made")
    text = calling.http.get("/metrics").text
    made = re.search(r'^gc_callbacks_ended_total\{state="made"\} (\S+)$', text, re.MULTILINE)
    assert made is not None
    assert float(made[1]) >= 1
    assert "gc_callbacks_waiting " in text


def test_it_is_made_though_the_set_is_killed_before_and_after_the_answer(started: StartApi) -> None:
    api = started(SETTINGS)
    asked, may_answer = threading.Event(), threading.Event()

    def status_of(number: int) -> int:
        asked.set()
        may_answer.wait()
        return 204

    with hook(status_of) as receiver:
        task = api.submit("say", "x", headers={"X-Callback-Url": receiver.url})
        assert asked.wait(60)
        api.process.kill()
        may_answer.set()
        api.process.start()
        in_state(api, task["id"], "made")
        api.process.kill()
        api.process.start()
        assert one(api, task["id"])["state"] == "made"
        later = api.submit("say", "y", headers={"X-Callback-Url": receiver.url})
        in_state(api, later["id"], "made")
    told = [each["id"] for each in receiver.tasks()]
    assert told == [task["id"], task["id"], later["id"]], "twice where the answer was lost, and never again"


def test_the_example_of_the_documentation_works(calling: Api, tmp_path: Path) -> None:
    page = (ROOT / "sets/docs/callbacks.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    program = tmp_path / "receiver.py"
    program.write_text(source)
    environment = os.environ | {"CALLBACK_SECRET": SECRET, "PORT": "0"}
    with subprocess.Popen(
        [sys.executable, program],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            port = running.stdout.readline().split()[-1]
            forged = httpx.post(f"http://127.0.0.1:{port}/", content=b"{}", timeout=60)
            assert forged.status_code == 401
            task = calling.submit("say", "x", headers={"X-Callback-Url": f"http://127.0.0.1:{port}/"})
            assert running.stdout.readline().split() == [task["id"], "succeeded"]
        finally:
            running.kill()
    in_state(calling, task["id"], "made")
