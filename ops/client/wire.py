"""An HTTP/1.1 connection that sends and receives at the same time, in one thread.

httpx sends the whole request before it reads the answer. An algorithm answers while it still reads, so with a
body larger than the buffers both sides would wait for ever, and an early 413 would be seen only after the
upload. Here every step waits for the first of: room to send, input to send, a piece of the answer.
"""

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import h11

from ops.client.body import Source
from ops.client.errors import AnswerBroken, BadAddress, NotGeneralCompute, Unreachable

if TYPE_CHECKING:
    import ssl

CHUNK_BYTES: Final = 256 * 1024
HEAD_BYTES_MAX: Final = 64 * 1024
CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """The API's address: scheme, host, port, and a path prefix for every call."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadAddress(
                f"the address {url!r} is not valid: {error}; it looks like http://HOST:PORT"
            ) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadAddress(f"the address {url!r} must begin with http:// or https:// and name a host")
        if parts.query or parts.fragment or parts.username is not None:
            raise BadAddress(f"the address {url!r} may have a scheme, host, port and path only")
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send.

    `idle_timeout_s`: longest time without a byte in either direction while we wait for the server.
    """

    method: str
    target: bytes
    headers: list[tuple[str, str]]
    body: Source
    idle_timeout_s: float


class Answer:
    """A status and headers (names in lower case), and a body that is read by iterating.

    The same iteration goes on sending the request's body. Raises AnswerBroken if the answer's body ends too
    early.
    """

    def __init__(self, connection: "Connection", head: h11.Response) -> None:
        self._connection = connection
        self.status = head.status_code
        self.headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        self.whole = False
        self._framed = (
            "content-length" in self.headers
            or "transfer-encoding" in self.headers
            or self.status in (204, 304)
        )

    def __iter__(self) -> Iterator[bytes]:
        while not self.whole:
            event = self._connection.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if not self._framed and self.status < 400:
                    raise AnswerBroken("the answer has neither a length nor chunks, so it may be incomplete")
                self.whole = True

    def read(self, limit: int) -> bytes:
        """Return the whole body. Raises NotGeneralCompute if it is longer than `limit` bytes."""
        pieces: list[bytes] = []
        size = 0
        for piece in self:
            size += len(piece)
            if size > limit:
                raise NotGeneralCompute(f"an answer of more than {limit} bytes came instead of a small one")
            pieces.append(piece)
        return b"".join(pieces)


