"""Frames for which somebody waits leave at once, and an end takes along that its slot is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from scheduler.task import Lease
from sets.executor.link import frames, messages
from tests.sets.executor.link.played import Heard, PlayedNode, PlayedSet, exit_of
from tests.sets.executor.link.rig import CAT


@pytest.fixture
async def node() -> AsyncIterator[PlayedNode]:
    played = PlayedNode()
    await played.ready_slot()
    await played.heard()
    yield played
    played.wire.close("the test is over")
    played.link.lose("the test is over")


def kinds(heard: list[Heard]) -> list[int]:
    return [each[0] for each in heard]


def told(heard: Heard) -> messages.Exit:
    assert heard[0] == frames.EXIT
    return messages.decode(memoryview(heard[3]), messages.Exit)


# No test here lets the loop turn between a cause and its frame.


async def test_a_task_leaves_at_once(node: PlayedNode) -> None:
    node.link.run("s1", CAT, Lease("a-1", 1))
    assert kinds(node.heard_now()) == [frames.TASK]


async def test_the_next_task_leaves_right_after_the_end_of_the_one_before(node: PlayedNode) -> None:
    node.link.run("s1", CAT, Lease("a-1", 1))
    node.heard_now()
    freed = node.owner.slot_freed

    def and_another(slot_id: str, cpu_us: int) -> None:
        freed(slot_id, cpu_us)
        node.link.run(slot_id, CAT, Lease("a-2", 1))

    node.owner.slot_freed = and_another  # type: ignore[method-assign]
    node.says(frames.EXIT, exit_of(freed=True), stream=1)
    assert kinds(node.heard_now()) == [frames.TASK]


async def test_answers_to_frames_that_came_in_one_piece_leave_in_one_piece(node: PlayedNode) -> None:
    calls: list[int] = []
    written = node.transport.writelines

    def counted(pieces: Iterable[bytes]) -> None:
        calls.append(1)
        written(pieces)

    node.transport.writelines = counted  # type: ignore[method-assign]
    beat = frames.frame(frames.BEAT, frames.CLOCK.pack(1))
    node.bytes_come(3 * beat)
    assert kinds(node.heard_now()) == 3 * [frames.GRANT]
    assert len(calls) == 1


async def test_an_end_leaves_at_once_and_says_that_its_slot_is_free(at_node: PlayedSet) -> None:
    at_node.task(1)
    at_node.executor.runs[0].exit(3, b"out")
    (heard,) = at_node.heard_now()
    assert (told(heard).code, told(heard).stdout, told(heard).freed) == (3, b"out", True)
    assert await at_node.heard() == [], "it is told once"
    at_node.task(2)
    assert len(at_node.executor.runs) == 2


async def test_an_end_does_not_wait_until_its_slot_is_clean(at_node: PlayedSet) -> None:
    at_node.task(1)
    at_node.executor.runs[0].exit(clean=False)
    (heard,) = at_node.heard_now()
    assert not told(heard).freed
    at_node.executor.events.slot_freed("s1", 70)
    (heard,) = await at_node.heard()
    assert heard[0] == frames.FREED


async def test_a_slot_that_is_lost_right_after_an_end_takes_nothing_back(at_node: PlayedSet) -> None:
    at_node.task(1)
    at_node.executor.runs[0].exit(clean=False)
    at_node.executor.lose("s1", "its guest is gone")
    heard = await at_node.heard()
    assert kinds(heard) == [frames.EXIT, frames.LOST]


@pytest.mark.parametrize("by_its_set", [True, False])
async def test_a_slot_that_goes_while_it_is_cleaned_does_not_hold_a_drain(
    at_node: PlayedSet, by_its_set: bool
) -> None:
    at_node.task(1)
    at_node.executor.runs[0].exit(clean=False)
    await at_node.heard()
    draining = asyncio.create_task(at_node.session.drain("maintenance"))
    (_, beat) = await at_node.heard(beats=True)
    at_node.says(frames.GRANT, beat[3])
    await at_node.heard()
    assert not draining.done(), "the slot is not clean"
    if by_its_set:
        at_node.says(frames.DISCARD, messages.SlotMessage("s1"))
    else:
        at_node.executor.lose("s1", "it could not be cleaned")
    await asyncio.wait_for(draining, 60)
