"""Clients that cost little compared with what they measure: raw sockets, one request after another."""

from __future__ import annotations

import socket
import threading
from typing import Final

from ops.bench.stack import BenchFailed

BLOCK: Final = b"y" * (1 << 18)


def request_bytes(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class KeepAlive:
    """A connection; `ask` sends prepared bytes and returns the answer's status and body."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(60)

    def ask(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        length = 0
        for line in data[:end].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        end += 4
        while len(data) < end + length:
            data += self._receive()
        return int(data[9:12]), data[end : end + length]

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(1 << 17)
        if not data:
            raise BenchFailed("the server closed the connection")
        return data


def stream_through(port: int, path: str, size_bytes: int) -> int:
    """Send `size_bytes` and read the answer at the same time; return the number of body and framing bytes received."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(120)
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size_bytes}\r\nConnection: close\r\n\r\n"

        def send() -> None:
            connection.sendall(head.encode())
            left = size_bytes
            while left:
                count = min(left, len(BLOCK))
                connection.sendall(memoryview(BLOCK)[:count])
                left -= count

        sender = threading.Thread(target=send)
        sender.start()
        received, buffer = 0, bytearray(1 << 20)
        first = b""
        while count := connection.recv_into(buffer):
            if not received:
                first = bytes(buffer[:12])
            received += count
        sender.join()
    if first != b"HTTP/1.1 200" or received < size_bytes:
        raise BenchFailed(f"{path}: {first!r}, {received} of {size_bytes} bytes")
    return received
