"""Old and new ends meet, as in a rolling upgrade: this build against the recorded frames of earlier ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scheduler.errors import EngineRefused
from sets.executor.link import frames, messages
from sets.executor.link.frames import FrameBuffer, LinkError
from sets.executor.link.names import Certificates, node_name
from tests.scheduler.conftest import until
from tests.sets.executor.link.conversation import (
    BY_CLOCK,
    EXECUTOR,
    RECORDED,
    SET,
    Line,
    node_half,
    read,
    set_half,
)
from tests.sets.executor.link.played import PlayedNode, PlayedSet
from tests.sets.executor.link.rig import PATIENT_S, TOKEN, Owner, Rig

RECORDINGS = sorted(RECORDED.glob("version-*.txt"))


def by_name(path: Path) -> str:
    return path.stem


class Earlier:
    """An end of an earlier build: says what was recorded of it, and expects the other end to say what it said then."""

    def __init__(
        self, me: str, lines: list[Line], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._me = me
        self._other = EXECUTOR if me == SET else SET
        self._blocks = [list(block) for _, block in groupby(lines, lambda line: line.sender)]
        self._reader = reader
        self.writer = writer
        self._buffer = FrameBuffer()
        self._heard: list[Line] = []

    async def play(self) -> None:
        """Go through the conversation, to its end."""
        for block in self._blocks:
            if block[0].sender == self._me:
                for line in block:
                    self._say(line.kind, line.body, line.stream, line.channel)
                continue
            while len(self._heard) < len(block):
                await self._hear()
            heard, self._heard = self._heard[: len(block)], self._heard[len(block) :]
            # What leaves together may leave in another order.
            for now, then in zip(sorted(heard), sorted(block), strict=True):
                assert (now.kind, now.channel, now.stream) == (then.kind, then.channel, then.stream)
                assert understood(now) == understood(then)

    def _say(self, kind: int, body: bytes, stream: int = 0, channel: int = 0) -> None:
        self.writer.write(frames.frame(kind, body, stream=stream, channel=channel))

    async def _hear(self) -> None:
        data = await self._reader.read(1 << 14)
        assert data, "the other end left"
        while data:
            space = self._buffer.space()
            piece, data = data[: len(space)], data[len(space) :]
            space[: len(piece)] = piece
            for kind, channel, stream, body in self._buffer.filled(len(piece)):
                if kind == frames.BEAT:
                    self._say(frames.GRANT, bytes(body))
                elif kind not in BY_CLOCK:
                    self._heard.append(Line(self._other, kind, channel, stream, bytes(body)))


def understood(line: Line) -> Any:
    """The message as an end of version 1 understands it, which ignores fields that it does not know."""
    if line.kind not in messages.BODIES:
        return line.body
    body = msgspec.msgpack.decode(line.body)
    if line.kind == frames.HELLO:
        # What a set speaks changes; only version 1 must be in it.
        return body["oldest"] <= 1 <= body["newest"], body["set_name"], body["lease_s"]
    then = FIELDS[line.kind]
    return body[:then] if isinstance(body, list) else {name: body[name] for name in then}


FIELDS: dict[int, Any] = {}
"""The fields that messages had in the recordings: names, or how many."""
for _path in RECORDINGS[:1]:
    for _line in read(_path):
        if _line.kind in messages.BODIES:
            _body = msgspec.msgpack.decode(_line.body)
            FIELDS[_line.kind] = len(_body) if isinstance(_body, list) else tuple(_body)


@pytest.fixture
async def finished() -> AsyncIterator[list[asyncio.StreamWriter]]:
    writers: list[asyncio.StreamWriter] = []
    yield writers
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize("recording", RECORDINGS, ids=by_name)
async def test_a_set_of_today_works_with_an_executor_of_an_earlier_build(
    certificates: Path, recording: Path, finished: list[asyncio.StreamWriter]
) -> None:
    lines = read(recording)
    played: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        finished.append(writer)
        if len(finished) > 1:
            # The set calls again, as the executor has left it.
            return
        try:
            await Earlier(EXECUTOR, lines, reader, writer).play()
        except BaseException as error:
            played.set_exception(error)
        else:
            played.set_result(None)

    context = Certificates(certificates / "n1").for_executor()
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        owner = Owner()
        remote = Rig(certificates).new_remote(server.sockets[0].getsockname()[1])
        await remote.open(owner)
        await asyncio.gather(set_half(remote, owner), played)
        await until(lambda: owner.count("node lost") > 0)
        assert "the executor was stopped" in owner.last("node lost")[2]
        await remote.close()


@pytest.mark.parametrize("recording", RECORDINGS, ids=by_name)
async def test_an_executor_of_today_serves_a_set_of_an_earlier_build(
    certificates: Path, recording: Path, finished: list[asyncio.StreamWriter]
) -> None:
    rig = Rig(certificates)
    port = await rig.server.open("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        port,
        ssl=Certificates(certificates / "a").for_set(),
        server_hostname=node_name("n1"),
    )
    finished.append(writer)

    async def node() -> None:
        await until(lambda: rig.executors)
        await node_half(rig.executors[0])
        await rig.server.drain("the executor is being stopped", PATIENT_S)
        await rig.server.close("the executor was stopped")

    await asyncio.gather(Earlier(SET, read(recording), reader, writer).play(), node())


# What was added since.


@pytest.mark.parametrize("file", ["cpu", "dressing"])
async def test_a_file_for_an_executor_itself_is_left_on_its_node(rig: Rig, file: str) -> None:
    node = await rig.linked()
    await rig.remote.expect("s1", TOKEN, "n1")
    await rig.remote.leave("s1", file, b"150")
    assert node.left == {("s1", file): b"150"}


@pytest.mark.parametrize("file", ["cpu", "dressing"])
async def test_an_executor_of_an_earlier_build_is_sent_no_file_that_it_does_not_know(file: str) -> None:
    node = PlayedNode()
    with pytest.raises(EngineRefused, match="the executor of node n1 cannot dress slots yet: upgrade it"):
        await node.link.leave("s1", file, b"150")
    assert await node.heard() == []


@pytest.mark.parametrize("file", ["", "executor.sock", "../cpu", "cpu\n"])
async def test_a_file_of_another_name_ends_the_link(file: str) -> None:
    at_node = await PlayedSet().begin()
    await at_node.ready_slot()
    at_node.says(frames.CONTENT, messages.Content("s1", b"150", True, file))
    assert at_node.over is not None
    assert "file" in at_node.over
    assert at_node.executor.left == {}
    await at_node.session.close()


# What neither end knows.


async def test_fields_that_nobody_knows_are_ignored() -> None:
    at_node = await PlayedSet().begin()
    more = {"slot_id": "s1", "token": TOKEN, "from_tomorrow": [1, {"a": b"b"}]}
    at_node.says(frames.EXPECT, msgspec.msgpack.encode(more))
    await at_node.heard()
    assert at_node.executor.expected == {"s1": TOKEN}
    task = [*msgspec.structs.astuple(TASK), "from tomorrow"]
    at_node.executor.hello("s1")
    at_node.says(frames.TASK, msgspec.msgpack.encode(task), stream=1)
    assert (at_node.over, len(at_node.executor.runs)) == (None, 1)
    at_node.session.end("the test is over")
    await at_node.session.close()


TASK = messages.Task("s1", "a-1", 1, (b"/cat",), (), b"", (), False, False)


@pytest.mark.parametrize("kind", [0, 11, 31, 44, 63, 69, 255])
async def test_a_kind_that_nobody_knows_ends_the_link_with_its_number(kind: int) -> None:
    for end in (PlayedNode(), await PlayedSet().begin()):
        end.says(kind, b"")
        assert end.over is not None
        assert f"a frame of kind {kind}" in end.over
        (*_, fault) = await end.heard()
        assert fault[0] == frames.FAULT


def test_the_newest_common_version_is_spoken() -> None:
    assert messages.agree(messages.Hello(1, 9, "a", "b", 2.0)) == messages.VERSION_NEWEST
    assert messages.agree(messages.Hello(1, 1, "a", "b", 2.0)) == 1


def test_without_a_common_version_both_ranges_are_named() -> None:
    with pytest.raises(LinkError, match=r"versions 8 to 9.*this executor 1 to 1"):
        messages.agree(messages.Hello(8, 9, "a", "b", 2.0))
