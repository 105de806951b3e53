"""A release as an operator would watch it: a router process, two played sets, and users."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.router.rig import free_port

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from router.server import main
config, port, admin, state, token = sys.argv[1:6]
sys.exit(main(config, name="r1", bind="127.0.0.1:" + port, admin_bind="127.0.0.1:" + admin, state_dir=state,
              admin_token_file=token or None))
"""


@dataclass
class PlayedSet:
    """A set that answers so late, and so often with 500. Its health check answers `ready`."""

    name: str
    delay_s: float = 0.004
    error_rate: float = 0.0
    ready: bool = True
    tells: str = "{}"
    """The body of its health check."""
    port: int = 0
    answered: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head, body = await reader.readuntil(b"\r\n\r\n"), b"ok"
                if head.startswith(b"GET /readyz"):
                    status = b"200 OK" if self.ready else b"503 Not Ready"
                    body = self.tells.encode()
                else:
                    await asyncio.sleep(self.delay_s * self.chance.uniform(0.6, 1.6))
                    bad = self.chance.random() < self.error_rate
                    status = b"500 Broken" if bad else b"200 OK"
                    self.answered += 1
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Length: %d\r\nX-Set: %b\r\n\r\n%b"
                    % (status, len(body), self.name.encode(), body)
                )
                await writer.drain()
        writer.close()


@dataclass
class Stage:
    """The router's process, what it serves, and whom."""

    folder: Path
    sets: dict[str, PlayedSet]
    port: int
    admin_port: int
    token: str | None
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def file(self) -> Path:
        return self.folder / "router.yaml"

    def write(
        self,
        weights: Mapping[str, float],
        *,
        version: int = 1,
        more: str = "",
        states: Mapping[str, str] | None = None,
    ) -> None:
        """Write the operators' file; `states` by set's name."""
        sets = "\n".join(
            f'  {name}: {{url: "http://127.0.0.1:{each.port}", state: {(states or {}).get(name, "ready")}}}'
            for name, each in self.sets.items()
        )
        shares = ", ".join(f"{name}: {weight}" for name, weight in weights.items())
        self.file.write_text(
            f'version: {version}\nchange: {{by: ops, why: "release of b"}}\nsets:\n{sets}\n'
            f'default:\n  key: ["header:x-user-id"]\n  weights: {{{shares}}}\n'
            f"health: {{interval: 500ms, fall: 2, rise: 1}}\n{more}\n"
        )

    async def start(self) -> None:
        token = self.folder / "token"
        if self.token is not None:
            token.write_text(self.token)
        with (self.folder / "router.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", PROGRAM, str(self.file), str(self.port), str(self.admin_port),
                str(self.folder / "state"), str(token) if self.token is not None else "",
                cwd=ROOT, stderr=log, env={**os.environ, "HOME": str(self.folder)},
            )  # fmt: skip
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 45)

    async def ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers) as client:
            answer = await (client.get(path) if body is None else client.post(path, json=body))
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

    async def until(self, path: str = "/rollout", within_s: float = 30.0, **wanted: object) -> dict[str, Any]:
        """Ask until these fields have these values."""
        found: dict[str, Any] = {}
        for _ in range(int(within_s / 0.1)):
            found = await self.ask(path)
            if all(found[name] == value for name, value in wanted.items()):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError((wanted, {name: found.get(name) for name in wanted}, found.get("reason")))

    async def user(self, number: int, pause_s: float) -> None:
        """One connection that asks for ever, as another user each time."""
        chance = random.Random(number)
        while True:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    while True:
                        user = chance.randrange(100_000)
                        writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % user)
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = re.search(rb"(?i)content-length: (\d+)", head)
                        await reader.readexactly(int(length[1]) if length else 0)
                        await asyncio.sleep(pause_s)
                finally:
                    writer.close()
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def traffic(self, users: int = 6, pause_s: float = 0.02) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.user(number, pause_s)) for number in range(users)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def staged(
    folder: Path,
    weights: Mapping[str, float] | None = None,
    *,
    more: str = "",
    token: str | None = None,
    states: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """A stage with the sets `a` and `b`, whose router runs. Ends all of it."""
    (folder / "state").mkdir(parents=True, exist_ok=True)
    played = {name: PlayedSet(name) for name in ("a", "b")}
    servers = []
    for each in played.values():
        server = await asyncio.start_server(each.serve, "127.0.0.1", 0)
        each.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    stage = Stage(folder, played, free_port(), free_port(), token)
    stage.write(weights or {"a": 90, "b": 10}, more=more, states=states)
    try:
        await stage.start()
        yield stage
    finally:
        await stage.stop()
        for server in servers:
            server.close()


def rollout(*steps: str, **more: str) -> str:
    """A `rollout` section for set b."""
    rest = "".join(f"\n  {name}: {value}" for name, value in more.items())
    return f"rollout:\n  set: b\n  steps: [{', '.join(steps)}]{rest}"


LONG = rollout("{weight: 10, hold: 1h}", "{pause: true}", "{weight: 50, hold: 1h}")
