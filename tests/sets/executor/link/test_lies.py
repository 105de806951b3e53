"""Ends that lie: a node about its capacity, slots or results, a set about its streams. The link ends, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from scheduler.errors import BadRequest
from scheduler.execution import Output, Work
from scheduler.task import Lease
from sets.executor.link import frames, messages, programs, session
from sets.executor.link.flow import WINDOW_BYTES
from sets.executor.link.frames import CLOCK, COUNT, STDERR, STDIN, STDOUT, LinkError
from sets.executor.run import SlotRun
from tests.scheduler.fakes import Elsewhere
from tests.sets.executor.link.played import PlayedNode, PlayedSet, exit_of
from tests.sets.executor.link.rig import CAT

LEASE = Lease("a-1", 1)
WELCOME: dict[str, Any] = {
    "version": 1,
    "node": "n1",
    "build": "b1",
    "cpu_percent": 200,
    "memory_mib": 1024,
    "max_slots": 4,
    "cpu_features": ["avx2"],
}


@pytest.fixture
async def node() -> AsyncIterator[PlayedNode]:
    played = PlayedNode()
    await played.ready_slot()
    yield played
    played.wire.close("the test is over")
    played.link.lose("the test is over")


# A node that lies.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu_percent", 0),
        ("cpu_percent", -100),
        ("cpu_percent", 10**12),
        ("memory_mib", 1 << 62),
        ("max_slots", 10**9),
        ("max_slots", "many"),
        ("cpu_features", ["avx2; rm -rf /"]),
        ("cpu_features", ["f"] * 5000),
        ("node", ""),
        ("version", 0),
    ],
)
def test_a_capacity_that_no_machine_has_is_refused(field: str, value: object) -> None:
    body = memoryview(msgspec.msgpack.encode({**WELCOME, field: value}))
    with pytest.raises(LinkError, match=field):
        messages.decode(body, messages.Welcome)


def running(node: PlayedNode, work: Work = CAT) -> SlotRun:
    return node.link.run("s1", work, LEASE)


Lie = Callable[[PlayedNode], None]
LIES: dict[str, tuple[Lie, str]] = {
    "ready twice": (lambda node: node.says(frames.READY, messages.SlotMessage("s1")), "a second time"),
    "free while it runs": (
        lambda node: node.says(frames.FREED, messages.Spent("s1", 1)),
        "no task has ended in it",
    ),
    "a stream of nobody": (lambda node: node.says(frames.EXIT, exit_of(), stream=7), "never opened"),
    "files that nobody asked for": (
        lambda node: node.says(frames.EXIT, exit_of(files=(1,)), stream=1),
        "contradicts",
    ),
    "handed over, but nothing was": (
        lambda node: node.says(frames.EXIT, exit_of(handed_over=True), stream=1),
        "contradicts",
    ),
    "a signal 99": (lambda node: node.says(frames.EXIT, exit_of(how=1, code=99), stream=1), "code 99"),
    "years of CPU time": (
        lambda node: node.says(frames.EXIT, exit_of(cpu_us=1 << 50), stream=1),
        "more than the node's cores",
    ),
    "years of wall time": (
        lambda node: node.says(frames.EXIT, exit_of(wall_us=1 << 50), stream=1),
        "longer than the set knows",
    ),
    "a number that no store holds": (
        lambda node: node.says(frames.EXIT, exit_of(max_rss_kib=1 << 60), stream=1),
        "Exit that cannot be read",
    ),
    "too much left over": (
        lambda node: node.says(frames.LEFT_OVER, messages.Spent("s1", 1 << 50)),
        "more than the node's cores",
    ),
    "credit for what was not sent": (
        lambda node: node.says(frames.CREDIT, COUNT.pack(1), stream=1, channel=STDIN),
        "not sent",
    ),
    "a set's frame": (lambda node: node.says(frames.TASK, b"", stream=2), "does not send"),
    "no frame at all": (lambda node: node.says(250), "does not send"),
    "a message that is none": (lambda node: node.says(frames.LOST, b"\xff\xff"), "cannot be read"),
    "a clock of three bytes": (lambda node: node.says(frames.BEAT, b"abc"), "wrong length"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_node_that_lies_loses_its_link(node: PlayedNode, lie: tuple[Lie, str]) -> None:
    tell, said = lie
    run = running(node, Work((b"/cat",), stdin=None))
    await node.heard()
    node.owner.heard.clear()
    tell(node)
    assert node.over is not None
    assert said in node.over
    assert node.heard_now()[-1][0] == frames.FAULT, "it is told why"
    assert node.owner.heard == []
    assert not run.handed_over


async def test_output_must_come_once_and_within_its_credit(node: PlayedNode) -> None:
    run = running(node)
    node.says(frames.OUTPUT, messages.Output(b"a", b"b"), stream=1)
    output = await run.first()
    assert isinstance(output, Output)
    for _ in range(WINDOW_BYTES // frames.BODY_BYTES):
        node.says(frames.DATA, bytes(frames.BODY_BYTES), stream=1, channel=STDOUT)
    assert not node.wire.over
    node.says(frames.DATA, b"x", stream=1, channel=STDOUT)
    assert "credit" in str(node.over)


async def test_a_second_output_is_a_lie(node: PlayedNode) -> None:
    running(node)
    node.says(frames.OUTPUT, messages.Output(b"", b""), stream=1)
    node.says(frames.OUTPUT, messages.Output(b"", b""), stream=1)
    assert node.over == "an OUTPUT out of order"


@pytest.mark.parametrize("body", [b"", b"more"])
async def test_nothing_follows_the_end_of_a_channel(node: PlayedNode, body: bytes) -> None:
    run = running(node)
    node.says(frames.OUTPUT, messages.Output(b"", b""), stream=1)
    node.says(frames.END, messages.Reason(), stream=1, channel=STDERR)
    node.says(frames.DATA, body, stream=1, channel=STDERR)
    assert node.over == "DATA after the END of its channel"
    assert run.handed_over


async def test_tiny_pieces_hold_no_more_memory_than_large_ones(node: PlayedNode) -> None:
    run = running(node)
    node.says(frames.OUTPUT, messages.Output(b"", b""), stream=1)
    for _ in range(10_000):
        node.says(frames.DATA, b"x", stream=1, channel=STDOUT)
    output = await run.first()
    assert isinstance(output, Output)
    assert len(await output.stdout.read()) >= 4096


async def test_what_a_node_says_of_slots_that_it_has_not_is_ignored(node: PlayedNode) -> None:
    node.owner.heard.clear()
    for kind, message in (
        (frames.READY, messages.SlotMessage("of-another")),
        (frames.FREED, messages.Spent("of-another", 5)),
        (frames.LOST, messages.SlotReport("of-another", "")),
        (frames.UNFIT, messages.SlotReport("of-another", "")),
        (frames.LEFT_OVER, messages.Spent("of-another", 5)),
        (frames.EXPECTED, messages.Expected("of-another")),
    ):
        node.says(kind, message)
    assert (node.over, node.owner.heard) == (None, [])


async def test_a_node_that_tells_an_end_twice_changes_nothing(node: PlayedNode) -> None:
    run = running(node)
    node.says(frames.EXIT, exit_of(stdout=b"one", freed=True), stream=1)
    node.says(frames.EXIT, exit_of(stdout=b"two", freed=True), stream=1)
    assert (await run.ending()).stdout == b"one"
    assert node.owner.count("freed") == 1
    assert node.over is None


# A set that lies.


SetLie = Callable[[PlayedSet], None]
SET_LIES: dict[str, tuple[SetLie, str]] = {
    "a stream a second time": (lambda at: at.task(1), "is opened after stream 1"),
    "a stream of nobody": (lambda at: at.says(frames.KILL, stream=9), "never opened"),
    "stream 0": (lambda at: at.says(frames.DATA, b"x"), "never opened"),
    "a grant from the future": (lambda at: at.says(frames.GRANT, CLOCK.pack(1 << 62)), "not sent"),
    "a grant from before": (lambda at: at.says(frames.GRANT, CLOCK.pack(1)), "not sent"),
    "input beyond its credit": (
        lambda at: at.bytes_come(
            5 * frames.frame(frames.DATA, bytes(frames.BODY_BYTES), stream=1, channel=STDIN)
        ),
        "credit",
    ),
    "two tasks in one slot": (lambda at: at.task(2), "has a task already"),
    "an executor's frame": (lambda at: at.says(frames.READY, messages.SlotMessage("s1")), "does not send"),
    "a token that is none": (lambda at: at.says(frames.EXPECT, messages.Expect("s9", "short")), "token"),
    "a slot that is a path": (
        lambda at: at.says(frames.EXPECT, messages.Expect("../../etc", "ab" * 32)),
        "slot_id",
    ),
    "a slot with a line feed": (
        lambda at: at.says(frames.EXPECT, messages.Expect("s9\n", "ab" * 32)),
        "slot_id",
    ),
    "a file beyond all": (
        lambda at: at.says(frames.READ, messages.Read(1, 64, 0, 1), stream=2),
        "file",
    ),
}


@pytest.mark.parametrize("lie", SET_LIES.values(), ids=SET_LIES)
async def test_a_set_that_lies_loses_its_link_and_its_slots(
    at_node: PlayedSet, lie: tuple[SetLie, str]
) -> None:
    tell, said = lie
    at_node.task(1, stdin=None)
    assert at_node.executor.runs[0].stdin is not None
    at_node.executor.runs[0].stdin.hold()
    await at_node.heard()
    tell(at_node)
    assert at_node.over is not None
    assert said in at_node.over
    assert at_node.executor.current == {}, "its slots are gone"


async def test_files_without_an_end_are_bounded(at_node: PlayedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONTENTS_BYTES", 250_000)
    at_node.says(frames.CONTENT, messages.Content("s1", bytes(200_000), False))
    at_node.says(frames.CONTENT, messages.Content("of-nobody", bytes(200_000), False))
    assert at_node.over is None
    at_node.says(frames.CONTENT, messages.Content("s1", bytes(200_000), False))
    assert at_node.over == "more than 250000 bytes of files for guests at a time"


async def test_files_of_a_slot_that_is_lost_count_no_longer(
    at_node: PlayedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CONTENTS_BYTES", 250_000)
    for number in range(2, 5):
        at_node.says(frames.CONTENT, messages.Content(f"s{number - 1}", bytes(200_000), False))
        assert at_node.over is None
        at_node.executor.lose(f"s{number - 1}", "its guest is gone")
        await at_node.ready_slot(f"s{number}")


async def test_files_that_are_read_at_a_time_are_bounded_also_where_all_are_asked_for_in_one_piece(
    at_node: PlayedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "READS_MOST", 2)
    at_node.task(1, outputs=(b"/file",))
    at_node.executor.runs[0].exit(files=[Elsewhere(b"data")])
    await at_node.heard()

    def ask(first_stream: int) -> bytes:
        body = messages.encode(messages.Read(1, 0, 0, 4))
        return b"".join(frames.frame(frames.READ, body, stream=first_stream + at) for at in range(3))

    async def answers(count: int) -> list[tuple[int, str]]:
        heard = at_node.heard_now()
        while sum(each[0] == frames.END for each in heard) < count:
            heard += await at_node.heard()
        ends = [each for each in heard if each[0] == frames.END]
        return sorted(
            (stream, messages.decode(memoryview(body), messages.Reason).reason) for _, _, stream, body in ends
        )

    refused = "the file was given back already, or too many are read at a time"
    at_node.bytes_come(ask(2))
    assert await answers(3) == [(2, ""), (3, ""), (4, refused)]
    # Those that have ended count no longer.
    at_node.bytes_come(ask(5))
    assert await answers(3) == [(5, ""), (6, ""), (7, refused)]


async def test_nothing_waits_for_the_input_of_a_program_whose_slot_is_lost(at_node: PlayedSet) -> None:
    before = asyncio.all_tasks()
    at_node.task(1, stdin=None)
    at_node.says(frames.DATA, b"half", stream=1, channel=STDIN)
    await at_node.heard()
    (feeding,) = asyncio.all_tasks() - before
    at_node.executor.lose("s1", "its guest is gone")
    async with asyncio.timeout(60):
        await feeding
    # What was on its way is nobody's.
    at_node.says(frames.DATA, b"rest", stream=1, channel=STDIN)
    assert at_node.over is None


async def test_a_node_that_drains_waits_for_tasks_that_were_on_their_way(at_node: PlayedSet) -> None:
    draining = asyncio.create_task(at_node.session.drain("maintenance"))
    heard = await at_node.heard(beats=True)
    assert [each[0] for each in heard] == [frames.HEALTH, frames.BEAT]
    assert not draining.done(), "the set has not answered"
    at_node.task(1)
    at_node.says(frames.GRANT, heard[-1][3])
    await at_node.heard()
    assert not draining.done(), "the task of before still runs"
    at_node.executor.runs[0].exit()
    await asyncio.wait_for(draining, 60)


async def test_a_command_that_fits_no_message_is_no_set_s(at_node: PlayedSet) -> None:
    at_node.executor.refuse = [BadRequest("a NUL byte", field="arg")]
    at_node.task(1)
    assert at_node.over == "a TASK that no guest could be given: a NUL byte"


async def test_a_task_for_a_slot_that_is_gone_is_told_lost(at_node: PlayedSet) -> None:
    at_node.task(1, "s7")
    (heard,) = await at_node.heard()
    assert heard[0] == frames.LOST
    assert at_node.over is None


async def test_files_that_were_given_back_cannot_be_read(at_node: PlayedSet) -> None:
    at_node.says(frames.READ, messages.Read(1, 0, 0, 10), stream=1)
    (heard,) = await at_node.heard()
    assert heard[:3] == (frames.END, STDOUT, 1)
    assert "given back" in messages.decode(memoryview(heard[3]), messages.Reason).reason


async def test_half_an_input_never_looks_like_a_whole_one(at_node: PlayedSet) -> None:
    at_node.task(1, stdin=None)
    at_node.says(frames.DATA, b"half", stream=1, channel=STDIN)
    at_node.says(frames.END, messages.Reason("its source broke off"), stream=1, channel=STDIN)
    await at_node.heard()
    for _ in range(5):
        await asyncio.sleep(0)
    (run,) = at_node.executor.runs
    assert run.killed
    assert run.stdin is not None
    assert not run.stdin.closed
