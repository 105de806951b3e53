"""The loads, against the bench's own upstream and against servers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ops.bench.client import KeepAlive, request_bytes
from ops.bench.stack import BenchFailed
from ops.bench_router.load import GET, POST, Loader, wrk_result
from ops.bench_router.server import Server

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  22096 requests in 1.03s, 7.42MB read
Requests/sec:  21404.53
Transfer/sec:      7.19MB
"""


def test_what_wrk_says_is_read() -> None:
    assert wrk_result(WRK, "nginx") == (22096, 21404.53)


@pytest.mark.parametrize(
    "trouble",
    ["  Non-2xx or 3xx responses: 3\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"],
)
def test_a_run_of_wrk_with_errors_is_no_measurement(trouble: str) -> None:
    with pytest.raises(BenchFailed, match=f"envoy: {trouble.strip()[:12]}"):
        wrk_result(WRK + trouble, "envoy")


def test_a_run_of_wrk_without_requests_is_no_measurement() -> None:
    with pytest.raises(BenchFailed, match="printed no number of requests"):
        wrk_result("unable to connect to 127.0.0.1:1 Connection refused", "caddy")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_small_requests_by_wrk(loader: Loader, upstream: Server, method: str) -> None:
    shot = loader.small(upstream, method, 1)
    assert shot.requests > 0
    assert shot.per_s > 0
    assert shot.cpu_us > 0


def test_bodies_go_up_and_down_whole(loader: Loader, upstream: Server) -> None:
    for method in ("GET", "POST"):
        shot = loader.bodies(upstream, method, 3_000_000, 2, 0.05)
        assert shot.requests >= 2
        megabytes = shot.megabytes_per_s * shot.requests / shot.per_s
        assert megabytes == pytest.approx(shot.requests * 3.0, rel=0.001)


def test_a_fixed_rate_is_kept_and_gives_quantiles(loader: Loader, upstream: Server) -> None:
    shot = loader.rate(upstream, 400, 0.5)
    assert shot.requests == 200
    assert shot.per_s <= 410
    assert 0 < shot.p50_us <= shot.p99_us <= shot.p999_us


def test_idle_clients_are_held(loader: Loader, upstream: Server) -> None:
    with loader.idle(upstream, 50):
        assert loader.rate(upstream, 100, 0.1).requests == 10


def test_the_upstream_answers_what_the_request_line_says(upstream: Server) -> None:
    connection = KeepAlive(upstream.port)
    # Two at once: what follows a body belongs to the next request.
    first, second = request_bytes(POST, b"z" * 70_000), request_bytes(f"{GET}/stdout?size=1000000", b"")
    assert connection.ask(first) == (200, b"y" * 128)
    assert connection.ask(second) == (200, b"y" * 1_000_000)
    connection.close()
    with socket.create_connection(("127.0.0.1", upstream.port)) as raw:
        raw.settimeout(10)
        raw.sendall(first + request_bytes(GET, b""))
        data = b""
        while data.count(b"HTTP/1.1 200 OK") < 2 or not data.endswith(b"y" * 128):
            data += raw.recv(65536)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that reads a request, does `answer`, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "answers were not 200|closed a connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed a connection"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
        (b"", "closed a connection"),
    ],
)
def test_a_server_that_misbehaves_is_no_measurement(
    loader: Loader, upstream: Server, answer: bytes, words: str
) -> None:
    with answering(lambda connection: connection.sendall(answer)) as port:
        upstream.port = port
        with pytest.raises(BenchFailed, match=words):
            loader.rate(upstream, 10, 0.1, clients=1)


def test_p99_is_that_of_the_usual_quarter_of_a_second(loader: Loader, upstream: Server) -> None:
    """A server that holds everything up once shows in the p99 of all, not in that of most windows."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def stall_once(connection: socket.socket) -> None:
        connection.sendall(answer)
        for number in range(1, 1000):
            if not connection.recv(65536):
                return
            if number == 500:
                time.sleep(0.1)
            connection.sendall(answer)

    with answering(stall_once) as port:
        upstream.port = port
        shot = loader.rate(upstream, 1000, 1.0, clients=1)
    assert 0 < shot.window_p99_us < shot.p99_us
