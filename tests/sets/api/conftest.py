"""A set under test, and the image of `tool.c` to run in it."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import docker
import httpx
import pytest

from tests.conftest import SetProcess
from tests.scheduler.launchers.rig import Files, ImageMaker
from tests.sets.api.wire import Wire

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def tool_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("tool") / "tool"
    source = HERE / "tool.c"
    subprocess.run(["cc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary, source], check=True)
    return binary


class Tools:
    """Makes images, each with the tool at /tool."""

    def __init__(self, maker: ImageMaker, binary: Path) -> None:
        self.maker = maker
        self._files: Files = {"tool": binary.read_bytes()}

    def make(self, *changes: str, **files: bytes | str) -> str:
        """An image; a file that is text is a link to it."""
        return self.maker.make(*(changes or ('ENTRYPOINT ["/tool"]',)), files={**self._files, **files})


@pytest.fixture(scope="session")
def tools(engine: docker.DockerClient, tool_binary: Path) -> Iterator[Tools]:
    maker = ImageMaker(engine.api)
    yield Tools(maker, tool_binary)
    maker.clean()


@pytest.fixture(scope="session")
def tool(tools: Tools) -> str:
    """The image of the tool."""
    return tools.make()


class Api:
    """A set as its clients see it."""

    def __init__(self, process: SetProcess, image: str) -> None:
        self.process = process
        self.image = image
        self.http = httpx.Client(base_url=process.url, timeout=60)

    def target(self, *words: str, image: str | None = None, **query: Any) -> str:
        """The address of a run of the tool with these words."""
        pairs = [("arg", word) for word in words]
        for name, value in query.items():
            pairs += [(name, each) for each in value] if isinstance(value, list) else [(name, str(value))]
        return f"/v1/run/{image or self.image}?{urlencode(pairs)}"

    def run(
        self, *words: str, body: Any = b"", headers: dict[str, str] | None = None, **query: Any
    ) -> httpx.Response:
        return self.http.post(self.target(*words, **query), content=body, headers=headers)

    def submit(
        self, *words: str, body: Any = b"", headers: dict[str, str] | None = None, **query: Any
    ) -> dict[str, Any]:
        """Run asynchronously; the task as the 202 shows it."""
        answer = self.run(*words, body=body, headers={"Prefer": "respond-async", **(headers or {})}, **query)
        assert answer.status_code == 202, answer.text
        task: dict[str, Any] = answer.json()
        assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
        return task

    def task(self, task_id: str, wait: float = 0) -> dict[str, Any]:
        answer = self.http.get(f"/v1/tasks/{task_id}", params={"wait": wait} if wait else None)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tasks(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/v1/tasks", params=query).json()["tasks"]
        return found

    def wire(self) -> Wire:
        return Wire(self.process.port)

    def close(self) -> None:
        self.http.close()


def problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """The problem that an answer is, checked to be of this kind."""
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["type"]) == (
        status,
        f"https://general-compute.invalid/problems/{name}",
    ), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Set"]
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert isinstance(found["executed"], bool)
    return found


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Wait for what is bound to happen, and return it; fails by saying what did not."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
    return found


def mark() -> str:
    """A word by which a process can be found."""
    return f"mark-{uuid.uuid4().hex}"


def running(marked: str) -> list[int]:
    """The processes of this machine that have this word among their arguments, but for those that run a test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"/tool" and marked.encode() in words:
            found.append(int(path.parent.name))
    return found


def high_water_mib(pid: int) -> float:
    """The most memory that a process ever held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} is gone")


class StartApi:
    """Starts sets of a test's own; each ends with the fixture, and leaves no container."""

    def __init__(self, engine: docker.DockerClient, image: str, folders: pytest.TempPathFactory) -> None:
        self._engine = engine
        self._image = image
        self._folders = folders
        self._started: list[Api] = []

    def __call__(self, settings: str = "", *, folder: Path | None = None) -> Api:
        name = f"t{uuid.uuid4().hex[:10]}"
        process = SetProcess(folder or self._folders.mktemp(name), name, settings).start()
        api = Api(process, self._image)
        self._started.append(api)
        return api

    def end(self) -> None:
        with ExitStack() as stopping:  # all, whatever one of them does
            for api in self._started:
                stopping.callback(api.process.stop)
                api.close()
                api.process.ask_to_stop()
        for api in self._started:
            label = f"org.general-compute.set={api.process.name}"
            left = self._engine.containers.list(all=True, filters={"label": label})
            assert not left, f"set {api.process.name} left {left}"


@pytest.fixture(scope="session")
def api(engine: docker.DockerClient, tool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One set for all tests that do it no harm."""
    start = StartApi(engine, tool, tmp_path_factory)
    yield start("body_stall_s: 2\nmax_input_mib: 8192\n")
    start.end()


@pytest.fixture
def start_api(
    engine: docker.DockerClient, tool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartApi]:
    start = StartApi(engine, tool, tmp_path_factory)
    yield start
    start.end()


@pytest.fixture(scope="module")
def own_api(
    engine: docker.DockerClient, tool: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One set for the tests of a module, untouched by others."""
    start = StartApi(engine, tool, tmp_path_factory)
    yield start()
    start.end()
