"""The whole way, thin and real: client → router → sets → slots, with the processes that operators start."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, SetProcess, StartSet
from tests.ports import free_port

pytestmark = pytest.mark.docker
IMAGE = "cat:1"


class RouterProcess:
    """A real router: `gcompute router` as a process."""

    def __init__(self, folder: Path, sets: list[SetProcess], *shares: int) -> None:
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "router.yaml"
        self.log = folder / "router.log"
        self._folder = folder
        self._sets = sets
        self.write(*shares)

    def write(self, *shares: int, version: int = 1, more: str = "") -> None:
        """Configure a share of the requests for each set; `more`: further settings."""
        lines = [f'  {one.name}: {{url: "{one.url}", state: ready}}' for one in self._sets]
        weights = ", ".join(f"{one.name}: {share}" for one, share in zip(self._sets, shares, strict=True))
        text = "\n".join(
            [f"version: {version}", "sets:", *lines, "default:", f"  weights: {{{weights}}}", more, ""]
        )
        # As editors do it: a new file takes the old one's place.
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    def start(self) -> RouterProcess:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ops.cli.main", "router", str(self.config), "--name", "e2e"),
                    *("--bind", f"127.0.0.1:{self.port}", "--admin-bind", f"127.0.0.1:{self.admin_port}"),
                    *("--state-dir", str(self._folder / "router")),
                ],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _until(lambda: httpx.get(f"http://127.0.0.1:{self.admin_port}/readyz").status_code == 200, self.log)
        return self

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)


def _until(condition: Callable[[], object], log: Path, limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def sets(start_set: StartSet) -> list[SetProcess]:
    return [start_set("e2ea"), start_set("e2eb")]


@pytest.fixture
def router(tmp_path: Path, sets: list[SetProcess]) -> Iterator[RouterProcess]:
    router = RouterProcess(tmp_path, sets, 50, 50).start()
    yield router
    router.stop()


def _run(client: httpx.Client, body: bytes = b"hello", **headers: str) -> httpx.Response:
    return client.post(f"/v1/run/{IMAGE}", content=body, headers=headers)


def names(sets: list[SetProcess]) -> set[str]:
    return {one.name for one in sets}


def test_a_sync_task_through_the_router(router: RouterProcess, sets: list[SetProcess]) -> None:
    with httpx.Client(base_url=router.url, timeout=60) as client:
        answer = _run(client)
        assert (answer.status_code, answer.content) == (200, b"hello"), answer.text
        assert answer.headers["X-Set"] in names(sets)
        assert answer.headers["X-Task-Id"].startswith(answer.headers["X-Set"] + "-")
        task = client.get(f"/v1/tasks/{answer.headers['X-Task-Id']}").json()
        assert (task["state"], task["kind"], task["stdin_bytes"]) == ("succeeded", "sync", 5)


def test_an_async_task_is_found_at_its_owner_whatever_the_weights(
    router: RouterProcess, sets: list[SetProcess]
) -> None:
    with httpx.Client(base_url=router.url, timeout=60) as client:
        ids = set()
        for number in range(12):
            answer = _run(client, b"%d" % number, Prefer="respond-async")
            assert answer.status_code == 202, answer.text
            ids.add((answer.json()["id"], b"%d" % number))
        assert {task_id.partition("-")[0] for task_id, _ in ids} == names(sets)
        for task_id, body in ids:
            assert client.get(f"/v1/tasks/{task_id}", params={"wait": 30}).json()["state"] == "succeeded"
            assert client.get(f"/v1/tasks/{task_id}/stdout").content == body
        listed = client.get("/v1/tasks", params={"limit": 1000}).json()
        assert names(sets) <= set(listed["sets"])
        assert {task_id for task_id, _ in ids} <= {task["id"] for task in listed["tasks"]}


def test_twins_are_one_task_while_the_weights_change(router: RouterProcess, sets: list[SetProcess]) -> None:
    """Whichever set is home at the moment: the first call's set has the task, and all others get it."""
    over = threading.Event()
    ids: list[str] = []

    def twins(key: str) -> None:
        with httpx.Client(base_url=router.url, timeout=60) as client:
            while not over.is_set():
                answer = _run(client, b"once", **{"Idempotency-Key": key, "Prefer": "respond-async"})
                assert answer.status_code == 202, answer.text
                ids.append(answer.json()["id"])

    def is_home(name: str) -> bool:
        answer = httpx.post(f"{router.url}/v1/run/{IMAGE}", content=b"x", timeout=60)
        return bool(answer.headers.get("X-Set") == name)

    def answered(count: int) -> bool:
        return len(ids) >= count

    key = uuid.uuid4().hex
    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(twins, key) for _ in range(8)]
        try:
            for version, shares in enumerate(((100, 0), (0, 100), (100, 0), (0, 100)), start=2):
                # A set that is slow is not down: nobody else may take its work.
                router.write(*shares, version=version, more="health: {timeout: 60s, fall: 100}")
                expected = sets[shares.index(100)].name
                _until(partial(is_home, expected), router.log)
                _until(partial(answered, len(ids) + 25), router.log)
        finally:
            over.set()
        for caller in callers:
            caller.result()
    assert len(ids) >= 100
    assert len(set(ids)) == 1


