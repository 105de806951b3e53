"""A small HTTP/1.1 server that plays the native API as a test tells it to, also badly.

Each connection has a thread and a raw socket, so that an answer may come early, break off or be no HTTP at all.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

PROBLEMS = "https://general-compute.invalid/problems/"


@dataclass
class Call:
    """One request: its head, its body to be read or not, and the raw socket to answer on."""

    sock: socket.socket
    method: str
    target: str
    headers: dict[str, str]
    buffered: bytes
    closes: bool = False
    body: bytes = b""
    trailing: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True, errors="surrogateescape")

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def pieces(self) -> Iterator[bytes]:
        """The request's body as it arrives."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self._line(), 16):
                yield self._exactly(size)
                self._line()
            self._line()
        else:
            left = int(self.headers.get("content-length", "0"))
            while left:
                piece = self._some(min(left, 65536))
                left -= len(piece)
                yield piece

    def read(self) -> bytes:
        self.body = b"".join(self.pieces())
        return self.body

    def gone(self) -> bool:
        """Wait until the client closes its side; what it still sends is thrown away."""
        try:
            while self.sock.recv(65536):
                pass
        except OSError:
            pass
        return True

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, status: int = 200, **headers: str | int) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def output(self, data: bytes, *, task: str = "a-1", exit_code: int = 0, **headers: str | int) -> None:
        """The answer of a small task."""
        self.head(
            200,
            X_Task_Id=task,
            X_Set="a",
            X_Exit_Code=exit_code,
            X_Cpu_Us=1500,
            X_Duration_Us=2500,
            X_Queue_Us=100,
            X_Cold_Start=0,
            Content_Length=len(data),
            **headers,
        )
        self.send(data)

    def json(self, document: dict[str, Any], status: int = 200, **headers: str | int) -> None:
        text = json.dumps(document).encode()
        kind = "application/problem+json" if status >= 400 else "application/json"
        self.head(status, Content_Type=kind, Content_Length=len(text), **headers)
        self.send(text)

    def problem(
        self, status: int, name: str, detail: str, *, hdr: dict[str, str | int] | None = None, **more: Any
    ) -> None:
        document = {
            "type": PROBLEMS + name,
            "title": name.replace("-", " "),
            "status": status,
            "detail": detail,
        }
        self.json(document | {"executed": False} | more, status, **(hdr or {}))

    def _some(self, limit: int) -> bytes:
        if self.buffered:
            piece, self.buffered = self.buffered[:limit], self.buffered[limit:]
            return piece
        piece = self.sock.recv(limit)
        if not piece:
            raise ConnectionError("the client closed in mid-body")
        return piece

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size:
            pieces.append(self._some(min(size, 65536)))
            size -= len(pieces[-1])
        return b"".join(pieces)

    def _line(self) -> bytes:
        while b"\r\n" not in self.buffered:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError("the client closed in mid-body")
            self.buffered += more
        line, self.buffered = self.buffered.split(b"\r\n", 1)
        return line


Handler = Callable[[Call], None]


class FakeApi:
    """Serves each call with the handler of the longest path prefix that fits. `calls` holds what came, in order."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self._handlers: list[tuple[str, str, Handler]] = []
        self.calls: list[Call] = []
        self.connections = 0
        self.seen_gone = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        host = "http://127.0.0.1" if self._tls is None else "https://localhost"
        return f"{host}:{self._listener.getsockname()[1]}"

    def on(self, method: str, prefix: str, handler: Handler) -> None:
        """Answer calls whose path begins with `prefix`; of two alike, the later one counts."""
        self._handlers.insert(0, (method, prefix, handler))
        self._handlers.sort(key=lambda each: -len(each[1]))

    def task(self, document: dict[str, Any]) -> None:
        """Let GET /v1/tasks/{id} answer this."""
        self.on("GET", f"/v1/tasks/{document['id']}", lambda call: call.json(document))

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock if self._tls is None else self._tls.wrap_socket(sock, server_side=True) as connection:
                buffered = b""
                while True:
                    while b"\r\n\r\n" not in buffered:
                        more = connection.recv(65536)
                        if not more:
                            return
                        buffered += more
                    head, buffered = buffered.split(b"\r\n\r\n", 1)
                    call = self._parse(connection, head.decode("latin-1"), buffered)
                    self.calls.append(call)
                    self._handler(call)(call)
                    if call.closes:
                        return
                    buffered = call.buffered
        except OSError:
            pass

    @staticmethod
    def _parse(sock: socket.socket, head: str, buffered: bytes) -> Call:
        first, *rest = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        return Call(sock, method, target, headers, buffered)

    def _handler(self, call: Call) -> Handler:
        for method, prefix, handler in self._handlers:
            if method == call.method and call.path.startswith(prefix):
                return handler
        return lambda call: call.problem(
            404, "unknown-path", f"the test said nothing about {call.method} {call.path}"
        )