class Connection:
    """A connected socket and its HTTP/1.1 state; it carries one exchange after another."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._tls: ssl.SSLSocket | None = None
        self._sock = self._connect()
        self._pending: list[memoryview] = []
        self._body: Source | None = None
        self._idle_timeout_s = CONNECT_TIMEOUT_S
        self._answer_begun = False
        self._lost: OSError | None = None

    def _connect(self) -> socket.socket:
        where = self._address
        try:
            sock = socket.create_connection((where.host, where.port), timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise Unreachable(str(where), _reason(error), refused=True) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Keepalive finds a vanished peer within two minutes, even while we only wait for our own input.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            if where.scheme == "https":
                import ssl

                sock = self._tls = ssl.create_default_context().wrap_socket(sock, server_hostname=where.host)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise Unreachable(str(where), _reason(error), refused=True) from error
        return sock

    def request(self, request: Request) -> Answer:
        """Send a request, or as much of it as the server reads, and return the head of the answer.

        Raises Unreachable without an answer, AnswerBroken for a broken one, InputFailed.
        """
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._answer_begun = False
        self._body = request.body
        self._idle_timeout_s = request.idle_timeout_s
        length = request.body.length
        framing = ("Transfer-Encoding", "chunked") if length is None else ("Content-Length", str(length))
        headers = [("Host", self._address.authority), *request.headers]
        if request.method != "GET":
            headers.append(framing)
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        self._push(self._http.send_with_data_passthrough(head))
        self._fill()
        while True:
            event = self.next_event()
            if isinstance(event, h11.Response):
                if event.status_code >= 400:
                    self._stop_sending()
                return Answer(self, event)

    def next_event(self) -> h11.Event:
        """Return the next part of the answer; sends and receives until one has come."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise self._broken(str(error)) from (self._lost or error)
            if event is h11.NEED_DATA:
                self._advance()
            elif isinstance(event, h11.InformationalResponse):
                continue
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise self._broken("the connection was closed")
            else:
                self._answer_begun = True
                assert isinstance(event, h11.Event)
                return event

    @property
    def reusable(self) -> bool:
        """True if both sides finished and neither closed: the next exchange may use this connection."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return done and self._http.trailing_data == (b"", False)

    @property
    def stale(self) -> bool:
        """True if the server closed the connection, or sent something unasked, since the last exchange."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close at once, which cancels an exchange under way."""
        self._sock.close()

    def _broken(self, why: str) -> AnswerBroken | Unreachable:
        lost = f" ({_reason(self._lost)})" if self._lost else ""
        if self._answer_begun:
            return AnswerBroken(f"the answer broke off before its end{lost}: {why}")
        return Unreachable(str(self._address), f"no answer came: {why}{lost}", refused=False)

    def _advance(self) -> None:
        """Wait once, then send what can be sent and receive what has come."""
        if not self._pending:
            self._fill()
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._pending else 0))
        source_fd = None if self._pending or self._body is None else self._body.fd
        if source_fd is not None:
            poll.register(source_fd, select.POLLIN)
        # A user may type as slowly as they like; the set bounds that itself (408).
        patience_ms = self._idle_timeout_s * 1000 if source_fd is None else None
        ready = dict(poll.poll(patience_ms))
        if not ready:
            raise self._broken(f"nothing moved for {self._idle_timeout_s:g} s")
        if source_fd is not None and source_fd in ready:
            self._push_body()
        happened = ready.get(self._sock.fileno(), 0)
        if self._pending and happened & ~select.POLLIN:
            self._send()
        if happened & ~select.POLLOUT:
            self._receive()

    def _fill(self) -> None:
        """Queue input that is available, so that a small body and the head go out in one packet."""
        while self._body is not None and self._body.fd is None and sum(map(len, self._pending)) < CHUNK_BYTES:
            at_hand = self._body.length is not None
            self._push_body()
            if not at_hand:  # An iterable may block before its next piece: send this one first.
                break

    def _push_body(self) -> None:
        assert self._body is not None
        piece = self._body.read(CHUNK_BYTES)
        if not len(piece):
            self._body = None
        # h11 passes on whatever has a length (its documented way to avoid a copy); its annotation says bytes.
        event = h11.Data(data=cast(bytes, piece)) if len(piece) else h11.EndOfMessage()
        self._push(self._http.send_with_data_passthrough(event))

    def _push(self, parts: "list[bytes] | None") -> None:
        self._pending += [memoryview(part) for part in parts or () if len(part)]

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._pending[0]) if self._tls else self._sock.sendmsg(self._pending[:64])
        except OSError as error:
            if not _try_later(error):
                # The server reads no further. Its answer, still to be read, may say why.
                self._lost = error
                self._stop_sending()
            return
        while sent:
            first = self._pending[0]
            if sent < len(first):
                self._pending[0] = first[sent:]
                break
            sent -= len(first)
            del self._pending[0]

    def _stop_sending(self) -> None:
        if self._pending or self._body is not None:
            self._pending, self._body = [], None
            self._http.send_failed()

    def _receive(self) -> None:
        try:
            # More than a TLS record, so that no decrypted rest stays where poll cannot see it.
            data = self._sock.recv(CHUNK_BYTES)
        except OSError as error:
            if _try_later(error):
                return
            self._lost = error
            data = b""
        self._http.receive_data(data)


def _try_later(error: OSError) -> bool:
    if isinstance(error, BlockingIOError | InterruptedError):
        return True
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error)
