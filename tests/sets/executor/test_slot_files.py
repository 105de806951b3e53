"""Output files of a slot's tasks: how they are read, and what the slot may do until they are released."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from collections.abc import AsyncGenerator

import pytest

from scheduler.errors import SlotLost
from scheduler.execution import Ending, NoFile, Work
from scheduler.source import Source
from sets.executor import protocol, slot
from sets.executor.slot_state import SlotState
from tests.sets.executor import wire
from tests.sets.executor.scripted import WAIT_S, Rig

ONE_FILE = Work(argv=(b"x",), outputs=(b"/a",))


async def ended_with(rig: Rig, *files: int, task: int = 1) -> Ending:
    """A task that leaves these files: sizes, or negative errnos."""
    run = rig.run(Work(argv=(b"x",), outputs=tuple(b"/%d" % at for at in range(len(files)))))
    rig.guest.says(wire.ended(task, flags=wire.CLEANING, files=files))
    async with asyncio.timeout(WAIT_S):
        return await run.ending()


def file(ending: Ending, number: int = 0) -> Source:
    found = ending.files[number]
    assert not isinstance(found, NoFile)
    return found


async def bytes_of(source: Source, first: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in source.pieces(first, length)])


async def test_output_files(rig: Rig) -> None:
    ending = await ended_with(rig, 4, -errno.ENOENT, 5)
    assert ending.files[1] == NoFile(errno.ENOENT)
    assert (file(ending, 0).size_bytes, file(ending, 2).size_bytes) == (4, 5)
    assert file(ending, 0).fileno() is None
    async with asyncio.timeout(WAIT_S):
        last = asyncio.create_task(bytes_of(file(ending, 2)))
        await rig.guest.gives(b"of  c", wire.AskedFor(1, 2, 0, 5))
        assert await last == b"of  c"
        part = asyncio.create_task(bytes_of(file(ending, 0), 1, 2))
        await rig.guest.gives(b"f ", wire.AskedFor(1, 0, 1, 2))
        assert await part == b"f "
        ending.close_files()
        ending.close_files()
        await rig.guest.is_released(1)
        await rig.settle()
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)


async def test_a_file_of_which_nothing_is_left_to_read(rig: Rig) -> None:
    ending = await ended_with(rig, 0)
    async with asyncio.timeout(WAIT_S):
        reading = asyncio.create_task(bytes_of(file(ending)))
        await rig.guest.gives(b"", wire.AskedFor(1, 0, 0, 0))
        assert await reading == b""
    ending.close_files()


async def test_a_slot_whose_files_are_open_takes_no_other_task(rig: Rig) -> None:
    """They fill its places and count towards its memory."""
    ending = await ended_with(rig, 1, -errno.ENOENT)
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (0, SlotState.CLEANING)
    with pytest.raises(SlotLost, match="cleaning"):
        rig.slot.run(ONE_FILE)
    async with asyncio.timeout(WAIT_S):
        # By their holder, which may be the garbage collector in another thread.
        await asyncio.to_thread(ending.close_files)
        await rig.guest.is_released(1)
        await rig.settle()
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)


async def test_a_task_without_any_of_its_files_holds_nothing(rig: Rig) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a", b"/b")))
    rig.guest.says(wire.ended(1, files=[-errno.ENOENT, -errno.ELOOP]))
    assert (await run.ending()).files == [NoFile(errno.ENOENT), NoFile(errno.ELOOP)]
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)


async def test_files_that_stay_open_cost_the_slot(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "FILES_GRACE_S", 0.01)
    ending = await ended_with(rig, 1)
    async with asyncio.timeout(WAIT_S):
        while not rig.lost:  # noqa: ASYNC110 (a timer of the slot's)
            await asyncio.sleep(0.001)
    assert rig.lost == ["its output files were not closed in time"]
    with pytest.raises(SlotLost):
        await bytes_of(file(ending))
    ending.close_files()
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (0, SlotState.LOST)


async def test_a_guest_that_does_not_clean_up_after_its_files(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "CLEAN_GRACE_S", 0.01)
    ending = await ended_with(rig, 1)
    ending.close_files()
    async with asyncio.timeout(WAIT_S):
        while not rig.lost:  # noqa: ASYNC110 (a timer of the slot's)
            await asyncio.sleep(0.001)
    assert rig.lost == ["its guest did not clean up in time"]


async def test_a_cleaned_while_files_are_open(rig: Rig) -> None:
    ending = await ended_with(rig, 1)
    rig.guest.says(wire.cleaned(1))
    await rig.settle()
    assert (rig.freed, len(rig.lost)) == (0, 1)
    ending.close_files()


async def test_files_of_a_slot_that_calls_itself_clean(rig: Rig) -> None:
    run = rig.run(ONE_FILE)
    rig.guest.says(wire.ended(1, files=[1]))
    with pytest.raises(SlotLost, match="clean and holds files"):
        async with asyncio.timeout(WAIT_S):
            await run.ending()


@pytest.mark.parametrize("said", [b"shor", b"too much"])
async def test_a_guest_that_gives_another_number_of_bytes(rig: Rig, said: bytes) -> None:
    ending = await ended_with(rig, 5)
    async with asyncio.timeout(WAIT_S):
        reading = asyncio.create_task(bytes_of(file(ending)))
        await rig.guest.gives(said, wire.AskedFor(1, 0, 0, 5))
        with pytest.raises(SlotLost, match="broke off"):
            await reading
    ending.close_files()


async def test_a_slot_that_is_lost_while_its_files_are_read(rig: Rig) -> None:
    ending = await ended_with(rig, 5)
    reading = asyncio.create_task(bytes_of(file(ending)))
    async with asyncio.timeout(WAIT_S):
        message, pipes = await rig.guest.hears()
        assert message[0] == wire.READ
        rig.guest.close()
        os.close(pipes[0])
        with pytest.raises(SlotLost):
            await reading
    await rig.settle()
    assert len(rig.lost) == 1
    with pytest.raises(SlotLost):
        await bytes_of(file(ending))
    ending.close_files()


async def test_a_reader_that_stops_midway_leaves_no_descriptor(rig: Rig) -> None:
    ending = await ended_with(rig, 1 << 20)
    pieces = file(ending).pieces()
    assert isinstance(pieces, AsyncGenerator)
    asking = asyncio.create_task(pieces.__anext__())
    async with asyncio.timeout(WAIT_S):
        _, (pipe,) = await rig.guest.hears()
        os.write(pipe, b"some")
        assert await asking == b"some"
        await pieces.aclose()
        with pytest.raises(BrokenPipeError):
            os.write(pipe, b"more")
    os.close(pipe)
    ending.close_files()


async def test_files_of_an_earlier_task_are_not_asked_for(rig: Rig) -> None:
    earlier = await ended_with(rig, 5)
    kept = file(earlier)
    earlier.close_files()
    async with asyncio.timeout(WAIT_S):
        await rig.guest.is_released(1)
        await rig.settle()
    later = await ended_with(rig, 5, task=2)
    with pytest.raises(SlotLost, match="holds no files of that task"):
        await bytes_of(kept)
    later.close_files()


async def test_as_many_and_as_large_as_a_message_can_carry(rig: Rig) -> None:
    big = os.urandom(61_440)
    run = rig.run(
        Work(
            argv=(b"x" * (protocol.STRINGS_BYTES - 1 - 64 * 3),),
            stdin=bytes(61_440),
            outputs=(b"/a",) * 64,
        )
    )
    sizes = range(1 << 40, (1 << 40) + 64)
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, files=sizes, stdout=big, stderr=big[::-1]))
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert (ending.stdout, ending.stderr) == (big, big[::-1])
    assert [file(ending, at).size_bytes for at in range(64)] == list(sizes)
    ending.close_files()


async def test_files_that_nobody_fetched_are_released_with_the_run(rig: Rig) -> None:
    run = rig.run(ONE_FILE)
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, files=[1]))
    await rig.settle()
    del run
    gc.collect()
    async with asyncio.timeout(WAIT_S):
        await rig.guest.is_released(1)
        await rig.settle()
    assert rig.freed == 1


async def test_files_that_somebody_fetched_are_his(rig: Rig) -> None:
    run = rig.run(ONE_FILE)
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, files=[4]))
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
        del run
        gc.collect()
        reading = asyncio.create_task(bytes_of(file(ending)))
        await rig.guest.gives(b"mine", wire.AskedFor(1, 0, 0, 4))
        assert await reading == b"mine"
    ending.close_files()
