"""A client's connection: reads requests, serves them one at a time, and answers them in order."""

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
"""Longest time for a request's head, in seconds, from its first byte or from the start of the connection."""
KEEP_ALIVE_S: Final = 75.0
"""Longest wait for the next request on a connection, in seconds."""
LINGER_S: Final = 2.0
"""Seconds for which a client's further bytes are read and dropped after an answer that came before the body's end."""
PIPELINED: Final = 256
"""Maximum number of requests that wait behind the one that is served."""
WRITE_HIGH_BYTES: Final = 262_144
"""Maximum number of answer bytes buffered for a client that reads slowly."""
WRITE_STALL_S: Final = 300.0
"""Longest time, in seconds, for which a client may read nothing of its answer: the longest run of a sync task."""


class Server(Protocol):
    """The parts of the worker that connections use."""

    loop: asyncio.AbstractEventLoop
    asgi: Callable[..., Awaitable[None]]
    body_stall_s: float
    set_header: bytes
    nr_conns: int
    connections: set[Connection]
    connections_max: int
    alive: bool
    """False after the worker began to stop: no request is served after the present ones."""


class Connection(asyncio.Protocol):
    """The connection of one client. Invalid HTTP/1.1 is answered with a problem, like the API's own, and ends it."""

    def __init__(self, server: Server) -> None:
        self.loop: asyncio.AbstractEventLoop = server.loop
        self.body_stall_s: float = server.body_stall_s
        self.set_header: bytes = server.set_header
        self.closed = False
        # Writers wait for this while the client reads too slowly.
        self.write_paused: asyncio.Future[None] | None = None
        self._server = server
        self._transport: asyncio.Transport
        self._addresses: tuple[Address, Address] = (None, None)
        self._reader = RequestReader()
        # True if bytes have come that may belong to the next request.
        self._head_begun = False
        # The request whose body is being read, and the one that is being served: often the same.
        self._reading: Exchange | None = None
        self._serving: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Exchange | Refusal] = deque()
        # True if further bytes are dropped, not read as requests.
        self._deaf = False
        self._read_paused = False
        self._lingering: asyncio.TimerHandle | None = None
        # All answer bytes so far; how many of them had been sent at the last check; and when that last changed.
        self._written = 0
        self._sent = 0
        self._sent_more_s = self.loop.time()
        self._deadline_s = self.loop.time() + HEAD_TIMEOUT_S

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports share no class with asyncio's.
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
            # When the client goes away, its task ends at once.
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
        # Only now, so that a body with wrong framing is refused together with its head if both came at once.
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
        """Handle the end of the client's bytes: within a body it may still read an answer, else it is gone."""
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
        """True if all answers have been sent and the connection waits for a request."""
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
                # One request is served at a time; further ones wait on the client's side.
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
            # In the middle of an answer, closing without the last chunk tells the client that the answer is incomplete.
            self.close()
            return
        self._serve_next()
        self.resume()

    # -- refusals

    def _refuse(self, refusal: Refusal) -> None:
        """Answer an invalid request, after the answers to the valid ones before it."""
        self._deaf = True
        reading, self._reading = self._reading, None
        if reading is not None and reading is not self._serving:
            self._waiting.remove(reading)
            reading = None
        if reading is None:
            self._waiting.append(refusal)
            return
        # The invalid bytes belong to the body of the request that is being served.
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
        # A cancelled application may still write, but the refusal was the last answer.
        if not self.closed and self._lingering is None:
            self._written += len(data)
            self._transport.write(data)

    def _pause(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Resume reading, once enough of the received bytes was taken."""
        reading = self._reading
        if self._read_paused and not self._waiting and (reading is None or not reading.full):
            self._read_paused = False
            if not self.closed:
                self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written has been sent. While the client still sends, a plain close would reset the
        connection, and the client could lose the answer. Then only our side is closed, and further bytes are read and
        dropped for a moment."""
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
            # A slow reader has not yet received the whole answer.
            self._lingering = self.loop.call_later(LINGER_S, self._lingered)
            return
        self.closed = True
        self._transport.close()

    def abort(self) -> None:
        """Close at once, in any state."""
        self.closed = True
        self._transport.abort()

    def check(self, now_s: float) -> None:
        """Close the connection if nothing came or was read in time, or if the client is gone. Called every second."""
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
        """True if the client has closed the connection, which goes unnoticed while reading is paused. (If it sent more
        than the kernel buffers, its close waits behind that and cannot be seen.)"""
        socket = self._transport.get_extra_info("socket")
        if socket is None:
            return False
        poll = select.poll()
        poll.register(socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


def _address(name: Any) -> Address:
    return tuple(name[:2]) if isinstance(name, tuple) else None
