"""A cluster that answers wrongly, slowly or never: each call ends in time, with words for operators."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scheduler.launchers.nomad.api import Cluster, ClusterAway, ClusterDenied, ClusterRefused
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.ports import free_port

Answer = tuple[int, bytes]


class Scripted:
    """A server that gives the same answer to every request, after `hold` is set where there is one."""

    def __init__(self, answer: Answer, hold: threading.Event | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                scripted.asked.append((self.command, self.path, self.headers.get("X-Nomad-Token") or ""))
                if hold is not None:
                    hold.wait(60)
                status, body = answer
                # A caller that waited too long is gone.
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


Serve = Callable[..., tuple[Cluster, Scripted]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(status, body)` gives a cluster that always answers so."""
    made: list[tuple[Cluster, Scripted]] = []

    def start(
        status: int, body: bytes = b"", hold: threading.Event | None = None, timeout_s: float = 60
    ) -> tuple[Cluster, Scripted]:
        server = Scripted((status, body), hold)
        settings = RegistrarSettings(
            set_name="a", socket="/none", address=server.url, namespace="gc-a", call_timeout_s=timeout_s
        )
        made.append((Cluster(settings, "the-token"), server))
        return made[-1]

    yield start
    for cluster, server in made:
        cluster.close()
        server.close()


async def test_a_call_names_the_namespace_and_carries_the_token(serve: Serve) -> None:
    cluster, server = serve(200, b"[]")
    assert await cluster.jobs("gc-a-") == ([], 0)
    ((method, path, token),) = server.asked
    assert (method, token) == ("GET", "the-token")
    assert "namespace=gc-a" in path
    assert "prefix=gc-a-" in path


async def test_the_environment_does_not_lead_calls_elsewhere(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_ADDR", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NOMAD_TOKEN", "another-token")
    cluster, server = serve(200, b"[]")
    await cluster.nodes()
    assert [token for *_, token in server.asked] == ["the-token"]


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (403, b"Permission denied", ClusterDenied, "the cluster denied it .*check the registrar's token"),
        (500, b"No cluster leader", ClusterAway, "No cluster leader"),
        (500, b"1 error occurred: bad job", ClusterRefused, "answered 500: 1 error occurred: bad job"),
        (502, b"<html>", ClusterAway, "could not list jobs"),
        (429, b"", ClusterAway, "could not list jobs"),
        (404, b"not here", ClusterRefused, "answered 404: not here"),
        (200, b"", ClusterAway, "what is not its API"),
        (200, b"<html>welcome</html>", ClusterAway, "what is not its API"),
        (200, b'{"Jobs": 1}', ClusterAway, "what is not its API"),
        (200, b'[{"Name": "no id"}]', ClusterAway, "what is not its API"),
    ],
)
async def test_a_wrong_answer_becomes_words(
    serve: Serve, status: int, body: bytes, error: type[Exception], words: str
) -> None:
    cluster, _ = serve(status, body)
    with pytest.raises(error, match=words):
        await cluster.jobs("gc-a-")


async def test_a_cluster_that_never_answers_is_away(serve: Serve) -> None:
    hold = threading.Event()
    cluster, _ = serve(200, b"[]", hold, 0.2)
    with pytest.raises(ClusterAway, match="could not list jobs"):
        await cluster.jobs("gc-a-")
    hold.set()


async def test_nobody_at_the_address_is_away() -> None:
    settings = RegistrarSettings(set_name="a", socket="/none", address=f"http://127.0.0.1:{free_port()}")
    cluster = Cluster(settings, "")
    with pytest.raises(ClusterAway, match="Connection refused"):
        await cluster.jobs("gc-a-")
    cluster.close()


async def test_a_job_that_an_earlier_try_has_registered_is_fine(serve: Serve) -> None:
    cluster, _ = serve(500, b"Enforcing job modify index 0: job already exists")
    await cluster.register({"ID": "gc-a-1"})


async def test_a_signal_to_what_has_ended_or_is_gone_is_fine(serve: Serve) -> None:
    for status, body in ((500, b"Task not running"), (404, b"Unknown allocation")):
        cluster, _ = serve(status, body)
        await cluster.kill("00000000-0000-0000-0000-000000000000")


async def test_an_error_never_quotes_the_token(serve: Serve) -> None:
    for status in (403, 500):
        cluster, _ = serve(status, b"no")
        with pytest.raises(Exception, match="could not") as caught:
            await cluster.register({"ID": "gc-a-1"})
        assert "the-token" not in repr(caught.value) + str(caught.value.__cause__)
