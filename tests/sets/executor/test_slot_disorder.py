"""Messages that no guest of ours sends: each loses the slot, and none leaves a descriptor."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from scheduler.errors import SlotLost
from scheduler.execution import Output, Work
from sets.executor import protocol
from sets.executor.slot_state import SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck
from tests.sets.executor.scripted import WAIT_S, Rig, null, pipe_ends


def regular(count: int) -> list[int]:
    return [os.open(__file__, os.O_RDONLY) for _ in range(count)]


Disorder = Callable[[], tuple[bytes, list[int]]]
DISORDERS: dict[str, Disorder] = {
    "an EXIT of a task that never was": lambda: (wire.ended(2), []),
    "an EXIT of task 0": lambda: (wire.ended(0), []),
    "an OUTPUT of another task": lambda: (wire.output(4_000_000_000), []),
    "an OUTPUT with one pipe": lambda: (wire.output(1), pipe_ends(1)),
    "an OUTPUT with pipes": lambda: (wire.output(1), pipe_ends(2)),
    "an OUTPUT with devices": lambda: (wire.output(1), null(2)),
    "an OUTPUT with a file": lambda: (wire.output(1), pipe_ends(1) + regular(1)),
    "an EXIT that says OUTPUT was sent": lambda: (wire.ended(1, flags=wire.HANDED_OVER), []),
    "an EXIT with a descriptor": lambda: (wire.ended(1), regular(1)),
    "an EXIT with files that nobody asked for": lambda: (
        wire.ended(1, flags=wire.CLEANING, files=[0]),
        [],
    ),
    "an EXIT with an errno that nobody asked for": lambda: (wire.ended(1, files=[-2]), []),
    "a CLEANED while the task runs": lambda: (wire.cleaned(1), []),
    "a HELLO": lambda: (wire.hello(b"x" * 64), []),
    "a message of ours": lambda: (wire.head(wire.KILL, 1), []),
    "garbage with descriptors": lambda: (b"garbage", null(5)),
    "garbage with as many descriptors as fit": lambda: (b"garbage", null(64)),
    "more descriptors than fit": lambda: (wire.ended(1), null(65)),
    "as many descriptors as the kernel carries": lambda: (wire.output(1), null(253)),
    "more bytes than fit": lambda: (wire.output(1) + bytes(protocol.MESSAGE_BYTES), pipe_ends(2)),
    "an empty message with a descriptor": lambda: (b"", null(1)),
}


@pytest.mark.parametrize("name", DISORDERS)
async def test_disorder(rig: Rig, name: str) -> None:
    run = rig.run()
    message, fds = DISORDERS[name]()
    rig.guest.says(message, fds)
    with pytest.raises(SlotLost):
        async with asyncio.timeout(WAIT_S):
            await run.first()
    assert (rig.slot.state, rig.freed, len(rig.lost)) == (SlotState.LOST, 0, 1)


async def test_messages_while_nothing_runs(no_fd_leaks: FdCheck) -> None:
    for message in (wire.ended(0), wire.ended(1), wire.output(0), wire.cleaned(0)):
        rig = Rig().connect()
        rig.guest.says(message)
        await rig.settle()
        assert len(rig.lost) == 1
        rig.close()


async def test_a_second_output(rig: Rig) -> None:
    run = rig.run()
    out, err = await rig.guest.hands_over(1, b"first")
    rig.guest.says(wire.output(1))
    await rig.settle()
    assert len(rig.lost) == 1
    first = await run.first()
    assert isinstance(first, Output)
    assert first.stdout_head == b"first"
    os.close(out)
    os.close(err)
    first.stdout.close()
    first.stderr.close()


async def test_an_exit_that_forgets_its_output(rig: Rig) -> None:
    rig.run()
    out, err = await rig.guest.hands_over(1)
    rig.guest.says(wire.ended(1))
    await rig.settle()
    assert len(rig.lost) == 1
    os.close(out)
    os.close(err)


async def test_a_second_exit(rig: Rig) -> None:
    run = rig.run()
    rig.guest.says(wire.ended(1, stdout=b"first"))
    rig.guest.says(wire.ended(1, stdout=b"second"))
    await rig.settle()
    assert (await run.ending()).stdout == b"first"
    assert (rig.freed, len(rig.lost)) == (1, 1)


@pytest.mark.parametrize("task", [0, 2])
async def test_a_cleaned_of_another_task(rig: Rig, task: int) -> None:
    rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING))
    rig.guest.says(wire.cleaned(task))
    await rig.settle()
    assert (rig.freed, len(rig.lost)) == (0, 1)


async def test_no_message_leaves_a_descriptor(no_fd_leaks: FdCheck) -> None:
    """1,000 messages, in order and malformed, with and without descriptors, over many slots."""
    choice = random.Random(20)
    names = list(DISORDERS)
    rig = Rig().connect()
    for _ in range(1000):
        if rig.lost:
            rig.close()
            rig = Rig().connect()
        wanted = choice.randrange(3)
        run = rig.run(Work(argv=(b"x",), outputs=(b"/a",) * wanted))
        if choice.random() < 0.5:
            message, fds = DISORDERS[choice.choice(names)]()
        else:
            flags = wire.CLEANING if wanted else 0
            message = wire.ended(run.number, flags=flags, files=[7] * wanted)
            fds = []
        rig.guest.says(message, fds)
        await rig.settle()
        number = run.number
        if not rig.lost and choice.random() < 0.5:
            (await run.ending()).close_files()
        # What nobody fetched is closed with it.
        del run
        await rig.settle()
        # Some of the disorders are in order where a task asked for one file.
        if rig.slot.state is SlotState.CLEANING:
            await rig.guest.is_released(number)
            await rig.settle()
    rig.close()
    del rig
