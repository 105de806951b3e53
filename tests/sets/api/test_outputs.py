"""Output files of sync tasks: there as soon as the answer is, for as long as their row, and never in anybody's way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.sets.api.conftest import Api, StartApi, problem, until
from tests.sets.api.test_life import metric

pytestmark = pytest.mark.docker

PATH = "/tmp/out"
ISOLATIONS = pytest.mark.parametrize("isolation", ["shared", "fresh"])


def fetch(api: Api, task_id: str, path: str = PATH, wanted: str | None = None) -> httpx.Response:
    headers = {"Range": wanted} if wanted else None
    return api.http.get(f"/v1/tasks/{task_id}/files{path}", headers=headers)


@ISOLATIONS
def test_files_are_there_when_the_answer_is(api: Api, isolation: str) -> None:
    answer = api.run("file", PATH, "mine", "cat", body=b"input", output=PATH, isolation=isolation)
    assert (answer.status_code, answer.content) == (200, b"input")
    task_id = answer.headers["X-Task-Id"]
    found = fetch(api, task_id)
    assert (found.status_code, found.content, found.headers["Accept-Ranges"]) == (200, b"mine", "bytes")
    part = fetch(api, task_id, wanted="bytes=1-2")
    assert (part.status_code, part.content, part.headers["Content-Range"]) == (206, b"in", "bytes 1-2/4")
    task = api.task(task_id)
    assert (task["kind"], task["state"], task["files"], task["detail"]) == (
        "sync",
        "succeeded",
        {PATH: 4},
        None,
    )
    problem(api.http.get(f"/v1/tasks/{task_id}/stdout"), 410, "result-gone")


@pytest.mark.parametrize("stream", [0, 1])
def test_files_of_a_streamed_answer(api: Api, stream: int) -> None:
    with api.http.stream(
        "POST", api.target("hole", PATH, "3000000", "print", "300000", output=PATH, stream=stream)
    ) as answer:
        assert answer.status_code == 200
        assert "Content-Length" not in answer.headers
        assert sum(map(len, answer.iter_bytes())) == 300_000
        # Nobody waited in between: the last byte says that all is there.
        found = fetch(api, answer.headers["X-Task-Id"])
    assert found.content == b"mine" + bytes(2_999_996)
    last = fetch(api, answer.headers["X-Task-Id"], wanted="bytes=-5")
    assert (last.status_code, last.content) == (206, bytes(5))


def test_an_input_that_is_streamed(api: Api) -> None:
    body = os.urandom(1_000_000)
    answer = api.run("sink", "file", PATH, "mine", body=iter([body]), output=PATH)
    assert answer.content == b"1000000"
    assert fetch(api, answer.headers["X-Task-Id"]).content == b"mine"


@pytest.mark.parametrize(
    ("words", "status", "state"),
    [(("exit", "7"), 422, "failed"), (("signal", "15"), 422, "failed"), (("sleep", "60"), 504, "timed_out")],
)
@ISOLATIONS
def test_files_of_a_task_that_failed(
    api: Api, isolation: str, words: tuple[str, ...], status: int, state: str
) -> None:
    answer = api.run("file", PATH, "so far", *words, output=PATH, isolation=isolation, timeout_s=0.5)
    assert answer.status_code == status
    task_id = answer.json()["task"]
    assert fetch(api, task_id).content == b"so far"
    assert (api.task(task_id)["state"], api.task(task_id)["files"]) == (state, {PATH: 6})


def test_what_is_not_there_fails_nothing_and_is_said(api: Api) -> None:
    answer = api.run("say", "x", output=[PATH, "/tmp", "/dev/zero"])
    assert (answer.status_code, answer.content) == (200, b"x\n")
    task = api.task(answer.headers["X-Task-Id"])
    assert (task["state"], task["files"]) == ("succeeded", {})
    no_file = "it is not a regular file of the image or of a writable place"
    assert task["detail"] == (
        f"output not kept: {PATH}: there is no such file; /tmp: {no_file}; /dev/zero: {no_file}"
    )
    found = problem(fetch(api, task["id"]), 404, "file-unknown")
    assert "there is no such file" in found["detail"]


def test_whose_files_they_are(api: Api) -> None:
    answer = api.run("file", PATH, "mine", output=PATH)
    task_id = answer.headers["X-Task-Id"]
    other = api.http.get(f"/v1/tasks/{task_id}/files{PATH}", headers={"X-Account": "other"})
    problem(other, 404, "task-unknown")


def test_a_prestarted_program_leaves_files_too(api: Api) -> None:
    for text in (b"one", b"two", b"three"):
        answer = api.run("take", "9", "file", PATH, "mine", body=text, output=PATH, prestart=1)
        assert fetch(api, answer.headers["X-Task-Id"]).content == b"mine"


@ISOLATIONS
def test_files_that_are_kept_are_in_no_other_task_s_way(api: Api, isolation: str) -> None:
    """Each fills more than half of its slot's memory, and the next begins when the slot says that it is free."""
    # One at a time: all the cores of the set.
    query: dict[str, Any] = {"cpu": 2, "memory_mib": 64, "output": PATH, "isolation": isolation}

    def run(_: int) -> str:
        answer = api.run("fill", PATH, "40", queue_timeout_s=60, **query)
        assert answer.status_code == 200, answer.text
        return str(answer.headers["X-Task-Id"])

    with ThreadPoolExecutor(6) as callers:
        tasks = [api.task(task_id) for task_id in callers.map(run, range(6))]
    assert [task["files"] for task in tasks] == [{PATH: 40 << 20}] * 6
    assert [task["attempts"] for task in tasks] == [1] * 6


