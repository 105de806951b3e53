"""A conversation between a set and an executor that uses every kind of frame of version 1, and its recording.

    PYTHONPATH=. python -m tests.sets.executor.link.conversation > tests/sets/executor/link/recorded/version-N.txt

writes down the frames that both ends of this build send: do so before a change of the protocol, as the build itself is
gone afterwards. A line is: who sends, kind, channel, stream, body in hexadecimal. BEAT and GRANT are left out, because
they follow the clock.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest import mock

import msgspec
import pytest
import structlog

from ops.certificates.authority import Authority
from scheduler.errors import SlotLost
from scheduler.execution import NoFile, Output, Work
from scheduler.task import Lease
from sets.executor.link import frames
from sets.executor.link.frames import FrameBuffer
from sets.executor.link.remote import RemoteExecutor
from tests.scheduler.conftest import until
from tests.scheduler.fakes import Elsewhere, FakeExecutor
from tests.sets.executor.link.rig import PATIENT_S, TOKEN, Owner, Rig

RECORDED: Final = Path(__file__).parent / "recorded"
SET, EXECUTOR = "set", "executor"
BY_CLOCK: Final = (frames.BEAT, frames.GRANT)
OUTPUTS: Final = (b"/a", b"/b")


class Line(msgspec.Struct, frozen=True, order=True):
    """A frame, and who sent it."""

    sender: str
    kind: int
    channel: int
    stream: int
    body: bytes

    def __str__(self) -> str:
        return f"{self.sender} {self.kind} {self.channel} {self.stream} {self.body.hex() or '-'}"


def read(path: Path) -> list[Line]:
    """The lines of a recording; those that begin with # are remarks."""
    lines = []
    for text in path.read_text().splitlines():
        if not text.startswith("#"):
            sender, kind, channel, stream, body = text.split()
            lines.append(Line(sender, int(kind), int(channel), int(stream), bytes.fromhex(body.strip("-"))))
    return lines


async def set_half(remote: RemoteExecutor, owner: Owner) -> None:
    """The set's owner: it prepares slots, runs programs, and checks what it gets."""
    await until(lambda: owner.count("node ready") == 1)
    await remote.expect("s1", TOKEN, "n1")
    await until(lambda: ("ready", "s1") in owner.heard)
    await remote.leave("s1", "content", b"content")

    small = remote.run("s1", Work((b"/cat", b"-u"), (b"A=1",), b"in"), Lease("a-1", 1))
    ending = await small.ending()
    assert (ending.code, ending.stdout, ending.stderr, ending.lease) == (3, b"out", b"err", Lease("a-1", 1))
    await until(lambda: owner.count("freed") == 1)

    large = remote.run("s1", Work((b"/cat",), stdin=None, outputs=OUTPUTS), Lease("a-2", 1))
    assert large.stdin is not None
    await large.stdin.write(b"input")
    large.stdin.close()
    first = await large.first()
    assert isinstance(first, Output)
    assert first.stdout_head + await first.stdout.read() == b"headbody"
    assert (await first.stdout.read(), await first.stderr.read()) == (b"", b"")
    ending = await large.ending()
    file, missing = ending.files
    assert missing == NoFile(2)
    assert not isinstance(file, NoFile)
    assert b"".join([piece async for piece in file.pieces()]) == b"a file"
    ending.close_files()
    await until(lambda: owner.count("freed") == 2)

    endless = remote.run("s1", Work((b"/yes",), stream=True), Lease("a-3", 1))
    first = await endless.first()
    assert isinstance(first, Output)
    first.stdout.close()
    endless.kill()
    assert (await endless.ending()).killed
    await until(lambda: owner.count("freed") == 3)

    with pytest.raises(SlotLost, match="its guest is gone"):
        await remote.run("s1", Work((b"/crash",)), Lease("a-4", 1)).ending()
    assert owner.last("lost") == ("lost", "s1", "its guest is gone")

    await remote.expect("s2", TOKEN, "n1")
    await until(lambda: owner.count("unfit") == 1)
    remote.discard("s2")
    await until(lambda: owner.count("left over") == 1)
    await until(lambda: owner.count("node draining") > 0)


async def node_half(node: FakeExecutor) -> None:
    """The node's executor and its programs, which do the opposite part."""
    events = node.events
    await until(lambda: "s1" in node.expected)
    node.hello("s1")
    await until(lambda: node.left == {("s1", "content"): b"content"})

    await until(lambda: len(node.runs) == 1)
    assert (node.runs[0].work.argv, node.runs[0].work.stdin) == ((b"/cat", b"-u"), b"in")
    node.runs[0].exit(3, b"out", b"err")

    await until(lambda: len(node.runs) == 2)
    run = node.runs[1]
    assert run.work.outputs == OUTPUTS
    await until(lambda: run.stdin is not None and run.stdin.closed)
    assert run.stdin is not None
    assert bytes(run.stdin.data) == b"input"
    run.outgrow(b"head")
    source = Elsewhere(b"a file")
    run.exit(0, b"body", files=[source, NoFile(2)], clean=False)
    await until(lambda: source.closed)
    events.slot_freed("s1", 10)

    await until(lambda: len(node.runs) == 3)
    assert node.runs[2].work.stream
    node.runs[2].outgrow()
    await until(lambda: node.runs[2].killed)

    await until(lambda: len(node.runs) == 4)
    node.runs[3].lose()

    await until(lambda: "s2" in node.expected)
    node.hello("s2")
    events.prestart_unfit("s2", "it wrote before its input came")
    await until(lambda: "s2" not in node.current)
    events.left_over("s2", 5)


async def record() -> list[Line]:
    """Hold the conversation, and return its frames."""
    lines: list[Line] = []
    whole = FrameBuffer.filled
    ends: dict[int, str] = {}

    def filled(buffer: FrameBuffer, count: int) -> Iterator[frames.Frame]:
        for kind, channel, stream, body in whole(buffer, count):
            # An executor hears HELLO first, a set WELCOME.
            sender = ends.setdefault(id(buffer), SET if kind == frames.HELLO else EXECUTOR)
            if kind not in BY_CLOCK:
                lines.append(Line(sender, kind, channel, stream, bytes(body)))
            yield kind, channel, stream, body

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(FrameBuffer, "filled", filled):
        authority = Authority(Path(folder) / "authority")
        authority.make()
        authority.issue_to_set("a", Path(folder) / "a", 10)
        authority.issue_to_executor("n1", Path(folder) / "n1", 10)
        rig = await Rig(Path(folder)).open()
        await rig.linked()

        async def drained() -> None:
            await node_half(rig.executors[-1])
            await rig.server.drain("the executor is being stopped", PATIENT_S)

        await asyncio.gather(set_half(rig.remote, rig.owner), drained())
        await rig.server.close("the executor was stopped")
        await until(lambda: lines[-1].kind == frames.GOODBYE)
        await rig.close()
    return lines


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    print("\n".join(map(str, asyncio.run(record()))))
