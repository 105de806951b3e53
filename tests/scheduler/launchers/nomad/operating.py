"""An operator of one set on a real agent: looks at the cluster, presses buttons, and runs tasks meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import httpx

from tests.conftest import SetProcess
from tests.scheduler.launchers.nomad.conftest import ClusterSet

PATIENCE_S = 120.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Operator:
    """Looks at the cluster of one set, and presses buttons."""

    def __init__(self, made: ClusterSet, engine: docker.DockerClient) -> None:
        self.set = made.set
        self._engine = engine
        self._nomad = httpx.Client(base_url=made.agent.url, timeout=30, trust_env=False)

    def allocations(self) -> list[dict[str, Any]]:
        query = {"filter": f'JobID matches "^gc-{self.set.name}-"'}
        found: list[dict[str, Any]] = self._nomad.get("/v1/allocations", params=query).json()
        return found

    def press(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer = self._nomad.request(method, path, **options)
        assert answer.is_success, answer.text
        return answer

    def containers(self) -> int:
        label = f"org.general-compute.set={self.set.name}"
        return len(self._engine.containers.list(filters={"label": label}))


def run(operator: Operator, body: bytes) -> None:
    with operator.set.client() as client:
        answer = client.post("/v1/run/cat:1", params={"queue_timeout_s": 60}, content=body, timeout=90)
        assert (answer.status_code, answer.content) == (200, body), answer.text


class Held:
    """A sync `cat` whose body goes on until `end`; its answer is `answer`."""

    def __init__(self, asked: SetProcess, **query: str | int) -> None:
        self._set = asked
        self._query = {"queue_timeout_s": 120, "timeout_s": 300, **query}
        self._over = threading.Event()
        self.answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        with self._set.client() as client:
            self.answer = client.post("/v1/run/cat:1", params=self._query, content=self._body(), timeout=600)

    def _body(self) -> Iterator[bytes]:
        yield b"first, "
        self._over.wait()
        yield b"last"

    def end(self) -> httpx.Response:
        self._over.set()
        self._thread.join(PATIENCE_S)
        assert self.answer is not None
        return self.answer
