"""The router as a process: start, reload, mistakes, a killed worker, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.router.rig import OK, Answer, Client, Conversation, FakeSet, Play, eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
PROGRAM = """
import os, resource, sys
if most := int(os.environ.get("NOFILE", "0")):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
from router.server import main
config, port, admin, state = sys.argv[1:5]
sys.exit(main(config, name="r9", bind="127.0.0.1:" + port, admin_bind="127.0.0.1:" + admin, state_dir=state,
              set_urls=dict(pair.split("=", 1) for pair in sys.argv[5:]), workers=int(os.environ.get("WORKERS", "1")),
              tls_cert=os.environ.get("TLS_CERT"), tls_key=os.environ.get("TLS_KEY")))
"""


@dataclass
class Process:
    """A router's process and how to talk with it."""

    process: asyncio.subprocess.Process
    port: int
    admin_port: int
    config: Path

    def workers(self) -> list[int]:
        """Their process ids."""
        pid = self.process.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, data: bytes = GET) -> Answer:
        client = await self.client()
        try:
            return await client.ask(data)
        finally:
            client.close()

    async def admin(self, path: str) -> Answer:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.admin_port))
        try:
            return await client.ask(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        finally:
            client.close()

    async def status(self) -> dict[str, Any]:
        return dict(json.loads((await self.admin("/status")).body))

    async def until(self, **wanted: object) -> dict[str, Any]:
        """Wait for these fields of the status."""
        for _ in range(200):
            try:
                status = await self.status()
            except (ConnectionError, asyncio.IncompleteReadError):
                status = {}
            if status and all(status[name] == value for name, value in wanted.items()):
                return status
            await asyncio.sleep(0.05)
        raise AssertionError((wanted, status))


def yaml(ports: dict[str, int], version: int, weights: dict[str, int]) -> str:
    sets = ", ".join(f'{name}: {{url: "http://127.0.0.1:{port}"}}' for name, port in ports.items())
    shares = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
    return f"version: {version}\nsets: {{{sets}}}\ndefault:\n  weights: {{{shares}}}\n"


def named(fake: FakeSet) -> Play:
    """Answers with its name, a health check too; `/slow` a little later."""

    async def play(conversation: Conversation) -> None:
        while True:
            head, _ = await conversation.request()
            if head.split(b" ")[1] == b"/slow":
                fake.requests.append((head, b""))
                await asyncio.sleep(0.5)
            await conversation.send(
                OK.replace(b"\r\n\r\nok", b"\r\nX-Set: %b\r\n\r\nok" % fake.name.encode())
            )

    return play


@asynccontextmanager
async def sets(*names: str) -> AsyncIterator[dict[str, FakeSet]]:
    fakes = {}
    servers = []
    for name in names:
        fake = FakeSet(name, play=named)  # type: ignore[arg-type]
        fake.play = named(fake)
        servers.append(await asyncio.start_server(fake.serve, "127.0.0.1", 0))
        fake.port = servers[-1].sockets[0].getsockname()[1]
        fakes[name] = fake
    try:
        yield fakes
    finally:
        for server in servers:
            server.close()


@asynccontextmanager
async def router(
    config: Path, state: Path, *set_urls: str, workers: int = 1, more: dict[str, str] | None = None
) -> AsyncIterator[Process]:
    """`more`: environment of the process."""
    port, admin = free_port(), free_port()
    environment = {**os.environ, "HOME": str(state), "WORKERS": str(workers), **(more or {})}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(config), str(port), str(admin), str(state), *set_urls,
        cwd=ROOT, stderr=asyncio.subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        running = Process(process, port, admin, config)
        async with asyncio.timeout(200):
            await running.until(draining=False, workers=workers)
            yield running
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 45)


