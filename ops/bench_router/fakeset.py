"""A set without an engine: `python -m ops.bench_router.fakeset NAME PORT JOURNAL`.

It answers with the native API's statuses: 200 with a task's facts, 202 once the task is in the journal (a line for
each task, which survives a restart), the same task for the same Idempotency-Key, and 503 with `executed: false` while
it stops. After SIGTERM it refuses new work for a moment, finishes the rest, and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qs, urlsplit

import uvloop

RUN_S: Final = 0.001
"""Duration of a sync task in seconds, so that some are always running when a set ends."""
REFUSING_S: Final = 0.3
FINISHING_S: Final = 5.0


class FakeSet:
    """The tasks of the fake set, and their journal."""

    def __init__(self, name: str, journal: Path) -> None:
        self.name = name
        self.draining = False
        self.working = 0
        self.connections: set[Connection] = set()
        self._keys: dict[str, str] = {}
        self._tasks = 0
        if journal.exists():
            for line in journal.read_text().splitlines():
                _, key, task = line.split(" ")
                self._tasks += 1
                if key != "-":
                    self._keys[key] = task
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def knows(self, key: str | None) -> bool:
        return key is not None and key in self._keys

    def submit(self, label: str, key: str | None) -> str:
        """Return the task's id, once it is in the journal."""
        if key is not None and key in self._keys:
            return self._keys[key]
        self._tasks += 1
        task = f"{self.name}-{self._tasks:010d}"
        os.write(self._journal, f"{label} {key or '-'} {task}\n".encode())
        if key is not None:
            self._keys[key] = task
        return task


class Connection(asyncio.Protocol):
    """A connection with one request after another, with Content-Length or without a body."""

    def __init__(self, fake: FakeSet) -> None:
        self._fake = fake
        self._data = b""
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._fake.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._fake.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._busy:
            self._next()

    def close_if_idle(self) -> None:
        if not self._busy and not self._data:
            self._transport.close()

    def _next(self) -> None:
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(fields.get("content-length", "0"))
        if len(rest) < length:
            return
        self._data = rest[length:]
        method, target, _ = lines[0].split(" ")
        self._busy = True
        self._fake.working += 1
        self._answer(method, target, fields, rest[:length])

    def _answer(self, method: str, target: str, fields: dict[str, str], body: bytes) -> None:
        fake = self._fake
        url = urlsplit(target)
        if url.path == "/readyz" and fake.draining:
            self._problem("set-draining")
        elif url.path in ("/readyz", "/openapi.json"):
            self._send(200, b"ok\n")
        elif url.path == "/v1/idempotency":
            self._send(200 if fake.knows(fields.get("idempotency-key")) else 404, b"{}")
        elif not url.path.startswith("/v1/run/") or method != "POST":
            self._send(404, b"{}")
        elif fake.draining:
            self._problem("set-draining")
        elif "respond-async" in fields.get("prefer", ""):
            label = parse_qs(url.query).get("name", ["-"])[0]
            task = fake.submit(label, fields.get("idempotency-key"))
            document = {"id": task, "set": fake.name, "name": label, "kind": "async", "state": "queued"}
            self._send(
                202, json.dumps(document).encode(), f"Location: /v1/tasks/{task}\r\nX-Task-Id: {task}\r\n"
            )
        else:
            facts = "X-Task-Id: {}-sync\r\nX-Exit-Code: 0\r\nX-Cpu-Us: 800\r\nX-Duration-Us: 1000\r\nX-Queue-Us: 10\r\n"
            loop = asyncio.get_running_loop()
            loop.call_later(RUN_S, self._send, 200, body, facts.format(fake.name))

    def _problem(self, name: str) -> None:
        document = {
            "type": f"https://general-compute.invalid/problems/{name}",
            "title": "Try elsewhere",
            "status": 503,
            "executed": False,
        }
        more = "Content-Type: application/problem+json\r\nRetry-After: 1\r\n"
        self._send(503, json.dumps(document).encode(), more)

    def _send(self, status: int, body: bytes, more: str = "") -> None:
        fake = self._fake
        fake.working -= 1
        self._busy = False
        if self._transport.is_closing():
            return
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Set: {fake.name}\r\n{more}"
        if fake.draining:
            head += "Connection: close\r\n"
        self._transport.write(head.encode() + b"\r\n" + body)
        if fake.draining:
            self._transport.close()
        else:
            self._next()


async def serve(fake: FakeSet, port: int) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    server = await loop.create_server(lambda: Connection(fake), "127.0.0.1", port, backlog=4096)
    await ending.wait()
    fake.draining = True
    await asyncio.sleep(REFUSING_S)
    server.close()
    deadline = loop.time() + FINISHING_S
    while fake.connections and loop.time() < deadline:
        for connection in tuple(fake.connections):
            connection.close_if_idle()
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    name, port, journal = sys.argv[1:]
    uvloop.run(serve(FakeSet(name, Path(journal)), int(port)))