def test_dead_letters_are_listed_over_all_sets_and_replayed_at_their_owner(
    router: RouterProcess, sets: list[SetProcess]
) -> None:
    with httpx.Client(base_url=router.url, timeout=60) as client:
        listed = client.get("/v1/tasks", params={"state": "dead"}).json()
        assert (names(sets), listed["tasks"]) == (set(listed["sets"]), [])
        for _ in range(4):
            task_id = _run(client, b"x", Prefer="respond-async").json()["id"]
            client.get(f"/v1/tasks/{task_id}", params={"wait": 30})
            answer = client.post(f"/v1/tasks/{task_id}/replay")
            assert (answer.status_code, answer.headers["X-Set"]) == (409, task_id.partition("-")[0])


def test_large_bodies_stream_through_with_every_byte(router: RouterProcess) -> None:
    body = bytes(range(256)) * (48 * 4096)
    command = [sys.executable, "-m", "ops.cli.main", "--url", router.url, "run", IMAGE]
    done = subprocess.run(command, input=body, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    assert len(done.stdout) == len(body)
    assert done.stdout == body


def test_weights_decide_and_a_saved_edit_counts(router: RouterProcess, sets: list[SetProcess]) -> None:
    with httpx.Client(base_url=router.url, timeout=60) as client:
        router.write(100, 0, version=2)
        _until(lambda: {_run(client).headers["X-Set"] for _ in range(12)} == {sets[0].name}, router.log)
        router.write(0, 100, version=3)
        _until(lambda: {_run(client).headers["X-Set"] for _ in range(12)} == {sets[1].name}, router.log)
        router.config.write_text(f"version: 4\nsets: {{{sets[0].name}: nonsense}}\n")
        # The last good table stays, loudly.
        _until(lambda: "sets" in httpx.get(f"http://127.0.0.1:{router.admin_port}/status").text, router.log)
        assert {_run(client).headers["X-Set"] for _ in range(12)} == {sets[1].name}
        _until(
            lambda: httpx.get(f"http://127.0.0.1:{router.admin_port}/status").json()["config_error"],
            router.log,
        )


def test_no_request_is_lost_while_weights_change(router: RouterProcess) -> None:
    statuses: Counter[int] = Counter()
    stop = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=router.url, timeout=60) as client:
            while not stop.is_set():
                statuses[_run(client).status_code] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 8):
        share = 10 * version
        router.write(share, 100 - share, version=version)
        wanted = statuses.total() + 10
        _until(lambda: statuses.total() >= wanted or statuses.keys() - {200}, router.log)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}, statuses


def test_a_set_that_dies_is_avoided_and_comes_back(tmp_path: Path, start_set: StartSet) -> None:
    good, frail = start_set("e2ec"), start_set("e2ed")
    router = RouterProcess(tmp_path, [good, frail], 50, 50).start()
    try:
        with httpx.Client(base_url=router.url, timeout=60) as client:
            kept = [_run(client, b"kept", Prefer="respond-async").json()["id"] for _ in range(8)]
            frail.kill()
            # A connection that the dead set broke is retried on the other one.
            answers = [_run(client) for _ in range(20)]
            assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
            assert {answer.headers["X-Set"] for answer in answers} == {good.name}
            orphan = next((task_id for task_id in kept if task_id.startswith(f"{frail.name}-")), None)
            if orphan is not None:
                lost = client.get(f"/v1/tasks/{orphan}")
                assert lost.status_code in (502, 503), lost.text
                assert lost.headers["X-Router"] == "e2e"
                assert lost.headers["Content-Type"] == "application/problem+json"
            frail.start()
            _until(
                lambda: {_run(client).headers["X-Set"] for _ in range(12)} == names([good, frail]),
                router.log,
                40,
            )
            for task_id in kept:
                # Acknowledged before the kill: done after it, by the restarted set where it was not yet.
                task = client.get(f"/v1/tasks/{task_id}", params={"wait": 30}).json()
                assert task["state"] == "succeeded", task
                assert client.get(f"/v1/tasks/{task_id}/stdout").content == b"kept"
    finally:
        router.stop()


def test_the_command_line_runs_an_image_with_its_exit_code(router: RouterProcess) -> None:
    command = [sys.executable, "-m", "ops.cli.main", "--url", router.url, "run", IMAGE]
    done = subprocess.run(command, input=b"in and out", capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, b"in and out"), done.stderr
    failed = subprocess.run(
        [*command, "/no/such/file"], input=b"", capture_output=True, cwd=ROOT, check=False
    )
    assert failed.returncode == 1
    assert b"/no/such/file" in failed.stderr


def test_live_output_is_followed_through_the_router_by_the_command_line(router: RouterProcess) -> None:
    """Each byte as it is written, beside the task's own caller."""
    calling = HTTPConnection("127.0.0.1", router.port, timeout=60)
    calling.putrequest("POST", f"/v1/run/{IMAGE}?stream=1")
    calling.putheader("Transfer-Encoding", "chunked")
    calling.endheaders()
    # The connection forgets its socket where the answer says that it will close.
    upload = calling.sock
    upload.sendall(b"6\r\nfirst\n\r\n")
    answer = calling.getresponse()
    task_id = answer.headers["X-Task-Id"]
    command = [sys.executable, "-m", "ops.cli.main", "logs", "-f", "--url", router.url, task_id]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == b"first\n"
        upload.sendall(b"5\r\nlast\n\r\n0\r\n\r\n")
        assert answer.read() == b"first\nlast\n"
        out, err = logs.communicate(timeout=60)
    assert (logs.returncode, out, err) == (0, b"last\n", b"")
    calling.close()
