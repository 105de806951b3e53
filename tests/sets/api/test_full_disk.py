"""A disk that is really full: new work is refused clearly, what runs is not harmed, and all goes on with room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root, as make test in CI is"),
]

DISK_MIB = 48
MIN_FREE_MIB = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=True, timeout=10
    )
    yield folder
    subprocess.run(["umount", folder], check=True, timeout=10)


@pytest.fixture
def small(disk: Path, start_api: StartApi) -> Iterator[Api]:
    # The bounds of accounts must not come before that of the disk.
    settings = f"min_free_disk_mib: {MIN_FREE_MIB}\nlow_disk_mib: 1\nmax_kept_mib: 1000\n"
    api = start_api(settings, folder=disk)
    yield api
    (disk / "ballast").unlink(missing_ok=True)
    api.process.stop()


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass


def test_full_and_free_again(small: Api, disk: Path) -> None:
    word = mark()
    kept = small.submit("cat", body=b"kept" * 20_000)
    small.task(kept["id"], wait=20)
    run = small.submit("take", "3", "sleep", "1.5", "say", word, body=b"abc")
    until(lambda: len(running(word)) == 1, "it runs")
    fill(disk)
    for body in (b"small", b"large" * 20_000, iter([b"chunked" * 10_000])):
        answer = small.run("cat", body=body, headers={"Prefer": "respond-async"})
        found = problem(answer, 503, "disk-full")
        assert found["executed"] is False
        assert int(answer.headers["Retry-After"]) >= 1
    # Kept results can be fetched, and running tasks go on.
    assert small.http.get(f"/v1/tasks/{kept['id']}/stdout").content == b"kept" * 20_000
    assert len(running(word)) == 1
    sync = small.run("say", "x")
    if sync.status_code != 200:
        # Its usage could not be recorded, so its output may not go out; but it ran.
        assert sync.status_code == 503
        assert sync.json()["executed"] is True
    until(lambda: running(word) == [], "it has ended")
    (disk / "ballast").unlink()
    ended = until(lambda: (task := small.task(run["id"]))["ended_at"] and task, "its outcome is stored", 30)
    assert (ended["state"], ended["stdout_head"]) == ("succeeded", f"{word}\n")
    again = until(
        lambda: (answer := small.run("say", "x")).status_code == 200 and answer, "the set takes tasks again"
    )
    assert again.content == b"x\n"
    task = small.submit("cat", body=b"large" * 20_000)
    assert small.task(task["id"], wait=20)["state"] == "succeeded"
    assert small.http.get("/readyz").json()["tasks_known"] == 0


def test_output_that_fills_the_disk(small: Api) -> None:
    word = mark()
    other = small.submit("take", "1", "sleep", "2", "say", word, body=b"x")
    until(lambda: len(running(word)) == 1, "the other runs")
    word = mark()
    greedy = small.submit("print", "1000000000", "say", word)
    until(lambda: len(running(word)) == 1, "it prints")
    until(lambda: running(word) == [], "it is ended when the disk is full")
    assert small.task(other["id"], wait=20)["state"] == "succeeded"
    # Nothing of what it printed is left to fill the disk. It is tried again later, since it was not its fault alone.
    task = small.submit("print", "10000000")
    assert small.task(task["id"], wait=20)["state"] == "succeeded"
    assert small.http.post(f"/v1/tasks/{greedy['id']}/cancel").json()["state"] in ("cancelled", "failed")


def test_a_set_on_a_full_disk_says_so(disk: Path, small: Api) -> None:
    small.process.stop()
    fill(disk)
    (disk / "set.log").unlink()
    with pytest.raises(RuntimeError, match=r"(?i)disk|space"):
        small.process.start()
