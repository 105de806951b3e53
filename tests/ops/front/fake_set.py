"""A set that is played, in a thread of its own: it echoes, counts, fails, waits and refuses, as its paths say."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

PIECE = 64 * 1024
OK = b"HTTP/1.1 200 OK\r\nX-Set: a\r\n"
PROBLEM = b"HTTP/1.1 %b\r\nX-Set: a\r\nContent-Type: application/problem+json\r\n"


class FakeSet:
    """Use as a context manager. `received` and `sent` count bytes of bodies, as they pass; `seen` counts requests by
    their first two path segments, `ended` those whose connection went away before their answer."""

    def __init__(self) -> None:
        self.port = 0
        self.received = 0
        self.sent = 0
        self.seen: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.trailers: list[bytes] = []
        self.continued: list[int] = []
        """How many bytes of a body came before they were asked for."""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FakeSet:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = ""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                call = Call(self, reader, writer, head)
                path = call.path
                self.seen[path] += 1
                await self._answer(call)
                path = ""
                if call.close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            if path:
                self.ended[path] += 1
        finally:
            writer.close()

    async def _answer(self, call: Call) -> None:
        plays: dict[str, Callable[[], Awaitable[None]]] = {
            "/v1/run/count:1": call.count,
            "/v1/run/echo:1": call.echo,
            "/v1/run/refused:1": call.refuse,
            "/v1/run/breaks:1": call.break_off,
            "/v1/run/silent:1": call.say_nothing,
            "/v1/run/trailers:1": call.send_trailers,
            "/v1/run/careful:1": call.ask_for_body,
            "/v1/run/deaf:1": call.hear_nothing,
            "/v1/tasks/a-1/stdout": call.stdout,
        }
        await plays.get(call.path, call.describe)()


class Call:
    """One request and the ways to answer it."""

    def __init__(
        self, owner: FakeSet, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> None:
        self._set = owner
        self._reader = reader
        self._writer = writer
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ")
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        self.close = False

    async def pieces(self, take: Callable[[bytes], Awaitable[None]]) -> None:
        """The body, piece by piece; trailers go to the set's list."""
        if "content-length" in self.headers:
            await self._take(int(self.headers["content-length"]), take)
        elif "transfer-encoding" in self.headers:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._take(size, take)
                await self._reader.readexactly(2)
            while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
                self._set.trailers.append(line.strip())

    async def _take(self, left: int, take: Callable[[bytes], Awaitable[None]]) -> None:
        """So many bytes of it."""
        while left:
            piece = await self._reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            self._set.received += len(piece)
            await take(piece)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def send_json(self, document: object) -> None:
        body = json.dumps(document).encode()
        await self.send(
            OK
            + b"Content-Type: application/json\r\nX-Task-Id: a-1\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async def describe(self) -> None:
        """What arrived, after `wait` seconds where that is asked for."""

        async def drop(piece: bytes) -> None:
            pass

        await self.pieces(drop)
        if "wait" in self.query:
            await asyncio.sleep(float(self.query["wait"]))
        await self.send_json({"method": self.method, "target": self.target, "headers": self.headers})

    async def count(self) -> None:
        digest, size = hashlib.sha256(), 0

        async def take(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            digest.update(piece)

        await self.pieces(take)
        await self.send_json({"bytes": size, "sha256": digest.hexdigest(), "headers": self.headers})

    async def echo(self) -> None:
        """While it comes."""
        await self.send(OK + b"X-Task-Id: a-1\r\nTransfer-Encoding: chunked\r\n\r\n")

        async def take(piece: bytes) -> None:
            await self.send(b"%x\r\n%b\r\n" % (len(piece), piece))

        await self.pieces(take)
        await self.send(b"0\r\n\r\n")

    async def stdout(self) -> None:
        """`size` bytes, as far as they are taken."""
        size = int(self.query["size"])
        await self.send(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(0, size, PIECE):
            await self.send(bytes(PIECE))
            self._set.sent += PIECE

    async def refuse(self) -> None:
        """At once, whatever else comes."""
        body = json.dumps(
            {"type": "https://general-compute.invalid/problems/image-unknown", "title": "The image is unknown",
             "status": 404, "detail": "no image is named 'refused:1'", "executed": False}
        ).encode()  # fmt: skip
        await self.send(
            PROBLEM % b"404 Not Found"
            + b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
        self.close = True
        # As a server does that must not reset its own answer away: read on for a moment.
        try:
            async with asyncio.timeout(0.5):
                while piece := await self._reader.read(PIECE):
                    self._set.received += len(piece)
        except TimeoutError:
            pass

    async def break_off(self) -> None:
        """A task that fails after its first byte."""
        framing = (
            b"Content-Length: 100" if self.query.get("framing") == "length" else b"Transfer-Encoding: chunked"
        )
        beginning = b"half" if b"Length" in framing else b"4\r\nhalf\r\n"
        await self.send(OK + framing + b"\r\n\r\n" + beginning)
        await asyncio.sleep(0.1)
        self.close = True

    async def say_nothing(self) -> None:
        """Until the client's end is seen."""

        async def drop(piece: bytes) -> None:
            pass

        await self.pieces(drop)
        await self._reader.read(1)
        raise ConnectionError

    async def hear_nothing(self) -> None:
        """Leave the body unread for a while."""
        await asyncio.sleep(4)
        raise ConnectionError

    async def send_trailers(self) -> None:
        async def drop(piece: bytes) -> None:
            pass

        await self.pieces(drop)
        await self.send(
            OK
            + b"Trailer: X-Exit-Code\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nout\r\n0\r\nX-Exit-Code: 0\r\n\r\n"
        )

    async def ask_for_body(self) -> None:
        """`Expect: 100-continue`, answered after a while."""
        if self.headers.get("expect") == "100-continue":
            await asyncio.sleep(0.4)
            self._set.continued.append(len(getattr(self._reader, "_buffer", b"")))
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.count()
