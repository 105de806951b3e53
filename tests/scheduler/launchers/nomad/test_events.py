"""An event stream that is empty, silent, broken or no stream at all: the reader says why, and lists again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scheduler.launchers.nomad.events import Event, Events
from scheduler.launchers.nomad.settings import RegistrarSettings
from tests.ports import free_port
from tests.scheduler.conftest import until

EVENT = b'{"Index": 5, "Events": [{"Topic": "Job", "Type": "JobRegistered", "Key": "gc-a-1"}]}\n'


class Stream:
    """A server that sends these lines to each reader, and then ends the stream or keeps it open in silence."""

    def __init__(self, lines: bytes, *, status: int = 200, ends: bool = True) -> None:
        self.tokens: list[str] = []
        self.indexes: list[str] = []
        stream, self._over = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stream.tokens.append(self.headers.get("X-Nomad-Token") or "")
                stream.indexes.append(self.path.partition("index=")[2])
                with suppress(OSError):
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(lines)
                    self.wfile.flush()
                    if not ends:
                        stream._over.wait()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


Serve = Callable[..., Stream]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Stream] = []

    def start(lines: bytes = b"", *, status: int = 200, ends: bool = True) -> Stream:
        made.append(Stream(lines, status=status, ends=ends))
        return made[-1]

    yield start
    for each in made:
        each.close()


class Reader:
    """What a reader has seen, why it lost the stream, and how often it has listed everything."""

    def __init__(self) -> None:
        self.lists = 0
        self.seen: list[Event] = []
        self.lost: list[str] = []
        self.failure: Exception | None = None
        """What the next list raises."""

    async def relist(self) -> int:
        self.lists += 1
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return 7


@asynccontextmanager
async def reading(
    url: str, *, relist_s: float = 60, silence_s: float = 60, token_file: Path | None = None
) -> AsyncIterator[Reader]:
    reader = Reader()
    settings = RegistrarSettings(
        set_name="a",
        socket="/none",
        address=url,
        relist_s=relist_s,
        token_file=str(token_file) if token_file else None,
    )
    events = Events(settings, reader.relist, reader.seen.append, reader.lost.append, silence_s)
    following = asyncio.create_task(events.follow())
    yield reader
    assert not following.done()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_events_are_read_from_the_lists_index_on(serve: Serve) -> None:
    stream = serve(b"{}\n" + EVENT, ends=False)
    async with reading(stream.url) as reader:
        await until(lambda: reader.seen)
    assert [(event.topic, event.key) for event in reader.seen] == [("Job", "gc-a-1")]
    assert (stream.indexes, reader.lists, reader.lost) == (["7"], 1, [])


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        (b"", 200, "the event stream is empty; check that the registrar's policy can read jobs"),
        (b"{}\n", 200, "the cluster ended the event stream"),
        (b'{"Index": 5, "Events": [{"Top\n', 200, "what is no event"),
        (b"<html>welcome</html>\n", 200, "what is no event"),
        (b'{"Index": 5, "Events": "none"}\n', 200, "what is no event"),
        (b"Permission denied", 403, "answered with 403: Permission denied"),
        (b"", 500, "answered with 500"),
        (b"", 302, "answered with 302"),
    ],
)
async def test_a_stream_that_cannot_be_used_is_told_and_everything_is_listed_again(
    serve: Serve, lines: bytes, status: int, words: str
) -> None:
    stream = serve(lines, status=status)
    async with reading(stream.url) as reader:
        await until(lambda: len(reader.lost) >= 2)
    assert words in reader.lost[0]
    assert reader.lists >= 2


async def test_half_a_line_is_no_event_and_nothing_is_taken_from_it(serve: Serve) -> None:
    stream = serve(EVENT + EVENT[:40])
    async with reading(stream.url) as reader:
        await until(lambda: reader.lost)
    assert "ended the event stream" in reader.lost[0]
    assert len(reader.seen) == 1


async def test_a_stream_that_never_says_anything_is_told(serve: Serve) -> None:
    stream = serve(ends=False)
    async with reading(stream.url, silence_s=0.2) as reader:
        await until(lambda: reader.lost)
    assert "silent for 0.2 s" in reader.lost[0]


async def test_a_server_that_is_not_there_is_told(serve: Serve) -> None:
    async with reading(f"http://127.0.0.1:{free_port()}") as reader:
        await until(lambda: reader.lost)
    assert "connect" in reader.lost[0].lower()


async def test_a_failure_that_nobody_foresaw_ends_no_watch(serve: Serve) -> None:
    stream = serve(EVENT, ends=False)
    async with reading(stream.url) as reader:
        reader.failure = KeyError("unforeseen")
        await until(lambda: reader.seen)
    assert "unforeseen" in reader.lost[0]


async def test_a_new_token_counts_from_the_next_stream_on(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("revoked")
    stream = serve(b"Permission denied", status=403)
    async with reading(stream.url, token_file=file) as reader:
        await until(lambda: reader.lost)
        file.unlink()
        await until(lambda: any("No such file" in reason for reason in reader.lost))
        file.write_text("new")
        await until(lambda: "new" in stream.tokens)
    assert stream.tokens[0] == "revoked"
