"""What is fuzzed, and what must hold. A target takes any bytes, and raises where something does not hold.

`set_end`: an executor says anything to a set. `executor_end`: a set says anything to an executor. Whatever comes, the
end goes on or ends its link with a reason; it holds no more than the credit that it gave; it tells its owner of slots
only that it was asked to have; and when the link has ended, nothing is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import pairwise

import msgspec

from scheduler.errors import SchedulerError
from scheduler.execution import Work
from scheduler.task import Lease
from sets.executor.link import frames, messages
from sets.executor.link.flow import MERGED_BYTES, WINDOW_BYTES
from sets.executor.link.frames import HEAD
from tests.scheduler.fakes import Elsewhere
from tests.sets.executor.link.played import PlayedNode, PlayedSet, PlayedWire, exit_of

SLOTS = ("s1", "s2", "s3")
STEPS_MOST = 60
FROM_NODE = (
    *(frames.READY, frames.OUTPUT, frames.EXIT, frames.DATA, frames.END, frames.CLOSE, frames.READY),
    *(frames.LOST, frames.LEFT_OVER, frames.UNFIT, frames.EXPECTED, frames.BEAT, frames.HEALTH, frames.FREED),
)
FROM_SET = (
    *(frames.TASK, frames.DATA, frames.END, frames.KILL, frames.CLOSE, frames.READ, frames.RELEASE),
    *(frames.DISCARD, frames.EXPECT, frames.CONTENT, frames.SHOW),
)
KINDS = (*range(1, 11), *range(32, 44), *range(64, 69), 0, 11, 250)
ACTS, ODD = 150, 246
"""A step whose first byte is from `ACTS` on is one of the end's own side; from `ODD` on, it is any frame at all."""
TOKEN = "ab" * 32


def bodies(slot_id: str, number: int) -> dict[int, msgspec.Struct | bytes]:
    """A body that fits each kind of frame."""
    return {
        frames.EXPECT: messages.Expect(slot_id, TOKEN),
        frames.CONTENT: messages.Content(slot_id, bytes(number), bool(number & 1)),
        frames.DISCARD: messages.SlotMessage(slot_id),
        frames.READ: messages.Read(number % 4, number % 3, number, 70_000),
        frames.HEALTH: messages.Health(bool(number % 2)),
        frames.EXPECTED: messages.Expected(slot_id, "no" * (number % 2)),
        frames.READY: messages.SlotMessage(slot_id),
        frames.FREED: messages.Spent(slot_id, number),
        frames.LOST: messages.SlotReport(slot_id, "gone"),
        frames.LEFT_OVER: messages.Spent(slot_id, number),
        frames.UNFIT: messages.SlotReport(slot_id, "odd"),
        frames.OUTPUT: messages.Output(b"o" * number, b"e"),
        frames.EXIT: exit_of(
            handed_over=bool(number & 8), freed=bool(number & 2), files=(5, -2) if number & 1 else ()
        ),
        frames.GOODBYE: messages.Reason("bye"),
        frames.TASK: messages.Task(
            slot_id,
            "a-1",
            1,
            (b"/x",),
            (),
            None if number & 1 else b"in",
            (b"/o",) * (number & 2),
            False,
            False,
        ),
        frames.BEAT: frames.CLOCK.pack(number),
        frames.GRANT: frames.CLOCK.pack(number),
        frames.CREDIT: frames.COUNT.pack(number * 500),
        frames.DATA: bytes(1 + number * 500),
        frames.END: messages.Reason("x" * (number % 2)),
        frames.CLOSE: b"",
        frames.KILL: b"",
        frames.RELEASE: b"",
        frames.SHOW: b"",
    }


