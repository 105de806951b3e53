"""Idempotency keys over HTTP, with a real set: what was accepted once is the answer, whatever happens meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from tests.sets.api.conftest import Api, StartApi, Tools, mark, problem, until

pytestmark = pytest.mark.docker
ASYNC = {"Prefer": "respond-async"}
MIB = 1 << 20
LINES = {"Content-Type": "application/jsonl"}


def asked(api: Api, key: str) -> httpx.Response:
    return api.http.get("/v1/idempotency", headers={"Idempotency-Key": key})


def test_a_twin_does_not_wait_for_the_upload_of_the_first(start_api: StartApi) -> None:
    # However slow the machine is, the upload does not count as stalled.
    api = start_api("body_stall_s: 3600\n")
    key = mark()
    headers = {"Idempotency-Key": key}
    may_end = threading.Event()

    def held() -> Iterator[bytes]:
        yield b"on"
        may_end.wait()
        yield b"ce"

    def first() -> dict[str, Any]:
        with httpx.Client(base_url=api.process.url, timeout=60) as client:
            found: dict[str, Any] = client.post(
                api.target("cat"), content=held(), headers=headers | ASYNC
            ).json()
            return found

    with ThreadPoolExecutor() as pool:
        uploading = pool.submit(first)
        try:
            # The set says that the key is in use, so that a router sends no twin elsewhere.
            arriving = until(
                lambda: (found := asked(api, key)).status_code == 202 and found, "the upload began"
            )
            assert arriving.json()["state"] == "arriving"
            twin = api.submit("cat", body=b"once", headers=headers)
        finally:
            may_end.set()
        assert uploading.result()["id"] == twin["id"]
    assert (asked(api, key).status_code, asked(api, key).json()["id"]) == (200, twin["id"])


def test_twins_while_the_set_is_killed_are_one_task(start_api: StartApi) -> None:
    """Each client sends its request again until it is accepted, as clients do."""
    api = start_api()
    headers = {"Idempotency-Key": mark(), **ASYNC}
    ids: list[str] = []
    enough = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=api.process.url, timeout=60) as http:
            while not enough.is_set():
                try:
                    answer = http.post(api.target("sink"), content=b"x" * 40_000, headers=headers)
                except httpx.TransportError:
                    # The set starts sooner if its clients leave it some of the CPU.
                    time.sleep(0.05)
                    continue
                if answer.status_code == 202:
                    ids.append(answer.json()["id"])

    def answered(count: int) -> bool:
        return len(ids) >= count

    with ThreadPoolExecutor(20) as pool:
        clients = [pool.submit(client) for _ in range(20)]
        try:
            for _ in range(2):
                until(partial(answered, len(ids) + 50), "twins are answered")
                api.process.kill()
                api.process.start()
            until(partial(answered, len(ids) + 50), "twins are answered after the kills")
        finally:
            enough.set()
        for each in clients:
            each.result()
    assert len(set(ids)) == 1
    assert [task["id"] for task in api.tasks()] == [ids[0]]
    assert api.task(ids[0], wait=60)["stdout_head"] == "40000"


def test_a_used_key_answers_where_new_work_is_refused(start_api: StartApi) -> None:
    api = start_api("max_kept_account_mib: 4\n")

    def again(key: str, body: Any, **headers: str) -> httpx.Response:
        return api.run("cat", body=body, headers={"Idempotency-Key": key, **ASYNC, **headers})

    small, large, batch = mark(), mark(), mark()
    made = {key: api.submit("cat", body=body, headers={"Idempotency-Key": key}) for key, body in (
        (small, b"few"), (large, bytes(MIB)))}  # fmt: skip
    lines = b'{"args": ["one"]}\n{"args": ["two"]}\n'

    def submit_batch(key: str, body: bytes = lines) -> httpx.Response:
        headers = {"Idempotency-Key": key, **LINES}
        return api.http.post(f"/v1/batches/{api.image}?arg=say", content=body, headers=headers)

    batch_id = submit_batch(batch).json()["id"]
    api.http.get(f"/v1/batches/{batch_id}", params={"wait": 60})
    for task in made.values():
        assert api.task(task["id"], wait=60)["state"] == "succeeded"
    full = api.submit("print", str(3 * MIB))
    assert api.task(full["id"], wait=60)["state"] == "succeeded"
    problem(again(mark(), b"few"), 429, "account-limit")
    problem(submit_batch(mark()), 429, "account-limit")

    for refused in ("at its bound", "draining"):
        assert again(small, b"few").json()["id"] == made[small]["id"], refused
        assert again(large, bytes(MIB)).json()["id"] == made[large]["id"], refused
        assert again(large, iter([bytes(MIB)])).json()["id"] == made[large]["id"], refused
        answer = submit_batch(batch)
        assert (answer.status_code, answer.json()["id"]) == (202, batch_id), refused
        # It is another request all the same.
        problem(again(small, b"many"), 422, "idempotency-conflict")
        problem(again(large, bytes(MIB + 1)), 422, "idempotency-conflict")
        problem(submit_batch(batch, b'{"args": ["one"]}\n'), 422, "idempotency-conflict")
        assert api.http.put("/v1/admin/drain").is_success
    assert problem(again(mark(), b"few"), 503, "set-draining")["executed"] is False


def test_a_key_outlives_the_image_of_its_task(api: Api, tools: Tools) -> None:
    """The request is the same when its tag names another image, or none any more."""
    name = f"moves-{mark()[-12:]}:1"
    first, second = tools.make(), tools.make('ENTRYPOINT ["/tool"]', 'LABEL other="1"')
    headers = {"Idempotency-Key": mark()}
    tools.maker.tag(first, name)
    task = api.submit("cat", body=b"x", headers=headers, image=name)
    api.task(task["id"], wait=60)
    tools.maker.tag(second, name)
    until(
        lambda: api.submit("cat", body=b"x", image=name)["image_digest"] != task["image_digest"],
        "the set sees that the tag has moved",
    )
    assert api.submit("cat", body=b"x", headers=headers, image=name)["id"] == task["id"]
    tools.maker.remove(name)
    until(
        lambda: api.run("cat", image=name, headers=ASYNC).status_code == 404, "the set sees that it is gone"
    )
    assert api.submit("cat", body=b"x", headers=headers, image=name)["id"] == task["id"]
