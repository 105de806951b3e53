"""A cluster's API that TLS or the network keeps away: calls and the event stream say why, and what to check."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from scheduler.launchers.nomad.api import Cluster, ClusterAway
from scheduler.launchers.nomad.events import Events
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.router.wire.certificates import make
from tests.scheduler.conftest import until

Greet = Callable[[socket.socket], object]


class Server:
    """Does the same with every connection, until it is closed."""

    def __init__(self, greet: Greet) -> None:
        self._greet = greet
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        # `close` ends it.
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                # A client that does not like the greeting hangs up.
                with connection, suppress(OSError):
                    self._greet(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def says_http(connection: socket.socket) -> None:
    """As Go's server does with a client that speaks TLS to it."""
    connection.recv(1)
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


@pytest.fixture
def tls(tmp_path: Path) -> Greet:
    """A server whose certificate is signed by itself and names another host than 127.0.0.1."""
    files = make(tmp_path / "served", "one.test")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.cert, files.key)

    def greet(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    return greet


Serve = Callable[[Greet], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Server] = []

    def start(greet: Greet) -> str:
        made.append(Server(greet))
        return made[-1].url

    yield start
    for each in made:
        each.close()


async def said_of_it(address: str, ca_file: Path) -> list[str]:
    """What a call says, and what the reader of events says."""
    settings = RegistrarSettings(set_name="a", socket="/none", address=address, ca_file=str(ca_file))
    cluster = Cluster(settings)
    with pytest.raises(ClusterAway) as caught:
        await cluster.jobs("gc-a-")
    cluster.close()
    lost: list[str] = []

    async def list_nothing() -> int:
        return 1

    following = asyncio.create_task(Events(settings, list_nothing, lambda event: None, lost.append).follow())
    await until(lambda: lost)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return [str(caught.value), lost[0]]


async def test_a_certificate_of_another_authority(serve: Serve, tls: Greet, tmp_path: Path) -> None:
    address = serve(tls)
    other = make(tmp_path / "other", "two.test").cert
    for said in await said_of_it(address, other):
        assert (
            f"{address}: its certificate is not accepted (self-signed certificate); check `ca_file`" in said
        )


async def test_a_certificate_of_another_host(serve: Serve, tls: Greet, tmp_path: Path) -> None:
    for said in await said_of_it(serve(tls), tmp_path / "served/cert.pem"):
        assert "its certificate is not accepted (IP address mismatch" in said
        assert said.endswith("for '127.0.0.1'); check `ca_file` and `address`")


async def test_an_address_where_nobody_speaks_tls(serve: Serve, tls: Greet, tmp_path: Path) -> None:
    for said in await said_of_it(serve(says_http), tmp_path / "served/cert.pem"):
        assert "TLS" in said
        assert "_ssl" not in said


async def test_a_server_that_hangs_up(serve: Serve, tls: Greet, tmp_path: Path) -> None:
    for said in await said_of_it(serve(lambda connection: None), tmp_path / "served/cert.pem"):
        assert said.startswith("could not ")
        assert "_ssl" not in said
        assert "object at" not in said


async def test_a_server_without_tls_that_hangs_up(serve: Serve, tmp_path: Path) -> None:
    address = serve(lambda connection: connection.recv(1)).replace("https", "http")
    for said in await said_of_it(address, tmp_path / "none.pem"):
        assert said.startswith("could not ")
        assert "RemoteDisconnected" not in said


async def test_an_authority_s_file_that_is_not_there(serve: Serve, tls: Greet, tmp_path: Path) -> None:
    for said in await said_of_it(serve(tls), tmp_path / "none.pem"):
        assert str(tmp_path / "none.pem") in said
