"""Both ends of a link without a network: a test plays the other end, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec

from scheduler.policy.node import NodeFacts
from sets.executor.link import frames, messages
from sets.executor.link.frames import FrameBuffer
from sets.executor.link.link import Link
from sets.executor.link.session import Session
from sets.executor.link.wire import Wire
from tests.scheduler.fakes import FakeExecutor
from tests.sets.executor.link.rig import FACTS, PATIENT_S, Owner

Heard = tuple[int, int, int, bytes]
"""Kind, channel, stream, body."""


class PlayedTransport:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written += b"".join(pieces)

    def get_extra_info(self, name: str) -> None:
        return None

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class PlayedWire:
    """One end's wire; `says` plays the other end."""

    def __init__(self) -> None:
        self.transport = PlayedTransport()
        self.over: str | None = None
        self.wire = Wire(asyncio.get_running_loop(), lambda *_: None, self._ended)
        self.wire.connection_made(self.transport)  # type: ignore[arg-type]

    def _ended(self, reason: str) -> None:
        self.over = reason

    def bytes_come(self, data: bytes) -> None:
        while data and not self.wire.over:
            space = self.wire.get_buffer(-1)
            piece = data[: len(space)]
            space[: len(piece)] = piece
            data = data[len(piece) :]
            self.wire.buffer_updated(len(piece))

    def says(
        self, kind: int, body: msgspec.Struct | bytes = b"", *, stream: int = 0, channel: int = 0
    ) -> None:
        raw = body if isinstance(body, bytes) else messages.encode(body)
        self.bytes_come(frames.frame(kind, raw, stream=stream, channel=channel))

    async def heard(self, *, beats: bool = False) -> list[Heard]:
        """What this end has sent since the last look, but for BEAT."""
        for _ in range(4):
            await asyncio.sleep(0)
        return self.heard_now(beats=beats)

    def heard_now(self, *, beats: bool = False) -> list[Heard]:
        data, self.transport.written = bytes(self.transport.written), bytearray()
        buffer, found = FrameBuffer(), []
        while data:
            space = buffer.space()
            piece, data = data[: len(space)], data[len(space) :]
            space[: len(piece)] = piece
            found += [
                (kind, channel, stream, bytes(body))
                for kind, channel, stream, body in buffer.filled(len(piece))
            ]
        return [each for each in found if beats or each[0] != frames.BEAT]


class PlayedNode(PlayedWire):
    """A set's end; the test is the executor."""

    def __init__(self, facts: NodeFacts = FACTS) -> None:
        super().__init__()
        self.owner = Owner()
        self.link = Link(self.wire, facts, PATIENT_S, self.owner)
        self.link.begin()

    async def ready_slot(self, slot_id: str = "s1") -> None:
        expecting = asyncio.create_task(self.link.expect(slot_id, "ab" * 32))
        await self.heard()
        self.says(frames.EXPECTED, messages.Expected(slot_id))
        await expecting
        self.says(frames.READY, messages.SlotMessage(slot_id))


class PlayedSet(PlayedWire):
    """An executor's end; the test is the set."""

    def __init__(self) -> None:
        super().__init__()
        self.executor = FakeExecutor()
        self.session = Session(self.wire, self.executor, PATIENT_S, 4, self._ended)

    async def begin(self) -> PlayedSet:
        await self.executor.open(self.session)
        self.session.begin()
        return self

    async def ready_slot(self, slot_id: str = "s1") -> None:
        self.says(frames.EXPECT, messages.Expect(slot_id, "ab" * 32))
        await self.heard()
        self.executor.hello(slot_id)

    def task(self, stream: int = 1, slot_id: str = "s1", **changes: Any) -> None:
        fields = {
            "slot_id": slot_id,
            "task_id": "a-1",
            "lease_number": 1,
            "argv": (b"/cat",),
            "env": (),
            "stdin": b"in",
            "outputs": (),
            "streams_at_once": False,
            "prestart": False,
        }
        self.says(frames.TASK, messages.Task(**{**fields, **changes}), stream=stream)


def exit_of(**changes: Any) -> messages.Exit:
    """The end of a program that did nothing special."""
    fields: dict[str, Any] = {
        "task_id": "a-1",
        "lease_number": 1,
        "how": 0,
        "code": 0,
        "killed": False,
        "handed_over": False,
        "prestarted": False,
        "freed": False,
        "oom_kills": 0,
        "wall_us": 10,
        "cpu_us": 10,
        "max_rss_kib": 1,
        "memory_peak_kib": 1,
        "stdout": b"",
        "stderr": b"",
        "files": (),
    }
    return messages.Exit(**{**fields, **changes})
