"""Output files of a slot's tasks: whose they are, and what the slot may do until they are closed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.errors import SlotLost
from scheduler.execution import Ending, NoFile, Work
from scheduler.source import OpenFile
from sets.executor import protocol, slot
from sets.executor.slot import SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import open_fds
from tests.sets.executor.scripted import WAIT_S, Rig, file_with, null, pipe_ends


def fd_of(ending: Ending, number: int) -> int:
    """The descriptor of an output file that was handed over."""
    file = ending.files[number]
    assert isinstance(file, OpenFile)
    return file.fileno()


async def test_output_files(rig: Rig, tmp_path: Path) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a", b"/b", b"/c")))
    files = [file_with(tmp_path, b"of a"), file_with(tmp_path, b"of c")]
    rig.guest.says(wire.ended(1, files=[0, errno.ENOENT, 0]), files)
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert ending.files[1] == NoFile(errno.ENOENT)
    assert [os.read(fd_of(ending, n), 10) for n in (0, 2)] == [b"of a", b"of c"]
    assert not os.get_inheritable(fd_of(ending, 0))
    ending.close_files()
    ending.close_files()


@pytest.mark.parametrize("dirty", [False, True])
async def test_a_slot_whose_files_are_open_takes_no_other_task(rig: Rig, tmp_path: Path, dirty: bool) -> None:
    """They are gone from its places, yet still count towards its memory and their size."""
    work = Work(argv=(b"x",), outputs=(b"/a", b"/b"))
    run = rig.run(work)
    files = [file_with(tmp_path, b"a")]
    rig.guest.says(wire.ended(1, flags=wire.CLEANING if dirty else 0, files=[0, errno.ENOENT]), files)
    ending = await run.ending()
    if dirty:
        rig.guest.says(wire.cleaned(1))
        await rig.settle()
    assert (rig.freed, rig.slot.state) == (0, SlotState.CLEANING)
    with pytest.raises(SlotLost, match="cleaning"):
        rig.slot.run(work)
    # By their holder, which may be the garbage collector in another thread.
    await asyncio.to_thread(ending.close_files)
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)
    run = rig.run(work)
    rig.guest.says(wire.ended(2, files=[errno.ENOENT, errno.ENOENT]))
    assert (await run.ending()).files == [NoFile(errno.ENOENT), NoFile(errno.ENOENT)]
    assert rig.freed == 2


async def test_files_closed_before_the_slot_is_clean(rig: Rig, tmp_path: Path) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, files=[0]), [file_with(tmp_path, b"a")])
    (await run.ending()).close_files()
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (0, SlotState.CLEANING)
    rig.guest.says(wire.cleaned(1))
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)


async def test_files_that_stay_open_cost_the_slot(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "FILES_GRACE_S", 0.01)
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), [file_with(tmp_path, b"a")])
    ending = await run.ending()
    async with asyncio.timeout(WAIT_S):
        while not rig.lost:  # noqa: ASYNC110 (a timer of the slot's)
            await asyncio.sleep(0.001)
    assert rig.lost == ["its output files were not closed in time"]
    # They are their reader's all the same, and harm nobody when they are closed.
    assert os.read(fd_of(ending, 0), 10) == b"a"
    ending.close_files()
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (0, SlotState.LOST)


async def test_a_cleaned_that_nobody_waits_for_while_files_are_open(rig: Rig, tmp_path: Path) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), [file_with(tmp_path, b"a")])
    ending = await run.ending()
    rig.guest.says(wire.cleaned(1))
    await rig.settle()
    assert (rig.freed, len(rig.lost)) == (0, 1)
    ending.close_files()


async def test_as_many_and_as_large_as_a_message_can_carry(rig: Rig, tmp_path: Path) -> None:
    big = os.urandom(61_440)
    run = rig.run(
        Work(
            argv=(b"x" * (protocol.STRINGS_BYTES - 1 - 64 * 3),),
            stdin=bytes(61_440),
            outputs=(b"/a",) * 64,
        )
    )
    files = [file_with(tmp_path, b"x") for _ in range(64)]
    rig.guest.says(wire.ended(1, files=[0] * 64, stdout=big, stderr=big[::-1]), files)
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert (ending.stdout, ending.stderr) == (big, big[::-1])
    assert len({fd_of(ending, n) for n in range(64)}) == 64
    ending.close_files()


async def test_files_that_nobody_fetched_are_closed_with_the_run(rig: Rig, tmp_path: Path) -> None:
    before = len(open_fds())
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), [file_with(tmp_path, b"x")])
    await rig.settle()
    assert len(open_fds()) == before + 1
    del run
    assert len(open_fds()) == before
    await rig.settle()
    assert rig.freed == 1


async def test_files_that_somebody_fetched_are_his(rig: Rig, tmp_path: Path) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), [file_with(tmp_path, b"mine")])
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    del run
    assert os.read(fd_of(ending, 0), 10) == b"mine"
    ending.close_files()


@pytest.mark.parametrize(("kind", "fds"), [("pipe", pipe_ends), ("device", null)])
async def test_output_files_that_are_none(rig: Rig, kind: str, fds: Callable[[int], list[int]]) -> None:
    """Reading such a descriptor could wait for ever, or do worse."""
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), fds(1))
    with pytest.raises(SlotLost):
        async with asyncio.timeout(WAIT_S):
            await run.ending()
