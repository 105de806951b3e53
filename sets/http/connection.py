"""One client's connection: requests are read, served one after the other, and answered in order."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import structlog

from sets.api.native.problems import MEDIA_TYPE, problem_of_http
from sets.http.exchange import Exchange
from sets.http.head import Address, RequestHead
from sets.http.reader import RequestReader
from sets.http.refusal import Refusal

log = structlog.get_logger()

HEAD_TIMEOUT_S: Final = 30.0
"""How long a request's head may take from its first byte, or from the connection's beginning."""
KEEP_ALIVE_S: Final = 75.0
"""How long a connection may wait for its next request."""
LINGER_S: Final = 2.0
"""How long what a client still sends is read and dropped after an answer that did not wait for it."""
PIPELINED: Final = 256
"""Requests that may wait behind the one that is served."""
WRITE_HIGH_BYTES: Final = 262_144
"""Answer bytes that may wait in the process for a client that reads slowly."""
WRITE_STALL_S: Final = 300.0
"""How long a client may read nothing of an answer that waits for it: as long as a sync task may run."""


class Server(Protocol):
    """What connections need of the worker that they belong to."""

    loop: asyncio.AbstractEventLoop
    asgi: Callable[..., Awaitable[None]]
    body_stall_s: float
    set_header: bytes
    nr_conns: int
    connections: set[Connection]
    connections_max: int
    alive: bool
    """False: it serves no request after the present ones."""


class Connection(asyncio.Protocol):
    """What is no valid HTTP/1.1 is answered as the API answers: with a problem, and the connection's end."""

    def __init__(self, server: Server) -> None:
        self.loop: asyncio.AbstractEventLoop = server.loop
        self.body_stall_s: float = server.body_stall_s
        self.set_header: bytes = server.set_header
        self.closed = False
        # Awaited while the client reads too slowly.
        self.write_paused: asyncio.Future[None] | None = None
        self._server = server
        self._transport: asyncio.Transport
        self._addresses: tuple[Address, Address] = (None, None)
        self._reader = RequestReader()
        # Whether bytes have come that may be the next request's.
        self._head_begun = False
        # The request whose body is being read, and the one that is served: often the same.
        self._reading: Exchange | None = None
        self._serving: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Exchange | Refusal] = deque()
        # Whether what still comes is not read as requests.
        self._deaf = False
        self._read_paused = False
        self._lingering: asyncio.TimerHandle | None = None
        # All bytes of answers; how many of them had left when it was looked last, and when that was less.
        self._written = 0
        self._sent = 0
        self._sent_more_s = self.loop.time()
        self._deadline_s = self.loop.time() + HEAD_TIMEOUT_S

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no common class with asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._addresses = (
            _address(transport.get_extra_info("sockname")),
            _address(transport.get_extra_info("peername")),
        )
        self._server.nr_conns += 1
        self._server.connections.add(self)
        if len(self._server.connections) > self._server.connections_max:
            refusal = Refusal(
                503,
                f"no more connections may be open (open: {self._server.connections_max}): close some, or come again",
            )
            self.write(self._problem(refusal.status, str(refusal), executed=False))
            self.closed = True
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._server.nr_conns -= 1
        self._server.connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        self._waiting.clear()
        self.resume_writing()
        if self._serving is not None:
            self._serving.lose()
        if self._task is not None:
            # A client that goes away ends its task at once.
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._lingering is not None or self.closed or self._deaf:
            return
        if self._reading is None and not self._head_begun:
            self._head_begun = True
            if self._serving is None:
                self._deadline_s = self.loop.time() + HEAD_TIMEOUT_S
        try:
            for event in self._reader.read(data):
                if event is None:
                    self._end_body()
                elif isinstance(event, bytes):
                    self._take_body(event)
                else:
                    self._begin(event)
        except Refusal as refusal:
            self._refuse(refusal)
        # Only now: a body whose framing is wrong is refused with its head, where both came at once.
        self._serve_next()

    def _begin(self, head: RequestHead) -> None:
        if len(self._waiting) > PIPELINED:
            raise Refusal(400, f"more than {PIPELINED} requests were sent before the first was answered")
        self._head_begun = False
        scope = head.scope(*self._addresses)
        self._reading = Exchange(self, scope, keep_alive=head.keep_alive, waits=head.waits)
        self._waiting.append(self._reading)

    def _take_body(self, piece: bytes) -> None:
        reading = self._reading
        assert reading is not None
        reading.feed(piece)
        if reading.full:
            self._pause()

    def _end_body(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.complete()

    def eof_received(self) -> None:
        """The client sends no more. Where a body should still come it may yet read an answer; else it is gone."""
        reading = self._reading
        if reading is not None and not self.closed and self._lingering is None:
            self._refuse(Refusal(400, "the request's body ended before its Content-Length or its last chunk"))
            self._serve_next()

    def pause_writing(self) -> None:
        if self.write_paused is None:
            self.write_paused = self.loop.create_future()

    def resume_writing(self) -> None:
        paused, self.write_paused = self.write_paused, None
        if paused is not None and not paused.done():
            paused.set_result(None)

    # -- serving

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, all its answers sent."""
        return (
            self._serving is None
            and self._reading is None
            and not self._waiting
            and not self._transport.get_write_buffer_size()
        )

    @property
    def draining(self) -> bool:
        return not self._server.alive

    def _serve_next(self) -> None:
        if self._serving is not None:
            if self._waiting:
                # One request is served at a time; what comes behind it may wait with the client.
                self._pause()
            return
        if not self._waiting or self.closed:
            return
        first = self._waiting.popleft()
        if isinstance(first, Refusal):
            self._answer_refusal(first, executed=False)
            return
        self._serving = first
        self._task = self.loop.create_task(self._serve(first))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._server.asgi(exchange.scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            self._serving = None
            self.close()
            return
        except Exception:
            log.exception("a request failed", path=exchange.scope["path"])
            if not exchange.answer_begun:
                self.write(self._problem(500, "the set failed; its log says how", executed=True))
        self._task = None
        self._serving = None
        self._deadline_s = self.loop.time() + KEEP_ALIVE_S
        if not exchange.answer_whole or not exchange.keep_alive:
            # In the middle of an answer, the connection's end without the last chunk says that it is broken off.
            self.close()
            return
        self._serve_next()
        self.resume()

    # -- refusals

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is wrong, behind what was right before it."""
        self._deaf = True
        reading, self._reading = self._reading, None
        if reading is not None and reading is not self._serving:
            self._waiting.remove(reading)
            reading = None
        if reading is None:
            self._waiting.append(refusal)
            return
        # The wrong bytes are of the body of the request that is being served.
        if not reading.answer_begun:
            self._answer_refusal(refusal, executed=True)
        else:
            self.close()
        if self._task is not None:
            self._task.cancel()

    def _answer_refusal(self, refusal: Refusal, *, executed: bool) -> None:
        self.write(self._problem(refusal.status, str(refusal), executed=executed))
        self._linger()

    def _problem(self, status: int, detail: str, *, executed: bool) -> bytes:
        title = HTTPStatus(status).phrase
        again = b"retry-after: 1\r\n" if status == 503 else b""
        problem = problem_of_http(status, title, detail, executed=executed)
        body, link = problem.body(), problem.headers["Link"].encode()
        return (
            b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nlink: %s\r\n%s%sconnection: close\r\n\r\n%s"
            % (status, title.encode(), MEDIA_TYPE.encode(), len(body), link, self.set_header, again, body)
        )

    # -- the transport

    def write(self, data: bytes) -> None:
        # What a cancelled application still says comes behind a refusal, which was the last.
        if not self.closed and self._lingering is None:
            self._written += len(data)
            self._transport.write(data)

    def _pause(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, where enough of what has come was taken."""
        reading = self._reading
        if self._read_paused and not self._waiting and (reading is None or not reading.full):
            self._read_paused = False
            if not self.closed:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close, once what was written is sent. While more may still be on its way, a plain close would reset the
        connection and take the answer along before the client has read it: then only our side ends, and what still
        comes is dropped for a moment."""
        if self.closed or self._lingering is not None:
            return
        if self._reading is not None or self._deaf or self._waiting or self._read_paused:
            self._linger()
            return
        self.closed = True
        self._transport.close()

    def _linger(self) -> None:
        self._waiting.clear()
        self._lingering = self.loop.call_later(LINGER_S, self._lingered)
        self._transport.write_eof()
        self._read_paused = True
        self._reading = None
        self.resume()

    def _lingered(self) -> None:
        if self._transport.get_write_buffer_size():
            # The answer is still on its way to a slow reader.
            self._lingering = self.loop.call_later(LINGER_S, self._lingered)
            return
        self.closed = True
        self._transport.close()

    def abort(self) -> None:
        """Close now, whatever it does."""
        self.closed = True
        self._transport.abort()

    def check(self, now_s: float) -> None:
        """Close it when nothing came in time, or nothing was read; or when its client is gone. Called every second."""
        if self._stalled(now_s):
            self.abort()
        elif self._serving is None:
            if now_s >= self._deadline_s and self._lingering is None:
                self.abort()
        elif self._read_paused and self._hung_up():
            self.abort()

    def _stalled(self, now_s: float) -> bool:
        unsent = self._transport.get_write_buffer_size()
        sent = self._written - unsent
        if not unsent or sent != self._sent:
            self._sent, self._sent_more_s = sent, now_s
        return now_s - self._sent_more_s >= WRITE_STALL_S

    def _hung_up(self) -> bool:
        """Whether the client has ended the connection: while nothing is read, nobody tells. (Where more was sent than
        the system holds for us, its end waits behind that, and cannot be known.)"""
        socket = self._transport.get_extra_info("socket")
        if socket is None:
            return False
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


def _address(name: Any) -> Address:
    return tuple(name[:2]) if isinstance(name, tuple) else None
