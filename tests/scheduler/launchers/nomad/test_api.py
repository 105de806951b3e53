"""A cluster that answers wrongly, slowly or never: each call ends in time, with words for operators."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scheduler.launchers.nomad.api import THREADS, Cluster, ClusterAway, ClusterDenied, ClusterRefused
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.ports import free_port
from tests.scheduler.conftest import PATIENCE_S

Answer = tuple[int, bytes]


class Scripted:
    """A server that gives the same answer to every request, after `hold` is set where there is one."""

    def __init__(self, answer: Answer, hold: threading.Event | None = None) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.headers: Callable[[], dict[str, str]] = dict
        self.drips = False
        """True: a byte now and then, for ever."""
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
                    for name, value in scripted.headers().items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(1 << 20 if scripted.drips else len(body)))
                    self.end_headers()
                    while scripted.drips:
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.02)
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
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("the-token\n")
    return file


@pytest.fixture
def serve(token_file: Path) -> Iterator[Serve]:
    """`serve(status, body)` gives a cluster that always answers so."""
    made: list[tuple[Cluster, Scripted]] = []

    def start(
        status: int, body: bytes = b"", hold: threading.Event | None = None, timeout_s: float = 60
    ) -> tuple[Cluster, Scripted]:
        server = Scripted((status, body), hold)
        settings = RegistrarSettings(
            set_name="a",
            socket="/none",
            address=server.url,
            namespace="gc-a",
            call_timeout_s=timeout_s,
            token_file=str(token_file),
        )
        made.append((Cluster(settings), server))
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
        (200, b'[{"ID": "gc-a-1"', ClusterAway, "what is not its API"),
        (302, b"", ClusterAway, "answers with a redirect; set `address`"),
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


async def test_a_call_that_drips_its_answer_ends_and_leaves_its_thread_to_the_next(serve: Serve) -> None:
    cluster, server = serve(200, b"[]", timeout_s=0.5)
    server.drips = True
    for _ in range(2 * THREADS):
        with pytest.raises(ClusterAway, match=r"did not (finish its answer|answer) in time"):
            await cluster.jobs("gc-a-")
    server.drips = False
    async with asyncio.timeout(PATIENCE_S):
        while True:
            # A machine may be too slow for one of them.
            with suppress(ClusterAway):
                assert await cluster.jobs("gc-a-") == ([], 0)
                return


async def test_a_list_without_an_end_is_no_list(serve: Serve) -> None:
    cluster, server = serve(200, b"[]")
    server.headers = lambda: {"X-Nomad-NextToken": str(len(server.asked))}
    with pytest.raises(ClusterAway, match="more than 400 pages"):
        await cluster.jobs("gc-a-")


async def test_an_index_that_is_no_number_is_not_nomads(serve: Serve) -> None:
    cluster, server = serve(200, b"[]")
    server.headers = lambda: {"X-Nomad-Index": "many"}
    with pytest.raises(ClusterAway, match="X-Nomad-Index is no number"):
        await cluster.jobs("gc-a-")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_so_the_token_goes_nowhere_else(serve: Serve, status: int) -> None:
    thief = serve(200, b"{}")[1]
    cluster, server = serve(status)
    server.headers = lambda: {"Location": thief.url + "/v1/job/gc-a-1"}
    for call in (
        cluster.jobs("gc-a-"),
        cluster.register({"ID": "gc-a-1"}),
        cluster.deregister("gc-a-1", purge=True),
    ):
        with pytest.raises(ClusterAway, match="answers with a redirect; set `address`"):
            await call
    assert thief.asked == []


async def test_a_new_token_counts_from_the_next_call_on(serve: Serve, token_file: Path) -> None:
    cluster, server = serve(200, b"[]")
    await cluster.nodes()
    token_file.write_text("another-token\n")
    await cluster.nodes()
    assert [token for *_, token in server.asked] == ["the-token", "another-token"]
    token_file.unlink()
    with pytest.raises(ClusterDenied, match=r"token_file: .*: No such file or directory$"):
        await cluster.nodes()


async def test_the_environments_proxy_does_not_see_calls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief = serve(200, b"[]")[1]
    monkeypatch.setenv("HTTP_PROXY", thief.url)
    cluster, _ = serve(200, b"[]")
    await cluster.jobs("gc-a-")
    assert thief.asked == []


async def test_nobody_at_the_address_is_away() -> None:
    settings = RegistrarSettings(set_name="a", socket="/none", address=f"http://127.0.0.1:{free_port()}")
    cluster = Cluster(settings)
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
