"""A load of many clients, as a separate process: `python -m ops.bench.load --help`.

Each client has one connection and sends the next request as soon as it has an answer. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from typing import Final, cast

import uvloop

from ops.bench.client import request_bytes

BODY: Final = b"x" * 1024


@dataclass
class Orders:
    """A client sends `request` again and again until the moment `until`; here is how its answers went, too.

    `to_the_end`: after an accepted submission a client waits for the task's end, and only then goes on; a request's
    latency lasts until then. `pause_s`: a client sends a request each time so many seconds have passed, not as soon as
    it has an answer; a latency counts from the moment at which its request was due. Latencies are seconds.
    """

    request: bytes
    headers: list[str]
    until: float
    to_the_end: bool
    pause_s: float
    latencies: list[float]
    bad: list[bytes]


class Client(asyncio.Protocol):
    """One client; `ended` is done when its last answer is there."""

    def __init__(self, orders: Orders, first: float) -> None:
        self._orders = orders
        self._data = b""
        self._due = first
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._plan()

    def _plan(self) -> None:
        early_s = self._due - time.perf_counter()
        if early_s > 0:
            asyncio.get_running_loop().call_later(early_s, self._transport.write, self._orders.request)
        else:
            self._transport.write(self._orders.request)

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
        status, body = self._data[9:12], self._data[end + 4 :]
        self._data = b""
        if status == b"202" and self._orders.to_the_end:
            self._await_end(body)
        else:
            self._answered(status, body)

    def _await_end(self, body: bytes) -> None:
        at = body.index(b'"id":') + 5
        task_id = body[at:].split(b'"', 2)[1].decode()
        lines = [f"GET /v1/tasks/{task_id}?wait=60 HTTP/1.1", "Host: bench", *self._orders.headers, "", ""]
        self._transport.write("\r\n".join(lines).encode())

    def _answered(self, status: bytes, body: bytes) -> None:
        orders = self._orders
        if status not in (b"200", b"202") or (orders.to_the_end and b'"succeeded"' not in body):
            orders.bad.append(status + b" " + body[:600])
        now = time.perf_counter()
        orders.latencies.append(now - self._due)
        self._due = self._due + orders.pause_s if orders.pause_s else now
        if self._due < orders.until:
            self._plan()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _connect(port: int, client: Client) -> Client:
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    return client


async def load(options: argparse.Namespace) -> dict[str, object]:
    began = time.perf_counter()
    orders = Orders(
        request=request_bytes(options.path, BODY, *options.headers),
        headers=[header for header in options.headers if not header.startswith("Prefer:")],
        until=began + options.seconds,
        to_the_end=options.to_the_end,
        pause_s=options.clients / options.per_s if options.per_s else 0.0,
        latencies=[],
        bad=[],
    )
    made = []
    for number in range(options.clients):
        first = began + orders.pause_s * number / options.clients
        made.append(await _connect(options.port, Client(orders, first)))
    await asyncio.gather(*(client.ended for client in made))
    elapsed = time.perf_counter() - began
    latencies = sorted(orders.latencies)
    count = len(latencies)
    return {
        "requests": count,
        "bad": len(orders.bad),
        "first_bad": orders.bad[0].decode(errors="replace") if orders.bad else None,
        "per_s": count / elapsed,
        "p50_ms": latencies[count // 2] * 1e3 if count else None,
        "p99_ms": latencies[count * 99 // 100] * 1e3 if count else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("headers", nargs="*", help="header lines of each request")
    parser.add_argument("--to-the-end", action="store_true", help="wait for the end of each submitted task")
    parser.add_argument("--per-s", type=float, help="requests a second of all clients together")
    print(json.dumps(uvloop.run(load(parser.parse_args()))))


if __name__ == "__main__":
    main()