async def test_traffic_admin_reload_and_stop(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    state.mkdir()
    async with sets("a", "b") as fakes:
        ports = {name: fake.port for name, fake in fakes.items()}
        config.write_text(yaml(ports, 1, {"a": 100, "b": 0}))
        async with router(config, state) as running:
            assert (await running.ask()).headers["x-set"] == "a"
            assert (await running.admin("/livez")).status == 200
            assert (await running.admin("/readyz")).status == 200
            metrics = (await running.admin("/metrics")).body.decode()
            assert 'gc_router_answers_total{set="a",status="200"} 1.0' in metrics
            assert (await running.admin("/nothing")).headers["x-router"] == "r9"

            # A saved edit counts by itself.
            config.write_text(yaml(ports, 2, {"a": 0, "b": 100}))
            await running.until(version=2)
            assert (await running.ask()).headers["x-set"] == "b"

            # A mistake does not, and is told.
            config.write_text(yaml(ports, 3, {"a": 1, "b": 100}))
            for _ in range(200):
                status = await running.status()
                if status["config_error"]:
                    break
                await asyncio.sleep(0.05)
            assert "total exactly 100" in status["config_error"]
            assert status["version"] == 2
            assert (await running.ask()).headers["x-set"] == "b"
            assert "gc_router_config_ok 0.0" in (await running.admin("/metrics")).body.decode()

            # SIGHUP reads at once, and nobody's connection is lost by it.
            client = await running.client()
            assert (await client.ask(GET)).headers["x-set"] == "b"
            config.write_text(yaml(ports, 4, {"a": 100, "b": 0}))
            running.process.send_signal(signal.SIGHUP)
            await running.until(version=4, config_error=None)
            assert (await client.ask(GET)).headers["x-set"] == "a"

            # A stop finishes what runs.
            await client.send(GET.replace(b"/x", b"/slow"))
            await eventually(lambda: bool(fakes["a"].requests))
            running.process.terminate()
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await running.process.wait() == 0
        # HOME too: no control socket.
        names = {path.name for path in state.iterdir()}
        assert names == {"r9.last-good.yaml", "r9.history", "r9.rollout", "r9.workers"}
        assert len(list((state / "r9.history").glob("*.yaml"))) == 3


async def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, tmp_path / "state") as running:
            assert (await running.ask()).status == 200
            assert "gc_router_requests_total 1.0" in (await running.admin("/metrics")).body.decode()
            (old,) = running.workers()
            os.kill(old, signal.SIGKILL)
            # What was told once is counted on.
            await running.until(requests=1)
            assert running.workers() != [old]
            assert (await running.ask()).status == 200
            metrics = (await running.admin("/metrics")).body.decode()
            assert 'gc_router_answers_total{set="a",status="200"} 2.0' in metrics
            assert "gc_router_worker_starts_total 2.0" in metrics


async def test_set_urls_and_the_last_good_copy(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": free_port()}, 7, {"a": 100}))
        override = f"a=http://127.0.0.1:{fakes['a'].port}"
        async with router(config, state, override) as running:
            assert (await running.ask()).headers["x-set"] == "a"
        config.write_text("broken: [")
        async with router(config, state, override) as running:
            status = await running.until(version=7)
            assert "not valid YAML" in status["config_error"]
            assert (await running.ask()).headers["x-set"] == "a"


@pytest.mark.parametrize(
    "text", [None, "broken: [", "version: 1\nsets: {}\ndefault: {weights: {a: 99.99}}\n"]
)
async def test_a_first_start_with_mistakes_ends_with_a_clear_word(tmp_path: Path, text: str | None) -> None:
    config = tmp_path / "router.yaml"
    if text is not None:
        config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(config), "0", "0", str(tmp_path / "state"),
        cwd=ROOT, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 78
    lines = [json.loads(line) for line in errors.splitlines()]
    assert any("line " in line.get("mistake", "") for line in lines), "the mistake and its place"
    assert lines[-1]["event"] == "router cannot start"
    assert "start again" in lines[-1]["reason"]
