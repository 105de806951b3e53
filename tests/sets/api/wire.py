"""HTTP by hand: what no client library sends, and answers read byte by byte."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from http.client import HTTPResponse, IncompleteRead
from io import BufferedReader
from typing import Any

TIMEOUT_S = 60.0


class Answer:
    """An answer as it came. `whole` is false where it was broken off."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.whole = True
        try:
            self.body = response.read()
        except IncompleteRead as error:
            self.body = error.partial
            self.whole = False
        except ConnectionError:
            self.body = b""
            self.whole = False

    def problem(self, status: int, name: str) -> dict[str, Any]:
        """The problem, checked to be of this kind."""
        found: dict[str, Any] = json.loads(self.body)
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.headers["X-Set"]
        kind = f"https://general-compute.invalid/problems/{name}"
        assert (self.status, found["type"]) == (status, kind), found
        assert found["status"] == status
        assert found["title"]
        assert found["detail"]
        return found


class _Buffer(BufferedReader):
    """Stays open when an answer closes it."""

    def close(self) -> None:
        pass


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        # One buffer for all answers: what came with the first belongs to the second.
        self._file = _Buffer(self.socket.makefile("rb", buffering=0))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *pieces: str | bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece.encode() if isinstance(piece, str) else piece)

    def post(self, target: str, *headers: str) -> None:
        """The head of a POST."""
        self.send(head("POST", target, *headers))

    def answer(self) -> Answer:
        return Answer(self.begun())

    def begun(self) -> HTTPResponse:
        """The answer's head; its body is still to be read."""
        response = HTTPResponse(self, method="POST")  # type: ignore[arg-type]
        response.begin()
        return response

    def received(self) -> bytes:
        """All that comes until the other side closes."""
        pieces: list[bytes] = []
        try:
            while piece := self._file.read1():
                pieces.append(piece)
        except ConnectionError:
            pass
        return b"".join(pieces)

    def makefile(self, _mode: str) -> _Buffer:
        return self._file

    def vanish(self) -> None:
        """Go away with a reset, as a client does that is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.raw.close()
        self.socket.close()


def head(method: str, target: str, *headers: str) -> str:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: localhost", *headers, "", ""))


def chunked(pieces: Iterable[bytes]) -> bytes:
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return b"".join([*framed, b"0\r\n\r\n"])