def frame_of(step: bytes, kinds: tuple[int, ...], opened: int) -> bytes:
    """A frame by four bytes: its kind, its stream and channel, the slot that it is about, and a number.

    Most are of `kinds`, about one of the `opened` streams; else a link would end before it came to anything.
    """
    kind, place, slot, number = step
    odd = kind >= ODD
    kind = KINDS[place % len(KINDS)] if odd else kinds[kind % len(kinds)]
    stream = place >> 2
    if kind in (frames.TASK, frames.READ):
        stream = opened + 1
    elif not odd and opened:
        stream = 1 + stream % opened
    body = bodies(SLOTS[slot % len(SLOTS)], number).get(kind, bytes(number % 5))
    raw = body if isinstance(body, bytes) else messages.encode(body)
    if odd and number & 1:
        # A body that is cut short.
        raw = raw[: len(raw) // 2]
    return frames.frame(kind, raw, stream=stream, channel=place & 3)


def steps_of(data: bytes) -> list[bytes]:
    steps = [data[at : at + 4] for at in range(0, len(data) - 3, 4)]
    return steps[:STEPS_MOST]


def set_end(data: bytes) -> None:
    asyncio.run(_set_end(data))


def executor_end(data: bytes) -> None:
    asyncio.run(_executor_end(data))


def raw(data: bytes) -> None:
    """Bytes as they are, to both ends."""
    asyncio.run(_raw(data))


async def _settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def _set_end(data: bytes) -> None:
    node = PlayedNode()
    expected = asyncio.gather(
        *[node.link.expect(slot_id, TOKEN) for slot_id in SLOTS], return_exceptions=True
    )
    await _settle()
    readers: list[asyncio.Task[None]] = []
    runs = []
    for step in steps_of(data):
        if ACTS <= step[0] < ODD:
            slot_id = SLOTS[step[2] % len(SLOTS)]
            if step[3] & 28 == 28:
                node.link.discard(slot_id)
                continue
            with contextlib.suppress(SchedulerError):
                outputs = (b"/o", b"/p") if step[3] & 1 else ()
                work = Work((b"/x",), stdin=None if step[3] & 2 else b"", outputs=outputs)
                run = node.link.run(slot_id, work, Lease("a-1", 1))
                runs.append(run)
                readers.append(asyncio.create_task(_use(run)))
        else:
            node.bytes_come(frame_of(step, FROM_NODE, node.link._last))
        await _settle()
        _holds_little(node)
    node.wire.close("the end")
    node.link.lose("the end")
    await _settle()
    assert node.over
    _owner_hears_of_its_own(node)
    # Everybody who waits gets an answer.
    await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 10)
    await asyncio.wait_for(expected, 10)
    for run in runs:
        with contextlib.suppress(SchedulerError):
            (await asyncio.wait_for(run.ending(), 10)).close_files()


async def _use(run: object) -> None:
    first = await run.first()  # type: ignore[attr-defined]
    stdout = getattr(first, "stdout", b"")
    if not isinstance(stdout, bytes):
        await stdout.read()
        stdout.close()


def _owner_hears_of_its_own(node: PlayedNode) -> None:
    slots = [each[1] for each in node.owner.heard if not each[0].startswith("node")]
    assert set(slots) <= set(SLOTS)
    for slot_id in SLOTS:
        told = [each[0] for each in node.owner.heard if each[1] == slot_id]
        assert told.count("ready") <= 1
        assert told.count("lost") <= 1
        assert "freed" not in told or told.index("ready") < told.index("freed")
        assert "lost" not in told or not {"ready", "freed"} & set(told[told.index("lost") :])


def _holds_little(node: PlayedNode) -> None:
    for stream in node.link._streams.values():
        for inbound in stream.channels.values():
            assert sum(map(len, inbound._pieces)) <= WINDOW_BYTES
            assert all(len(one) + len(two) >= MERGED_BYTES for one, two in pairwise(inbound._pieces))


async def _executor_end(data: bytes) -> None:
    played = await PlayedSet().begin()
    for slot_id in SLOTS:
        await played.ready_slot(slot_id)
    for step in steps_of(data):
        running = played.executor.running
        if ACTS <= step[0] < ODD and running:
            run = running[step[2] % len(running)]
            if step[3] & 1 and not run.stdout.data:
                if not run._handed_over:
                    run.outgrow(b"head")
                run.stdout.feed(bytes(step[3] * 400))
            elif step[3] & 2:
                run.exit(files=[Elsewhere(bytes(50_000))] * len(run.work.outputs), clean=bool(step[3] & 4))
            else:
                run.lose()
        else:
            played.bytes_come(frame_of(step, FROM_SET, played.session._programs.last))
        await _settle()
        assert len(played.session._slots) <= 4
    played.session.end("the end")
    await played.session.close()
    await _settle()
    assert played.over
    assert played.executor.current == {}, "nothing of the set runs any more"
    assert played.executor.closed


async def _raw(data: bytes) -> None:
    ends: list[PlayedWire] = [PlayedNode(), await PlayedSet().begin()]
    for end in ends:
        end.bytes_come(data)
        await _settle()
        _whole_frames(bytes(end.transport.written))
        end.wire.close("the end")
    assert isinstance(ends[0], PlayedNode)
    ends[0].link.lose("the end")
    assert isinstance(ends[1], PlayedSet)
    await ends[1].session.close()


def _whole_frames(data: bytes) -> None:
    """What an end sends are whole frames, whatever it was told."""
    while data:
        size = HEAD.unpack_from(data)[0]
        assert len(data) >= HEAD.size + size
        data = data[HEAD.size + size :]


TARGETS: dict[str, Callable[[bytes], None]] = {"set_end": set_end, "executor_end": executor_end, "raw": raw}
