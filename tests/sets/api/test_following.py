"""The output of a task while it waits and runs, as a client follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.sets.api.conftest import Api, StartApi, problem, until

pytestmark = pytest.mark.docker


class Following:
    """A follower's answer, read bit by bit."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.data = b""
        self._pieces = answer.iter_raw()

    def until(self, end: bytes) -> bytes:
        """Read on until what came ends so."""
        while not self.data.endswith(end):
            self.data += next(self._pieces)
        return self.data

    def rest(self) -> bytes:
        """All, once the answer is whole. Raises `httpx.RemoteProtocolError` where it is broken off."""
        for piece in self._pieces:
            self.data += piece
        return self.data


@contextmanager
def follow(api: Api, task_id: str, what: str = "stdout", **headers: str) -> Iterator[Following]:
    with (
        httpx.Client(base_url=api.process.url, timeout=60, headers=headers) as http,
        http.stream("GET", f"/v1/tasks/{task_id}/{what}", params={"follow": "1"}) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        yield Following(answer)


def is_broken_off(following: Following) -> bool:
    try:
        following.rest()
    except httpx.RemoteProtocolError:
        return True
    return False


def metric(api: Api, name: str) -> float:
    lines = api.http.get("/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def test_a_running_task_is_followed_from_its_first_byte(api: Api) -> None:
    """What it wrote before, and what comes; a small output, which its slot would keep until the end."""
    task = api.submit("say", "first", "warn", "careful", "sleep", "600")
    with follow(api, task["id"]) as out, follow(api, task["id"], "stderr") as err:
        assert (out.until(b"first\n"), err.until(b"careful")) == (b"first\n", b"careful")
        assert out.answer.headers["X-Attempt"] == "1"
        assert out.answer.headers["X-First-Byte"] == "0"
        assert "Content-Length" not in out.answer.headers
        with follow(api, task["id"]) as late:
            assert late.until(b"first\n") == b"first\n", "a second follower gets all of it"
            assert metric(api, "gc_followers ") >= 3
            assert api.task(task["id"])["state"] == "running"
            api.http.post(f"/v1/tasks/{task['id']}/cancel")
            assert is_broken_off(out)
            assert is_broken_off(err)
            assert is_broken_off(late)
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == b"first\n", "it is kept as always"


def test_the_answer_ends_with_a_task_that_succeeds(api: Api) -> None:
    task = api.submit("say", "a", "sleep", "0.2", "say", "b", "sleep", "0.2", "warn", "c")
    with follow(api, task["id"]) as out, follow(api, task["id"], "stderr") as err:
        assert (out.rest(), err.rest()) == (b"a\nb\n", b"c")
    ended = api.task(task["id"])
    assert (ended["state"], ended["stdout_bytes"], ended["stderr_bytes"]) == ("succeeded", 4, 1)
    answer = api.http.get(f"/v1/tasks/{task['id']}/stdout", params={"follow": "1"})
    assert (answer.content, answer.headers["Content-Length"]) == (b"a\nb\n", "4"), "as without follow"


@pytest.mark.parametrize("size", [0, 60_000, 61_441, 5_000_000])
def test_outputs_of_any_size_are_followed_whole(api: Api, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    task = api.submit("sleep", "0.1", "cat", body=body)
    with follow(api, task["id"]) as out:
        assert out.rest() == body
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == body


def test_a_failure_breaks_the_answer_off(api: Api) -> None:
    task = api.submit("sleep", "0.2", "say", "half", "exit", "7")
    with follow(api, task["id"]) as out:
        assert is_broken_off(out)
        assert out.data == b"half\n"
    assert api.task(task["id"])["exit_code"] == 7


def test_a_waiting_task_is_followed_from_its_start(start_api: StartApi) -> None:
    api = start_api()
    blocks = api.submit("sleep", "600", cpu=2)
    until(lambda: api.task(blocks["id"])["state"] == "running", "the first task holds all cores")
    waits = api.submit("say", "here")
    with follow(api, waits["id"]) as out:
        assert out.answer.headers["X-Attempt"] == "1"
        assert api.http.get(f"/v1/tasks/{waits['id']}/stdout", params={"follow": "0"}).content == b""
        api.http.post(f"/v1/tasks/{blocks['id']}/cancel")
        assert out.rest() == b"here\n"


def test_a_waiting_task_that_is_cancelled_breaks_the_answer_off(start_api: StartApi) -> None:
    api = start_api()
    blocks = api.submit("sleep", "600", cpu=2)
    until(lambda: api.task(blocks["id"])["state"] == "running", "the first task holds all cores")
    waits = api.submit("say", "never")
    with follow(api, waits["id"]) as out:
        api.http.post(f"/v1/tasks/{waits['id']}/cancel")
        assert is_broken_off(out)
        assert out.data == b""


def test_what_a_running_task_has_written_so_far(api: Api) -> None:
    task = api.submit("say", "first", "sleep", "600")

    def so_far() -> bytes:
        answer = api.http.get(f"/v1/tasks/{task['id']}/stdout", params={"follow": "0"})
        assert answer.status_code == 200
        return answer.content

    until(lambda: so_far() == b"first\n", "the first line is there")
    problem(api.http.get(f"/v1/tasks/{task['id']}/stdout"), 409, "task-not-finished")
    api.http.post(f"/v1/tasks/{task['id']}/cancel")
    assert so_far() == b"first\n", "and stays, as the task's result"


def test_a_sync_task_is_followed_beside_its_caller(api: Api) -> None:
    with api.wire() as caller:
        caller.post(api.target("cat", stream=1), "Transfer-Encoding: chunked")
        caller.send("4\r\none \r\n")
        answer = caller.begun()
        task_id = answer.headers["X-Task-Id"]
        with follow(api, task_id) as out, follow(api, task_id, "stderr") as err:
            assert out.until(b"one ") == b"one ", "what was written before"
            caller.send("3\r\ntwo\r\n0\r\n\r\n")
            assert (out.rest(), err.rest()) == (b"one two", b"")
        assert answer.read() == b"one two"
    problem(api.http.get(f"/v1/tasks/{task_id}/stdout", params={"follow": "1"}), 410, "result-gone")


def test_a_sync_task_whose_caller_leaves_breaks_its_followers_off(api: Api) -> None:
    with api.wire() as caller:
        caller.post(api.target("cat", stream=1), "Transfer-Encoding: chunked")
        caller.send("4\r\none \r\n")
        task_id = caller.begun().headers["X-Task-Id"]
        with follow(api, task_id) as out:
            out.until(b"one ")
            caller.close()
            assert is_broken_off(out)


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ({"follow": "yes"}, {}, "follow"),
        ({"follow": ""}, {}, "follow"),
        ({"follows": "1"}, {}, "follows"),
        ({"follow": "1"}, {"Range": "bytes=0-"}, "Range"),
    ],
)
def test_what_cannot_be_asked(api: Api, query: dict[str, str], headers: dict[str, str], field: str) -> None:
    task = api.submit("say", "x")
    for what in ("stdout", "stderr"):
        answer = api.http.get(f"/v1/tasks/{task['id']}/{what}", params=query, headers=headers)
        assert problem(answer, 400, "bad-parameter")["field"] == field
    answer = api.http.get(f"/v1/tasks/{task['id']}/files/tmp/x", params={"follow": "1"})
    assert problem(answer, 400, "bad-parameter")["field"] == "follow"
    assert api.http.head(f"/v1/tasks/{task['id']}/stdout", params={"follow": "1"}).status_code == 400


def test_another_accounts_task_is_not_there(api: Api) -> None:
    task = api.submit("say", "secret", "sleep", "600")
    for follows in ("0", "1"):
        answer = api.http.get(
            f"/v1/tasks/{task['id']}/stdout", params={"follow": follows}, headers={"X-Account": "other"}
        )
        problem(answer, 404, "task-unknown")
    api.http.post(f"/v1/tasks/{task['id']}/cancel")


def test_followers_are_bounded_by_account_and_in_all(start_api: StartApi) -> None:
    api = start_api("max_followers: 3\nmax_followers_account: 2\n")
    tasks = {name: api.submit("sleep", "600", headers={"X-Account": name}) for name in ("one", "two")}

    def ask(account: str) -> httpx.Response:
        path = f"/v1/tasks/{tasks[account]['id']}/stdout"
        return api.http.get(path, params={"follow": "1"}, headers={"X-Account": account})

    one, two = tasks["one"]["id"], tasks["two"]["id"]
    with follow(api, one, **{"X-Account": "one"}), follow(api, one, "stderr", **{"X-Account": "one"}):
        answer = ask("one")
        problem(answer, 429, "account-limit")
        assert int(answer.headers["Retry-After"]) > 0
        with follow(api, two, **{"X-Account": "two"}):
            answer = ask("two")
            problem(answer, 503, "set-full")
            assert int(answer.headers["Retry-After"]) > 0
    until(lambda: metric(api, "gc_followers ") == 0, "followers that went away have given their places back")


def test_a_set_that_stops_ends_its_followers(start_api: StartApi) -> None:
    """At once: it does not wait for the end of what they follow."""
    api = start_api("drain_timeout_s: 600\ndrain_notice_s: 0\n")
    task: dict[str, Any] = api.submit("say", "first", "sleep", "600")
    with follow(api, task["id"]) as out:
        out.until(b"first\n")
        api.process.ask_to_stop()
        assert is_broken_off(out)
    api.process.stop()
