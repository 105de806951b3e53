"""What an account may keep on a set's disk: answered early, exactly, and with the time at which there is room again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sets.api.conftest import Api, StartApi, problem, until
from tests.sets.api.test_life import metric

pytestmark = pytest.mark.docker

ASYNC = {"Prefer": "respond-async"}
MIB = 1 << 20
SETTINGS = "max_kept_account_mib: 4\n"


def of(account: str) -> dict[str, str]:
    return {"X-Account": account, **ASYNC}


def kept(api: Api) -> float:
    return metric(api, "gc_kept_bytes")


def test_at_its_bound_an_account_is_refused_before_its_body_is_read_and_others_are_not(
    start_api: StartApi,
) -> None:
    api = start_api(SETTINGS)
    task = api.submit("print", str(3 * MIB), headers=of("flood"))
    assert api.http.get(f"/v1/tasks/{task['id']}?wait=60", headers=of("flood")).json()["state"] == "succeeded"
    with api.wire() as wire:
        # No byte of the body is sent: the answer is there all the same.
        wire.post(
            api.target("cat"), "X-Account: flood", "Prefer: respond-async", f"Content-Length: {2 * MIB}"
        )
        answer = wire.answer()
    refused = answer.problem(429, "account-limit")
    assert refused["executed"] is False
    assert "this account keeps 3 MiB of inputs, results and output files" in refused["detail"]
    with api.wire() as wire:
        wire.post(
            api.target("cat"),
            "X-Account: flood",
            "Prefer: respond-async",
            f"Content-Length: {2 * MIB}",
            "Expect: 100-continue",
        )
        assert wire.begun().status == 429, "and no 100 before it"
    assert api.run("cat", body=bytes(2 * MIB), headers=of("other")).status_code == 202
    # Its results are kept for a day.
    assert 80_000 < int(answer.headers["Retry-After"]) < 87_000


def test_an_upload_of_unknown_length_is_refused_while_it_comes(start_api: StartApi) -> None:
    api = start_api(SETTINGS)
    chunk = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
    head = ("X-Account: flood", "Prefer: respond-async", "Transfer-Encoding: chunked")
    with api.wire() as one, api.wire() as two:
        one.post(api.target("cat"), *head)
        one.send(chunk, chunk)
        until(lambda: kept(api) == 2 * MIB, "the upload counts while it comes")
        two.post(api.target("cat"), *head)
        two.send(chunk)
        until(lambda: kept(api) == 3 * MIB, "so does another")
        problem(api.run("cat", body=bytes(2 * MIB), headers=of("flood")), 429, "account-limit")
        one.send(chunk)
        until(lambda: kept(api) == 4 * MIB, "together they may have all of it")
        two.send(chunk)
        two.answer().problem(429, "account-limit")
        until(lambda: kept(api) == 3 * MIB, "the refused upload leaves nothing")
        one.send("0\r\n\r\n")
        assert one.answer().status == 202


def test_an_upload_that_is_broken_off_leaves_nothing(start_api: StartApi) -> None:
    api = start_api(SETTINGS)
    with api.wire() as wire:
        wire.post(
            api.target("cat"), "X-Account: flood", "Prefer: respond-async", f"Content-Length: {3 * MIB}"
        )
        wire.send(bytes(MIB))
        until(lambda: kept(api) >= 3 * MIB, "all of it counts from its beginning")
    until(lambda: kept(api) == 0, "nothing is held")


def test_an_input_that_could_never_be_kept_is_too_large(start_api: StartApi) -> None:
    api = start_api(SETTINGS)
    with api.wire() as wire:
        wire.post(api.target("cat"), "Prefer: respond-async", f"Content-Length: {5 * MIB}")
        wire.answer().problem(413, "input-too-large")


def test_what_is_kept_is_known_after_the_set_is_killed(start_api: StartApi, tmp_path: Path) -> None:
    api = start_api(SETTINGS, folder=tmp_path)
    task = api.submit("print", str(3 * MIB))
    assert api.task(task["id"], wait=60)["state"] == "succeeded"
    before = kept(api)
    api.process.kill()
    again = start_api(SETTINGS, folder=tmp_path)
    assert kept(again) == before > 3 * MIB
    problem(again.run("cat", body=bytes(2 * MIB), headers=ASYNC), 429, "account-limit")


def test_while_the_disk_is_short_the_account_that_keeps_most_is_refused(start_api: StartApi) -> None:
    # No disk has so much: it is always short.
    api = start_api("low_disk_mib: 1000000000\n")
    first = api.submit("print", str(3 * MIB), headers=of("flood"))
    refused = problem(api.run("cat", body=b"x", headers=of("flood")), 503, "disk-full")
    assert refused["executed"] is False
    assert "this account uses more of it than others" in refused["detail"]
    # Its accepted task ends, sync tasks without files go on, and so do others.
    assert (
        api.http.get(f"/v1/tasks/{first['id']}?wait=60", headers=of("flood")).json()["state"] == "succeeded"
    )
    assert api.run("cat", body=b"x", headers={"X-Account": "flood"}).content == b"x"
    assert api.run("cat", body=b"x", headers=of("other")).status_code == 202
    assert metric(api, "gc_disk_short") == 1
