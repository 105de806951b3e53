"""A small question over HTTP: bounded, and with words for each failure."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.doctor import asking
from ops.doctor.asking import NoAnswer, ask, tls_context
from ops.doctor.finding import CannotTell


@contextmanager
def answering(raw: bytes, path: Path | None = None) -> Iterator[str]:
    """A server that sends the same bytes to every caller."""
    if path is None:
        server = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    else:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        url = f"unix://{path}"

    def serve() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with caller:
                caller.recv(65536)
                caller.sendall(raw)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Set: a\r\n\r\n{}"


def test_an_answer_comes_over_tcp_and_over_a_unix_socket(tmp_path: Path) -> None:
    for path in (None, tmp_path / "s"):
        with answering(OK, path) as url:
            found = ask(url, "/x")
            assert (found.status, found.headers["x-set"], found.object()) == (200, "a", {})


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_a_listener_that_speaks_no_http_gives_no_answer(raw: bytes) -> None:
    with answering(raw) as url, pytest.raises(NoAnswer, match=url):
        ask(url, "/")


def test_an_answer_that_is_too_large_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_BYTES", 1000)
    with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000) as url,
        pytest.raises(CannotTell, match="too large"),
    ):
        ask(url, "/")


@pytest.mark.parametrize("body", [b"[]", b"<html>"])
def test_an_answer_that_is_no_json_object_is_told(body: bytes) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + body) as url, pytest.raises(CannotTell, match="is not"):
        ask(url, "/").object()


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http://x:999999", "nothing"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    with pytest.raises(CannotTell, match="address"):
        ask(address, "/")


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotTell, match=r"ca\.pem cannot be used"):
        tls_context(str(tmp_path / "ca.pem"))
