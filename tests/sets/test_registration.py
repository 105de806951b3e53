"""A set registers with a Consul agent: a double always, and a real one where `consul` is on PATH."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from scheduler.backoff import Backoff
from sets import registration as registration_module
from sets.config import RegistrationConfig, SetConfig
from sets.registration import Registration
from tests.conftest import StartSet
from tests.ports import free_port

ID = "gc-set-a-10.0.0.5-8101"


class FakeAgent:
    """What `Registration` uses of an agent's API. `refuse` has it answer 500."""

    def __init__(self, port: int = 0) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.tokens: list[str] = []
        self.refuse = False
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                services = {name: {"ID": name, "Meta": each["meta"]} for name, each in agent.known.items()}
                self._answer(json.dumps(services).encode())

            def do_PUT(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if self.path.endswith("/register") and not agent.refuse:
                    asked = json.loads(content)
                    agent.known[asked["id"]] = asked
                elif not agent.refuse:
                    agent.known.pop(self.path.rpartition("/")[2], None)
                self._answer(b"")

            def _answer(self, content: bytes) -> None:
                agent.tokens.append(self.headers.get("X-Consul-Token", ""))
                self.send_response(500 if agent.refuse else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def services(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "Service": each["name"],
                "Address": each["address"],
                "Port": each["port"],
                "Meta": each["meta"],
            }
            for name, each in self.known.items()
        }

    def forget(self, service_id: str) -> None:
        del self.known[service_id]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ConsulAgent:
    """A real agent in development mode, with ports of its own."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("consul")
        if binary is None:
            pytest.skip("no consul here: with it on PATH, registration is also tested with a real agent")
        ports = {"http": free_port(), "server": free_port(), "serf_lan": free_port(), "serf_wan": free_port()}
        (folder / "agent.json").write_text(
            json.dumps({"ports": {**ports, "dns": -1, "grpc": -1, "grpc_tls": -1}})
        )
        self.url = f"http://127.0.0.1:{ports['http']}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "agent", "-dev", "-config-file", str(folder / "agent.json")], stdout=log, stderr=log
            )

    def services(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = httpx.get(f"{self.url}/v1/agent/services", timeout=10).json()
        except (httpx.HTTPError, ValueError):
            return {}
        return found

    def forget(self, service_id: str) -> None:
        httpx.put(f"{self.url}/v1/agent/service/deregister/{service_id}", timeout=10).raise_for_status()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture(params=["double", "consul"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeAgent | ConsulAgent]:
    agent = FakeAgent() if request.param == "double" else ConsulAgent(tmp_path)
    yield agent
    agent.close()


@contextmanager
def agent_of_its_own(port: int = 0) -> Iterator[FakeAgent]:
    agent = FakeAgent(port)
    try:
        yield agent
    finally:
        agent.close()


@pytest.fixture
def double() -> Iterator[FakeAgent]:
    with agent_of_its_own() as agent:
        yield agent


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration_module, "LOOK_S", 0.05)
    monkeypatch.setattr(registration_module, "RETRY", Backoff(0.02, 0.1))


def made(url: str, build: str = "b1", **settings: Any) -> Registration:
    settings.setdefault("address", "10.0.0.5:8101")
    registration = RegistrationConfig(consul=url, **settings)
    return Registration(SetConfig(name="a", state_dir="/nowhere"), registration, build)


@pytest.fixture
async def registration(agent: FakeAgent | ConsulAgent) -> AsyncIterator[Registration]:
    registration = made(agent.url)
    await registration.open()
    yield registration
    await registration.close()


async def until_known(agent: FakeAgent | ConsulAgent, *ids: str, **meta: str) -> dict[str, dict[str, Any]]:
    """Wait until the agent has these services and no others, and they say this of themselves."""
    async with asyncio.timeout(120):
        while True:
            services = await asyncio.to_thread(agent.services)
            if set(services) == set(ids) and all(
                meta.items() <= service["Meta"].items() for service in services.values()
            ):
                return services
            await asyncio.sleep(0.02)


async def test_a_set_is_registered_from_open_to_close(
    agent: FakeAgent | ConsulAgent, registration: Registration
) -> None:
    services = await until_known(agent, ID)
    found = services[ID]
    assert (found["Service"], found["Address"], found["Port"]) == ("gc-set-a", "10.0.0.5", 8101)
    assert found["Meta"] == {"set": "a", "build": "b1"}
    await registration.close()
    await until_known(agent)


async def test_an_agent_that_forgets_it_is_told_again(
    agent: FakeAgent | ConsulAgent, registration: Registration
) -> None:
    await until_known(agent, ID)
    await asyncio.to_thread(agent.forget, ID)
    await until_known(agent, ID)


async def test_another_build_at_the_address_takes_its_place(
    agent: FakeAgent | ConsulAgent, registration: Registration
) -> None:
    await until_known(agent, ID, build="b1")
    await registration.close()
    later = made(agent.url, "b2")
    await later.open()
    await until_known(agent, ID, build="b2")
    await later.close()


async def test_the_agent_checks_whether_the_set_is_ready(double: FakeAgent) -> None:
    registration = made(double.url, address="[::1]:8101", service="other")
    await registration.open()
    await until_known(double, "other-::1-8101")
    (check,) = double.known["other-::1-8101"]["checks"]
    assert (check["http"], check["interval"]) == ("http://[::1]:8101/readyz", "5s")
    assert check["DeregisterCriticalServiceAfter"] == "72h"
    await registration.close()


async def test_an_agent_that_is_away_or_refuses_is_tried_again() -> None:
    port = free_port()
    registration = made(f"http://127.0.0.1:{port}")
    await registration.open()
    await asyncio.sleep(0)
    with agent_of_its_own(port) as agent:
        agent.refuse = True
        async with asyncio.timeout(60):
            while not agent.tokens:  # noqa: ASYNC110 (the agent's thread acts)
                await asyncio.sleep(0.01)
        assert agent.known == {}
        agent.refuse = False
        await until_known(agent, ID)
        await registration.close()


async def test_a_set_stops_though_its_agent_is_away() -> None:
    registration = made(f"http://127.0.0.1:{free_port()}")
    await registration.open()
    async with asyncio.timeout(60):
        await registration.close()


async def test_a_set_that_was_never_opened_closes() -> None:
    await made("http://127.0.0.1:1").close()


async def test_the_token_is_the_file_s_whatever_the_environment_says(
    double: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "not ours")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    token = tmp_path / "token"
    token.write_text("first\n")
    registration = made(double.url, token_file=str(token))
    await registration.open()
    await until_known(double, ID)
    assert set(double.tokens) == {"first"}
    token.write_text("second")
    await registration.close()
    assert double.tokens[-1] == "second"


@pytest.mark.docker
async def test_a_real_set_registers_and_takes_itself_out(start_set: StartSet) -> None:
    with agent_of_its_own() as agent:
        process = await asyncio.to_thread(
            start_set, "treg", f"registration: {{consul: '{agent.url}', service: gc-set-x}}\n"
        )
        instance = f"gc-set-x-127.0.0.1-{process.port}"
        services = await until_known(agent, instance)
        assert services[instance]["Port"] == process.port
        assert services[instance]["Meta"]["set"] == process.name
        assert await asyncio.to_thread(process.stop) == 0
        assert agent.known == {}
