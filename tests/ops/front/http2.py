"""A client of HTTP/2 that does what it is told, step by step: sends a piece, reads one, leaves, or stays away."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import h2.connection
import h2.events
import h2.exceptions

WAIT_S = 20.0
Headers = tuple[tuple[str, str], ...]


@dataclass
class Stream:
    """What came of one answer so far. `reset`: the code with which it was broken off."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers.get(":status", 0))


class Client:
    """One connection; use as a context manager. Whatever waits, waits `WAIT_S` at most, and raises TimeoutError."""

    def __init__(self, port: int, cert: Path, host: str) -> None:
        context = ssl.create_default_context(cafile=str(cert))
        context.set_alpn_protocols(["h2"])
        self._host = host
        sock = socket.create_connection(("127.0.0.1", port), WAIT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = context.wrap_socket(sock, server_hostname=host)
        assert self._sock.selected_alpn_protocol() == "h2"
        self._http = h2.connection.H2Connection()
        self._http.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.reading = True
        """Whether what comes is acknowledged, so that more may come."""
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()

    def begin(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, end: bool = False
    ) -> int:
        """Send a request's head; returns the stream's number."""
        stream = self._http.get_next_available_stream_id()
        self.streams[stream] = Stream()
        lines = [(":method", method), (":scheme", "https"), (":authority", self._host), (":path", path)]
        self._http.send_headers(stream, [*lines, *(headers or {}).items()], end_stream=end)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """A piece of the body, as the windows allow."""
        view = memoryview(data)
        while view:
            self.until(lambda: self._http.local_flow_control_window(stream) > 0)
            size = min(
                len(view),
                self._http.local_flow_control_window(stream),
                self._http.max_outbound_frame_size,
                65536,
            )
            self._http.send_data(stream, bytes(view[:size]))
            view = view[size:]
            self._flush()
        if end:
            self._http.end_stream(stream)
            self._flush()

    def send_trailers(self, stream: int, trailers: Mapping[str, str]) -> None:
        self._http.send_headers(stream, list(trailers.items()), end_stream=True)
        self._flush()

    def reset(self, stream: int) -> None:
        """Cancel."""
        self._http.reset_stream(stream, 8)
        self._flush()

    def window(self, stream: int) -> int:
        """How many bytes of its body may be sent now."""
        return int(self._http.local_flow_control_window(stream))

    def opens(self, stream: int, within_s: float) -> bool:
        """Whether the window of the stream's body opens within this time."""
        self._sock.settimeout(within_s)
        try:
            self.until(lambda: self.window(stream) > 0)
        except TimeoutError:
            return False
        finally:
            self._sock.settimeout(WAIT_S)
        return True

    def until(self, condition: Callable[[], bool]) -> None:
        """Read until `condition` holds."""
        while not condition():
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError("the balancer closed the connection")
            for event in self._http.receive_data(data):
                self._take(event)
            self._flush()

    def whole(self, stream: int) -> Stream:
        """The answer, to its end, tidy or not."""
        found = self.streams[stream]
        self.until(lambda: found.ended or found.reset is not None)
        return found

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Stream:
        stream = self.begin(method, path, headers, end=not body)
        if body:
            self.send(stream, body, end=True)
        return self.whole(stream)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            raise ConnectionError(f"GOAWAY {event.error_code}")
        number = getattr(event, "stream_id", None)
        stream = self.streams.get(number) if number is not None else None
        if stream is None or number is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = _words(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data or b""
            if self.reading and event.flow_controlled_length:
                self._http.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = _words(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code or 0)

    def _flush(self) -> None:
        if data := self._http.data_to_send():
            self._sock.sendall(data)


def _words(headers: object) -> dict[str, str]:
    found = {}
    for name, value in headers or ():  # type: ignore[attr-defined]
        found[_word(name)] = _word(value)
    return found


def _word(text: str | bytes) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text
