"""Clients that count every error: `python -m ops.bench_router.soakload PORT AT_LEAST CLIENTS PATH`.

Each sends the next request as soon as it has an answer: GETs, sync runs and async runs (half of them with an
Idempotency-Key), each async run under its own name. They go on until AT_LEAST requests were sent and standard input
has ended. A request fails unless a complete answer with the right status comes back: refused connections, connections
that close after a request, broken answers and silence all count. Prints a line of JSON each second; the last has
`"ended": true`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

import uvloop

SILENCE_S: Final = 60.0
RUNS_OF_TEN: Final = {3: "sync", 7: "async"}
"""Runs among ten requests: as many as a set with an engine can do besides eight GETs."""
ACCEPTED: Final = {"get": 200, "sync": 200, "async": 202}
SAMPLES_EACH: Final = 2
BODY: Final = b"x" * 200


class Failed(Exception):
    """A request had no correct answer."""


class Tally:
    """The counters of all clients."""

    def __init__(self, at_least: int, path: str) -> None:
        self.at_least = at_least
        self.path = path
        self.told_to_end = False
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.samples: list[str] = []
        self.closed_idle = 0
        """Connections that the server closed, or announced to close, between requests."""
        self._number = 0

    def requests(self) -> Iterator[tuple[str, bytes]]:
        """Yield kind and bytes of the next requests, until the end."""
        while not (self.told_to_end and self.answered.total() + self.failed.total() >= self.at_least):
            number = self._number
            self._number += 1
            kind = RUNS_OF_TEN.get(number % 10, "get")
            yield kind, self._bytes(kind, number)

    def note_failure(self, kind: str, error: Exception) -> None:
        words = str(error) or type(error).__name__
        name = f"{kind}: {words.splitlines()[0][:80]}"
        self.failed[name] += 1
        if self.failed[name] <= SAMPLES_EACH and len(self.failed) < 50:
            self.samples.append(f"{kind}: {words[:600]}")

    def line(self, *, ended: bool = False) -> str:
        return json.dumps(
            {
                "ended": ended,
                "answered": dict(self.answered),
                "failed": dict(self.failed),
                "samples": self.samples if ended else [],
                "closed_idle": self.closed_idle,
            }
        )

    def _bytes(self, kind: str, number: int) -> bytes:
        if kind == "get":
            return b"GET /openapi.json HTTP/1.1\r\nHost: soak\r\n\r\n"
        lines = [f"POST {self.path} HTTP/1.1", "Host: soak", f"Content-Length: {len(BODY)}"]
        if kind == "async":
            lines[0] = f"POST {self.path}?name=n{number} HTTP/1.1"
            lines += ["Prefer: respond-async", "X-Account: soak-async"]
            if number % 20 == 7:
                lines.append(f"Idempotency-Key: k{number}")
        else:
            lines.append("X-Account: soak-sync")
        return "\r\n".join([*lines, "", ""]).encode() + BODY


class Client:
    """A client with one connection at a time."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        for kind, request in self._tally.requests():
            try:
                status = await asyncio.wait_for(self._ask(request), SILENCE_S)
                if status != ACCEPTED[kind]:
                    raise Failed(f"answered {status}")
                self._tally.answered[kind] += 1
            except (Failed, OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
                self._close()
                self._tally.note_failure(kind, error)
                await asyncio.sleep(0.01)
        self._close()

    async def _ask(self, request: bytes) -> int:
        reader, writer = self._reader, self._writer
        if reader is not None and reader.at_eof():
            self._tally.closed_idle += 1
            self._close()
            reader = None
        if reader is None or writer is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._reader, self._writer = reader, writer
        writer.write(request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise Failed(
                "closed within an answer's head" if error.partial else "closed before an answer"
            ) from None
        lines = head.decode("latin-1").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        try:
            body = await self._body(reader, fields)
        except asyncio.IncompleteReadError:
            raise Failed("closed within an answer's body") from None
        status = int(lines[0].split(" ")[1])
        if status not in ACCEPTED.values():
            raise Failed(f"answered {status}\n{head.decode('latin-1')}{body.decode('latin-1')}")
        if "close" in fields.get("connection", ""):
            self._tally.closed_idle += 1
            self._close()
        return status

    async def _body(self, reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
        if "chunked" not in fields.get("transfer-encoding", ""):
            return await reader.readexactly(int(fields["content-length"]))
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
        return b"".join(parts)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def load(port: int, at_least: int, clients: int, path: str) -> None:
    tally = Tally(at_least, path)
    loop = asyncio.get_running_loop()
    told = loop.run_in_executor(None, sys.stdin.buffer.read)

    async def report() -> None:
        while True:
            await asyncio.sleep(1.0)
            tally.told_to_end = told.done()
            print(tally.line(), flush=True)

    reporting = loop.create_task(report())
    await asyncio.gather(*(Client(port, tally).run() for _ in range(clients)))
    reporting.cancel()
    print(tally.line(ended=True), flush=True)


if __name__ == "__main__":
    port, at_least, clients, path = sys.argv[1:]
    uvloop.run(load(int(port), int(at_least), int(clients), path))
