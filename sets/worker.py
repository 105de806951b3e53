"""gunicorn's asgi worker as a set needs it: its refusals are problem details, its end loses and leaves nothing."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from sets.api.problems import MEDIA_TYPE, problem_of_http

FIRST_HEAD_TIMEOUT_S: Final = 30.0
"""How long a new connection may take to send its first request's head; later ones have the keep-alive time."""
LINGER_S: Final = 2.0
"""How long what a client still sends is read and dropped after an answer that did not wait for it."""
DRAIN_POLL_S: Final = 0.05
_WRONG: Final = {
    414: "the request line is longer than 64 KiB: send large arguments as the body",
    431: "the request's headers are too many or too large",
    501: "only `Transfer-Encoding: chunked` is understood",
}


class SetProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. What gunicorn itself refuses (a malformed head, a bad chunk) is answered as the API answers."""

    def __init__(self, worker: SetWorker) -> None:
        super().__init__(worker)
        self._closed: bool
        self._answer_begun = False
        self._lingering: asyncio.TimerHandle | None = None
        self._first_head: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return bool(self._awaiting_request) and not self._finishing_calls

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.worker.connections.add(self)
        self._first_head = self.worker.loop.call_later(FIRST_HEAD_TIMEOUT_S, self._keepalive_timeout)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.connections.discard(self)
        self._forget_first_head()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._lingering is None:
            super().data_received(data)

    def eof_received(self) -> None:
        """The client sends no more. Where a body should still come it may yet read an answer; else it is gone."""
        if self._body_on_its_way() and not self._closed:
            self._send_error_response(
                400, "the request's body ended before its Content-Length or its last chunk"
            )

    def abort(self) -> None:
        """Close now, whatever it does."""
        if self.transport is not None:
            self.transport.abort()

    def _forget_first_head(self) -> None:
        if self._first_head is not None:
            self._first_head.cancel()
            self._first_head = None

    def _on_headers_complete(self) -> bool:
        self._forget_first_head()
        self._answer_begun = False
        return bool(super()._on_headers_complete())

    def _body_on_its_way(self) -> bool:
        receiver = self._body_receiver
        return receiver is not None and not receiver._complete

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        # Whoever is answered before its body has arrived must not send another request behind it.
        return self._body_on_its_way() or bool(super()._will_close(request, response_requires_close))

    def _send_response_start(self, *args: Any, **kwargs: Any) -> None:
        self._answer_begun = True
        super()._send_response_start(*args, **kwargs)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        within = self._current_request is not None
        if within and self._answer_begun:
            # Within an answer the connection's end says it; more bytes would only look like output.
            return
        try:
            title = HTTPStatus(status).phrase
        except ValueError:
            title = "Error"
        # A bad chunk may come when the program has read what was before it.
        detail = f"{_WRONG.get(status, 'the request is not valid HTTP/1.1')} ({message})"
        body = problem_of_http(status, title, detail, executed=within).body()
        extra = "".join(f"{name}: {value}\r\n" for name, value in extra_headers)
        head = (
            f"HTTP/1.1 {status} {title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
            f"X-Set: {self.worker.set_name}\r\n{extra}Connection: close\r\n\r\n"
        )
        self._safe_write(head.encode("latin-1") + body)

    def _close_transport(self) -> None:
        """Close. While a body is still on its way, a plain close would reset the connection and take the answer
        along before the client has read it: so only our side ends, and what still comes is dropped for a moment."""
        transport = self.transport
        if self._closed or not self._answer_begun or not self._body_on_its_way():
            super()._close_transport()
            return
        self._closed = True
        self._lingering = self.worker.loop.call_later(LINGER_S, self.abort)
        transport.write_eof()
        self._reading_paused = True
        self._resume_reading()


class SetWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """`gunicorn.workers.gasgi.ASGIWorker` with `SetProtocol`, and a drain.

    Told to stop, the set says so (`/readyz` is 503, new tasks are refused) and still answers, until no request is
    under way or `drain_timeout_s` has passed; then its parts close. SIGINT does the same without waiting.
    """

    def init_process(self) -> None:
        config = self.app.config
        self.set_name: str = config.name
        self.connections: set[SetProtocol] = set()
        self._drain_timeout_s = float(config.drain_timeout_s)
        # The worker names its protocol class in the middle of a long method: this is the seam that it leaves.
        gasgi.ASGIProtocol = SetProtocol
        # In this process the setting only bounds the wait for a body; the arbiter has its own copy, for the heart-beat.
        self.cfg.set("timeout", config.body_stall_s)
        super().init_process()

    def handle_exit_signal(self) -> None:
        self.asgi.drain()
        super().handle_exit_signal()

    def handle_quit_signal(self) -> None:
        # gunicorn's own quick end would not close the set's parts.
        self._drain_timeout_s = 0.0
        self.handle_exit_signal()

    async def _shutdown(self) -> None:
        self.asgi.drain()
        began = self.loop.time()
        while any(not connection.idle for connection in self.connections):
            if self.loop.time() - began >= self._drain_timeout_s:
                break
            await asyncio.sleep(DRAIN_POLL_S)
        for connection in list(self.connections):
            connection.abort()
        await super()._shutdown()