def test_holes_take_no_disk_and_limits_count_them(start_api: StartApi) -> None:
    api = start_api("max_file_mib: 100\nmax_files_mib: 150\n")
    terabyte = str(1 << 40)
    paths = [f"/tmp/{n}" for n in range(4)]
    words = ["hole", paths[0], terabyte, "hole", paths[1], str(100 << 20)]
    words += ["hole", paths[2], str((50 << 20) + 1), "hole", paths[3], str(50 << 20)]
    answer = api.run(*words, output=paths, timeout_s=10)
    assert answer.status_code == 200, answer.text
    task = api.task(answer.headers["X-Task-Id"])
    assert task["files"] == {paths[1]: 100 << 20, paths[3]: 50 << 20}
    assert f"{paths[0]}: its {terabyte} bytes are more than the {100 << 20}" in task["detail"]
    assert f"{paths[2]}: its {(50 << 20) + 1} bytes are more than what is left" in task["detail"]
    blobs = [path for path in (api.process.folder / "state" / "blobs").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in blobs) == 150 << 20
    assert sum(path.stat().st_blocks * 512 for path in blobs) < 1 << 20
    assert fetch(api, task["id"], paths[1], "bytes=0-7").content == b"mine" + bytes(4)


def test_files_go_with_their_row(start_api: StartApi) -> None:
    api = start_api("sync_keep_s: 1\n")
    answer = api.run("hole", PATH, "100000", output=PATH)
    task_id = answer.headers["X-Task-Id"]
    folder = api.process.folder / "state" / "blobs"
    until(lambda: not [path for path in folder.rglob("*") if path.is_file()], "its file is gone")
    problem(api.http.get(f"/v1/tasks/{task_id}"), 404, "task-unknown")
    problem(fetch(api, task_id), 404, "task-unknown")


def test_files_survive_a_set_that_is_killed(start_api: StartApi) -> None:
    api = start_api()
    ids = [
        api.run(kind, PATH, text, output=PATH).headers["X-Task-Id"]
        for kind, text in (("file", "mine"), ("hole", "100000"))
    ]
    api.process.kill()
    api.process.start()
    assert fetch(api, ids[0]).content == b"mine"
    assert fetch(api, ids[1]).content == b"mine" + bytes(99_996)


# -- a disk that is really full


@pytest.fixture
def small(start_api: StartApi, tmp_path: Path) -> Iterator[Api]:
    """A set on a disk of 48 MiB, of which 8 stay free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=True, timeout=10)
    # The bounds of accounts must not come before that of the disk.
    settings = "min_free_disk_mib: 8\nlow_disk_mib: 1\nmax_kept_mib: 1000\n"
    api = start_api(settings, folder=folder)
    yield api
    api.process.stop()
    subprocess.run(["umount", folder], check=True, timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root, as make test in CI is")
@pytest.mark.parametrize("printed", ["10", "300000"], ids=["whole", "streamed"])
def test_files_that_fill_the_disk_break_the_answer(small: Api, printed: str) -> None:
    words = ("fill", PATH, "60", "print", printed)
    with small.wire() as wire:
        wire.post(small.target(*words, output=PATH), "Content-Length: 0")
        answer = wire.answer()
    if printed == "10":
        assert answer.status == 503
        assert b"files-not-kept" in answer.body
        assert b'"executed":true' in answer.body.replace(b" ", b"")
    else:
        assert (answer.status, answer.whole) == (200, False)
    (task,) = small.tasks()
    assert (task["state"], task["reason"], task["cpu_us"], task["files"]) == ("failed", "platform", 0, {})
    assert metric(small, 'gc_tasks_given_up_total{kind="sync"}') >= 1
    assert "files could not be kept" in task["detail"]
    # All of it is given back, and others' work goes on.
    folder = small.process.folder / "state" / "blobs"
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert small.run("file", PATH, "mine", output=PATH).status_code == 200
    ballast = small.process.folder / "ballast"
    ballast.write_bytes(bytes(41 << 20))
    refused = problem(small.run("file", PATH, "mine", output=PATH), 503, "disk-full")
    assert refused["executed"] is False
    assert small.run("say", "x").content == b"x\n"
    ballast.unlink()
