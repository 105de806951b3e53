"""An engine that is missing, stopped, killed or frozen: the set says so, loses nothing, and goes on by itself."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient

from ops.setup import processes
from ops.setup.engine import PrivateEngine
from tests.scheduler.launchers.rig import ImageMaker, containers
from tests.sets.api.conftest import Api, StartApi, Tools, problem, until
from tests.sets.api.test_life import metric

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root, as make test in CI has"),
]


class Own:
    """An engine of this test's own, the tool's image on it, and a set that uses it."""

    def __init__(self, engine: PrivateEngine, binary: Path) -> None:
        self.engine = engine
        self.host = engine.layout.host
        self.image = Tools(ImageMaker(self.client), binary).make()

    @property
    def client(self) -> APIClient:
        return APIClient(base_url=self.host, version="auto", timeout=30)

    def stop(self, how: signal.Signals) -> None:
        pid = self.engine.pid
        os.kill(pid, how)
        assert processes.wait_until(lambda: self.engine.pid != pid, 40), "the daemon does not end"


@pytest.fixture(scope="module")
def own(tool_binary: Path) -> Iterator[Own]:
    top = Path(tempfile.mkdtemp(prefix="gct"))
    engine = PrivateEngine(top)
    try:
        engine.start()
        yield Own(engine, tool_binary)
    finally:
        engine.stop()
        shutil.rmtree(top)


@pytest.fixture
def api(own: Own, start_api: StartApi) -> Iterator[Api]:
    api = start_api(f"docker_host: {own.host}\n")
    api.image = own.image
    yield api
    own.engine.start()
    api.process.stop()
    assert containers(own.client, api.process.name) == []


def ready(api: Api) -> bool:
    return api.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_an_engine_that_goes_and_comes_back(own: Own, api: Api, how: signal.Signals) -> None:
    assert api.run("say", "before").content == b"before\n"
    accepted = api.submit("sleep", "60")
    until(lambda: api.task(accepted["id"])["state"] == "running", "it runs")
    own.stop(how)
    until(lambda: not ready(api), "the set knows that its engine is gone")
    found = problem(api.http.get("/readyz"), 503, "engine-unavailable")
    assert found["executed"] is False
    assert [metric(api, name) for name in ("gc_launcher_up", "gc_ready")] == [0, 0]
    assert api.http.get("/livez").status_code == 200
    answer = api.run("say", "x", isolation="fresh", queue_timeout_s=1)
    assert answer.status_code == 503
    assert answer.json()["executed"] is False
    assert int(answer.headers["Retry-After"]) >= 1
    assert api.task(accepted["id"])["state"] in ("queued", "running")
    own.engine.start()
    until(lambda: ready(api), "the set sees its engine again", 60)
    until(lambda: api.run("say", "after").status_code == 200, "it runs tasks again", 60)
    again = until(
        lambda: (task := api.task(accepted["id"]))["state"] == "running" and task, "the task runs again", 60
    )
    assert again["attempts"] <= 2
    assert api.http.post(f"/v1/tasks/{accepted['id']}/cancel").json()["state"] == "cancelled"


def test_an_engine_that_is_frozen(own: Own, api: Api) -> None:
    assert api.run("say", "warm").content == b"warm\n"
    pid = own.engine.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # A slot that is there needs no engine.
        assert api.run("say", "still").content == b"still\n"
        answer = api.run("say", "x", memory_mib=300, queue_timeout_s=1)
        found = problem(answer, 503, "queue-timeout")
        assert found["executed"] is False
        assert "a slot of its kind has been starting for" in found["detail"]
        assert api.http.get("/livez").status_code == 200
        problem(api.http.get("/readyz"), 503, "engine-unavailable")
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: ready(api), "the set sees its engine again", 60)
    until(lambda: api.run("say", "x", memory_mib=300).status_code == 200, "it starts slots again", 60)


def test_a_set_that_starts_before_its_engine(own: Own, start_api: StartApi) -> None:
    own.stop(signal.SIGKILL)
    api = start_api(f"docker_host: {own.host}\n")
    api.image = own.image
    problem(api.http.get("/readyz"), 503, "engine-unavailable")
    problem(api.run("say", "x"), 503, "engine-unavailable")
    own.engine.start()
    until(lambda: ready(api), "the set sees its engine", 60)
    assert api.run("say", "x").content == b"x\n"
    api.process.stop()
    assert containers(own.client, api.process.name) == []
