"""A disk whose syncs fail with EIO: new work is refused clearly, nothing acknowledged is lost, all goes on later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scheduler.store.writes.sweep import recorder
from tests.sets.api.conftest import Api, StartApi, mark, problem, running, until

pytestmark = pytest.mark.docker

RETRY_S = 60
"""Longest wait for an outcome that could not be stored: its tries pause in between."""


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """While this file exists, each sync of a file of the set fails."""
    return tmp_path / "failing"


@pytest.fixture
def api(tmp_path: Path, failing: Path, start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    folder = tmp_path / "set"
    folder.mkdir()
    monkeypatch.setenv("RECORDER_FOLDER", str(folder / "state"))
    monkeypatch.setenv("RECORDER_LOG", "/dev/null")
    monkeypatch.setenv("RECORDER_FAILS_WHILE", str(failing))
    monkeypatch.setenv("LD_PRELOAD", str(recorder(tmp_path)))
    api = start_api(folder=folder)
    yield api
    failing.unlink(missing_ok=True)
    api.process.stop()


def test_failing_and_well_again(api: Api, failing: Path) -> None:
    word = mark()
    kept = api.submit("cat", body=b"kept" * 20_000)
    assert api.task(kept["id"], wait=RETRY_S)["state"] == "succeeded"
    run = api.submit("take", "3", "sleep", "600", "say", word, body=b"abc")
    until(lambda: len(running(word)) == 1, "it runs")
    failing.touch()
    for body in (b"small", b"large" * 20_000, iter([b"chunked" * 10_000])):
        answer = api.run("cat", body=body, headers={"Prefer": "respond-async"})
        executed = problem(answer, 503, "store-unavailable")["executed"]
        # A small one may stand in the log, and be there after a crash; of a large one not even the input is kept.
        assert executed is False or body == b"small"
        assert int(answer.headers["Retry-After"]) >= 1
    assert api.http.get(f"/v1/tasks/{kept['id']}/stdout").content == b"kept" * 20_000
    cancelled = api.http.post(f"/v1/tasks/{run['id']}/cancel").json()
    until(lambda: running(word) == [], "it has ended")
    for told in (cancelled, api.task(run["id"])):
        assert told["ended_at"] is None, "its outcome is not told before it is sure"
    failing.unlink()
    ended = until(
        lambda: (task := api.task(run["id"]))["ended_at"] and task, "its outcome is stored", RETRY_S
    )
    assert ended["state"] == "cancelled"
    later = api.submit("cat", body=b"large" * 20_000)
    assert api.task(later["id"], wait=RETRY_S)["state"] == "succeeded"
    # Nothing of the refused tasks comes back, and nothing acknowledged is missing.
    api.process.kill()
    api.process.start()
    assert [task["id"] for task in api.tasks()] == [each["id"] for each in (later, run, kept)]


def test_a_set_that_is_killed_while_syncs_fail_has_all_that_it_acknowledged(api: Api, failing: Path) -> None:
    tasks = [api.submit("cat", body=b"%d" % number) for number in range(5)]
    failing.touch()
    problem(api.run("cat", headers={"Prefer": "respond-async"}), 503, "store-unavailable")
    api.process.kill()
    failing.unlink()
    api.process.start()
    for number, task in enumerate(tasks):
        ended = api.task(task["id"], wait=RETRY_S)
        assert (ended["state"], ended["stdout_head"]) == ("succeeded", str(number))
