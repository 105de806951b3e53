"""A load of many clients, as a separate process: `python -m ops.bench.load PORT PATH CLIENTS SECONDS [HEADER…]`.

Each client has one connection and sends the next request as soon as it has an answer. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final, cast

import uvloop

from ops.bench.client import request_bytes

BODY: Final = b"x" * 1024


class Client(asyncio.Protocol):
    """A client that sends requests until `until`; keeps latencies in seconds, counts answers other than 200 and 202."""

    def __init__(self, request: bytes, until: float, latencies: list[float], bad: list[bytes]) -> None:
        self._request = request
        self._until = until
        self._latencies = latencies
        self._bad = bad
        self._data = b""
        self._asked = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._data) < end + 4 + length:
            return
        if self._data[9:12] not in (b"200", b"202"):
            self._bad.append(self._data[:600])
        now = time.perf_counter()
        self._latencies.append(now - self._asked)
        self._data = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def load(port: int, path: str, clients: int, seconds: float, headers: list[str]) -> dict[str, object]:
    request = request_bytes(path, BODY, *headers)
    latencies: list[float] = []
    bad: list[bytes] = []
    began = time.perf_counter()
    until = began + seconds
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(request, until, latencies, bad), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.ended for _, client in made))
    elapsed = time.perf_counter() - began
    latencies.sort()
    count = len(latencies)
    return {
        "requests": count,
        "bad": len(bad),
        "first_bad": bad[0].decode(errors="replace") if bad else None,
        "per_s": count / elapsed,
        "p50_ms": latencies[count // 2] * 1e3 if count else None,
        "p99_ms": latencies[count * 99 // 100] * 1e3 if count else None,
    }


if __name__ == "__main__":
    port, path, clients, seconds, *headers = sys.argv[1:]
    print(json.dumps(uvloop.run(load(int(port), path, int(clients), float(seconds), headers))))
