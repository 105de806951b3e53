"""An asynchronous run: accepted, waited for, fetched, cancelled, asked for again under its key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from typing import Any

import pytest

from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = pytest.mark.docker

ASYNC = {"Prefer": "respond-async"}


def test_from_the_202_to_its_results(api: Api) -> None:
    task = api.submit(
        "cat",
        "warn",
        "careful",
        "file",
        "/tmp/out.txt",
        "kept",
        body=b"input",
        name="mine",
        output="/tmp/out.txt",
    )
    assert task["id"].startswith(f"{api.process.name}-")
    assert (task["kind"], task["name"], task["stdin_bytes"]) == ("async", "mine", 5)
    assert task["state"] in ("queued", "running")
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"], ended["exit_code"], ended["signal"]) == (
        "succeeded",
        None,
        0,
        None,
    )
    assert (ended["attempts"], ended["stdout_bytes"], ended["stderr_bytes"]) == (1, 5, 7)
    assert (ended["stdout_head"], ended["stderr_head"]) == ("input", "careful")
    assert ended["files"] == {"/tmp/out.txt": 4}
    assert ended["created_at"] <= ended["started_at"] <= ended["ended_at"] < ended["expires_at"]
    for path, content in (("stdout", b"input"), ("stderr", b"careful"), ("files/tmp/out.txt", b"kept")):
        answer = api.http.get(f"/v1/tasks/{task['id']}/{path}")
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["Content-Length"] == str(len(content))
        assert answer.headers["X-Set"] == api.process.name


@pytest.mark.parametrize(
    "prefer", ["respond-async", "Respond-Async; wait=5", "handling=lenient, respond-async"]
)
def test_what_asks_for_an_asynchronous_run(api: Api, prefer: str) -> None:
    assert api.run("say", "x", headers={"Prefer": prefer}).status_code == 202


@pytest.mark.parametrize("prefer", ["", "return=minimal", "respond-asynchronously"])
def test_what_does_not(api: Api, prefer: str) -> None:
    assert api.run("say", "x", headers={"Prefer": prefer}).status_code == 200


@pytest.mark.parametrize("size", [0, 32_768, 32_769, 3_000_000])
@pytest.mark.parametrize("sent", ["whole", "chunked"])
def test_input_and_output_of_any_size(api: Api, size: int, sent: str) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    task = api.submit("cat", body=body if sent == "whole" else iter([body[:1000], body[1000:]]))
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["stdin_bytes"], ended["stdout_bytes"]) == ("succeeded", size, size)
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == body


@pytest.mark.parametrize("size", [1000, 100_000])
def test_ranges(api: Api, size: int) -> None:
    whole = (b"0123456789" * (size // 10))[:size]
    task = api.submit("cat", body=whole)
    api.task(task["id"], wait=20)

    def ask(wanted: str) -> tuple[int, bytes, str | None]:
        answer = api.http.get(f"/v1/tasks/{task['id']}/stdout", headers={"Range": wanted})
        return answer.status_code, answer.content, answer.headers.get("Content-Range")

    last = size - 1
    assert ask("bytes=0-") == (206, whole, f"bytes 0-{last}/{size}")
    assert ask("bytes=0-0") == (206, b"0", f"bytes 0-0/{size}")
    assert ask("bytes=501-600") == (206, whole[501:601], f"bytes 501-600/{size}")
    assert ask(f"bytes={last}-{size + 50}") == (206, b"9", f"bytes {last}-{last}/{size}")
    assert ask("bytes=-3") == (206, b"789", f"bytes {size - 3}-{last}/{size}")
    assert ask(f"bytes=-{size * 2}") == (206, whole, f"bytes 0-{last}/{size}")
    for ignored in ("bytes=5-2", "lines=1-2", "bytes=0-1,5-6", "bytes=-", "bytes=x-"):
        assert ask(ignored) == (200, whole, None)
    for outside in (f"bytes={size}-", "bytes=-0"):
        answer = api.http.get(f"/v1/tasks/{task['id']}/stdout", headers={"Range": outside})
        problem(answer, 416, "range-not-satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    ("words", "state", "reason"),
    [
        (("say", "half", "exit", "7"), "failed", "exit"),
        (("say", "half", "signal", "15"), "failed", "signal"),
        (("say", "half", "sleep", "60"), "timed_out", "timeout"),
        (("say", "half", "eat", "100"), "failed", "out_of_memory"),
    ],
)
def test_a_program_that_fails_leaves_what_it_said(
    api: Api, words: tuple[str, ...], state: str, reason: str
) -> None:
    task = api.submit(*words, timeout_s=1 if reason == "timeout" else 30, memory_mib=48)
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"]) == (state, reason)
    assert ended["detail"]
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == b"half\n"


def test_output_beyond_what_a_set_keeps_is_marked_as_cut(start_api: StartApi) -> None:
    mib = 1 << 20
    api = start_api("max_stdout_mib: 1\nmax_stderr_mib: 1\n")
    whole = api.task(api.submit("print", str(mib), "grumble", str(mib))["id"], wait=20)
    assert (whole["state"], whole["detail"]) == ("succeeded", None)

    chatty = api.task(api.submit("print", "5", "grumble", str(mib + 7))["id"], wait=20)
    said = f"of its stderr, {mib + 7} bytes, this set keeps the first {mib}"
    assert (chatty["state"], chatty["detail"], chatty["stderr_bytes"]) == ("succeeded", said, mib + 7)
    large = api.task(api.submit("print", str(3 * mib))["id"], wait=20)
    assert (large["state"], large["reason"]) == ("failed", "output_too_large")
    assert large["detail"].endswith(
        f"; of its stdout, {large['stdout_bytes']} bytes, this set keeps the first {mib}"
    )

    def missing(task: dict[str, Any], what: str, **headers: str) -> str | None:
        answer = api.http.get(f"/v1/tasks/{task['id']}/{what}", headers=headers)
        assert int(answer.headers["Content-Length"]) <= mib
        found: str | None = answer.headers.get("X-Missing-Bytes")
        return found

    assert missing(chatty, "stderr") == missing(chatty, "stderr", Range="bytes=0-9") == "7"
    assert missing(large, "stdout") == str(large["stdout_bytes"] - mib)
    assert [missing(whole, "stdout"), missing(whole, "stderr"), missing(chatty, "stdout")] == [None] * 3


def test_files_that_are_not_there(api: Api) -> None:
    task = api.submit("say", "x", output=["/tmp/never", "/tmp", "/dev/zero"])
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["files"]) == ("succeeded", {})
    found = problem(api.http.get(f"/v1/tasks/{task['id']}/files/tmp/never"), 404, "file-unknown")
    assert "/tmp/never" in found["detail"]


def test_results_before_the_end(api: Api) -> None:
    task = api.submit("sleep", "60")
    for path in ("stdout", "stderr", "files/tmp/x"):
        answer = api.http.get(f"/v1/tasks/{task['id']}/{path}")
        assert "wait" in problem(answer, 409, "task-not-finished")["detail"]
    assert api.task(task["id"], wait=0.1)["state"] in ("queued", "running")
    api.http.post(f"/v1/tasks/{task['id']}/cancel")


def test_wait_returns_at_the_end(api: Api) -> None:
    task = api.submit("take", "1", "sleep", "0.2")
    assert api.task(task["id"], wait=30)["state"] == "succeeded"


@pytest.mark.parametrize("wait", ["0", "1e-9", "1E-300", str(0.1 + 0.2), "0.00001"])
def test_a_short_wait(api: Api, wait: str) -> None:
    task = api.submit("sleep", "60")
    answer = api.http.get(f"/v1/tasks/{task['id']}", params={"wait": wait})
    assert answer.status_code == 200
    assert answer.json()["state"] in ("queued", "running")
    api.http.post(f"/v1/tasks/{task['id']}/cancel")


@pytest.mark.parametrize("wait", ["-1", "61", "60.0001", "x", "", "1e1", "nan", "٣"])
def test_a_bad_wait(api: Api, wait: str) -> None:
    found = problem(api.http.get("/v1/tasks/x", params={"wait": wait}), 400, "bad-parameter")
    assert found["field"] == "wait"


# -- cancel


def test_cancel_while_it_runs(api: Api) -> None:
    word = mark()
    task = api.submit("say", "begun", "children", "2", "sleep", "60", word)
    until(lambda: len(running(word)) == 3, "it runs")
    answer = api.http.post(f"/v1/tasks/{task['id']}/cancel")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["reason"]) == ("cancelled", "cancelled")
    assert running(word) == []
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == b"begun\n"
    again = api.http.post(f"/v1/tasks/{task['id']}/cancel")
    assert (again.status_code, again.json()) == (200, api.task(task["id"]))


def test_cancel_when_it_has_ended(api: Api) -> None:
    task = api.submit("say", "x")
    ended = api.task(task["id"], wait=20)
    assert ended["state"] == "succeeded"
    assert api.http.post(f"/v1/tasks/{task['id']}/cancel").json() == ended


def test_cancel_while_it_waits(api: Api) -> None:
    word = mark()
    busy = [api.submit("sleep", "60", "say", word) for _ in range(2)]
    until(lambda: len(running(word)) == 2, "both cores are busy")
    waiting = api.submit("say", "never")
    assert waiting["waiting_for"] == "all slots of its kind are busy (2)"
    asked = api.task(waiting["id"])
    assert (asked["state"], asked["waiting_for"]) == ("queued", waiting["waiting_for"])
    assert [task["waiting_for"] for task in api.tasks(limit=2)] == [waiting["waiting_for"], None]
    ended = api.http.post(f"/v1/tasks/{waiting['id']}/cancel").json()
    assert (ended["state"], ended["reason"], ended["started_at"]) == ("cancelled", "cancelled", None)
    assert (ended["attempts"], ended["cpu_us"], ended["waiting_for"]) == (0, 0, None)
    for task in busy:
        api.http.post(f"/v1/tasks/{task['id']}/cancel")


def test_cancel_of_a_sync_task_breaks_its_answer_off(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("say", "begun", "sleep", "60", stream=1), "Content-Length: 0")
        answer = wire.begun()
        task_id = answer.headers["X-Task-Id"]
        assert api.task(task_id)["state"] == "running"
        ended = api.http.post(f"/v1/tasks/{task_id}/cancel").json()
        assert (ended["state"], ended["reason"], ended["kind"]) == ("cancelled", "cancelled", "sync")
        with pytest.raises(IncompleteRead):
            answer.read()


# -- idempotency


def test_the_same_request_under_its_key_is_the_same_task(api: Api) -> None:
    key = {"Idempotency-Key": mark()}
    for body in (b"small", b"large" * 20_000):
        key = {"Idempotency-Key": mark()}
        first = api.submit("cat", body=body, headers=key)
        second = api.submit("cat", body=body, headers=key)
        assert second["id"] == first["id"]
        assert api.task(first["id"], wait=20)["state"] == "succeeded"
        third = api.submit("cat", body=iter([body]), headers=key)
        assert (third["id"], third["state"]) == (first["id"], "succeeded")
        assert api.http.get(f"/v1/tasks/{first['id']}/stdout").content == body


def test_another_request_under_a_key_is_refused(api: Api) -> None:
    key = {"Idempotency-Key": mark(), **ASYNC}
    api.submit("cat", body=b"one", headers=key)
    for answer in (
        api.run("cat", body=b"two", headers=key),
        api.run("sink", body=b"one", headers=key),
        api.run("cat", body=b"one", headers=key, memory_mib=100),
        api.run("cat", body=b"one" * 50_000, headers=key),
    ):
        found = problem(answer, 422, "idempotency-conflict")
        assert found["executed"] is False


def test_a_key_belongs_to_its_account(api: Api) -> None:
    key = mark()
    ids = {
        api.submit("say", "x", headers={"Idempotency-Key": key, "X-Account": account})["id"]
        for account in ("one", "two")
    }
    assert len(ids) == 2


def test_a_key_can_be_looked_up(api: Api) -> None:
    key = {"Idempotency-Key": mark()}
    found = problem(api.http.get("/v1/idempotency", headers=key), 404, "task-unknown")
    assert found["executed"] is False
    task = api.submit("say", "x", headers=key)
    answer = api.http.get("/v1/idempotency", headers=key)
    assert (answer.status_code, answer.json()["id"]) == (200, task["id"])
    assert api.http.get("/v1/idempotency", headers={**key, "X-Account": "other"}).status_code == 404
    for headers in ({}, {"Idempotency-Key": "k" * 256}):
        answer = api.http.get("/v1/idempotency", headers=headers)
        assert problem(answer, 400, "bad-parameter")["field"] == "Idempotency-Key"


@pytest.mark.parametrize("size", [10, 100_000])
def test_concurrent_twins_are_one_task(api: Api, size: int) -> None:
    key = {"Idempotency-Key": mark()}
    name = mark()
    with ThreadPoolExecutor(100) as pool:
        ids = set(
            pool.map(
                lambda _: api.submit("sink", body=b"t" * size, headers=key, name=name)["id"],
                range(100),
            )
        )
    assert len(ids) == 1
    assert [task["id"] for task in api.tasks(name=name)] == list(ids)
    assert api.task(ids.pop(), wait=20)["stdout_head"] == str(size)


@pytest.mark.parametrize("how", [ASYNC, {}], ids=["async", "sync"])
@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_bad_key(api: Api, key: str, how: dict[str, str]) -> None:
    answer = api.run("say", "x", headers={"Idempotency-Key": key, **how})
    assert problem(answer, 400, "bad-parameter")["field"] == "Idempotency-Key"


def test_a_set_without_secrets_promises_no_callback(api: Api) -> None:
    answer = api.run("say", "x", headers={"X-Callback-Url": "https://hooks.example/", **ASYNC})
    found = problem(answer, 400, "bad-parameter")
    assert found["field"] == "X-Callback-Url"
    assert "account default has no secret" in found["detail"]


# -- lists


def test_pages_newest_first(api: Api) -> None:
    account = {"X-Account": f"pages-{mark()[-8:]}"}
    made = [api.submit("say", "x", headers=account)["id"] for _ in range(7)]
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 3}
    for pages in range(3):
        page = api.http.get("/v1/tasks", params=query, headers=account).json()
        assert (page["sets"], page["partial"]) == ([api.process.name], False)
        seen += [task["id"] for task in page["tasks"]]
        if pages < 2:
            assert len(page["tasks"]) == 3
            query["before"] = page["next"]
    assert page["next"] is None
    assert seen == made[::-1]
    exactly = api.http.get("/v1/tasks", params={"limit": 7}, headers=account).json()
    assert (len(exactly["tasks"]), exactly["next"]) == (7, None)


def test_filters(api: Api) -> None:
    name = mark()
    one = api.submit("exit", "0", name=name)["id"]
    two = api.submit("exit", "1", name=name)["id"]
    three = api.submit("sleep", "60", name=name)["id"]
    for task_id in (one, two):
        api.task(task_id, wait=20)
    until(lambda: api.task(three)["state"] == "running", "the third runs")

    def ids(**query: str) -> list[str]:
        return [task["id"] for task in api.tasks(**query)]

    assert ids(name=name) == [three, two, one]
    assert ids(name=name, state="succeeded") == [one]
    assert ids(name=name, state="failed") == [two]
    assert ids(name=name, state="running") == [three]
    assert ids(name=name, state="queued") == []
    assert ids(name=name, image=api.image) == [three, two, one]
    assert ids(name=name, image="other:1") == []
    assert ids(name=name, before=two) == [one]
    api.http.post(f"/v1/tasks/{three}/cancel")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=done", "state"),
        ("state=", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("colour=red", "colour"),
        ("name=%FF", "name"),
    ],
)
def test_bad_filters(api: Api, query: str, field: str) -> None:
    assert problem(api.http.get(f"/v1/tasks?{query}"), 400, "bad-parameter")["field"] == field


def test_tasks_of_others_are_unknown(api: Api) -> None:
    task = api.submit("say", "secret", headers={"X-Account": "alice"})
    other = {"X-Account": "bob"}
    unknown = api.http.get(f"/v1/tasks/{task['id'][:-1]}", headers=other).json()["detail"]
    for method, path in (
        ("GET", ""),
        ("GET", "?wait=1"),
        ("GET", "/stdout"),
        ("GET", "/stderr"),
        ("GET", "/files/x"),
        ("POST", "/cancel"),
    ):
        for headers in (other, {}):
            answer = api.http.request(method, f"/v1/tasks/{task['id']}{path}", headers=headers)
            found = problem(answer, 404, "task-unknown")
            # It says no more than of an id that never was.
            assert found["detail"].replace(task["id"], task["id"][:-1]) == unknown
    listed = api.http.get("/v1/tasks", headers=other).json()["tasks"]
    assert task["id"] not in [each["id"] for each in listed]
    assert api.http.get(f"/v1/tasks/{task['id']}", headers={"X-Account": "alice"}).status_code == 200


@pytest.mark.parametrize("task_id", ["x", "a-" + "0" * 26, "%00", "..", "a" * 5000, "%F0%9F%98%80"])
def test_ids_that_are_none(api: Api, task_id: str) -> None:
    for path in ("", "/stdout"):
        answer = api.http.get(f"/v1/tasks/{task_id}{path}")
        assert answer.status_code == 404
        assert answer.json()["type"].endswith(("/task-unknown", "/not-found"))
