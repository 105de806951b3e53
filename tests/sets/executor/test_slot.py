"""A slot against a scripted guest: every move, every disorder, and nothing that stays open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from scheduler.errors import BadRequest, IllegalMove, SlotLost
from scheduler.execution import Ending, How, Output, Work
from sets.executor import protocol, slot
from sets.executor.slot import SLOT_MOVES, SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck, open_fds
from tests.sets.executor.scripted import CAT, WAIT_S, Rig, ScriptedGuest


@pytest.fixture
async def rig(no_fd_leaks: FdCheck) -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig.connect()
    rig.close()


def file_with(tmp_path: Path, data: bytes) -> int:
    path = tmp_path / f"file{random.random()}"
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def fill(rig: Rig, message_bytes: int) -> None:
    """Send until the guest's socket is full."""
    assert rig.slot._socket is not None
    with contextlib.suppress(BlockingIOError):
        while rig.slot._socket.send(bytes(message_bytes)):
            continue


# -- a task's way


async def test_small_output_comes_with_the_end(rig: Rig) -> None:
    run = rig.slot.run(Work(argv=(b"/bin/cat", b"-n"), env=(b"A=1",), stdin=b"in"))
    assert rig.slot.state is SlotState.RUNNING
    task = rig.guest.task()
    assert (task.number, task.argv, task.env, task.stdin) == (1, [b"/bin/cat", b"-n"], [b"A=1"], b"in")
    assert run.stdin is None
    rig.guest.says(wire.ended(1, code=3, wall_us=9, max_rss_kib=7, stdout=b"out", stderr=b"err"))
    async with asyncio.timeout(WAIT_S):
        first = await run.first()
    assert isinstance(first, Ending)
    assert first == await run.ending() == await run.first()
    assert (first.how, first.code, first.killed, first.out_of_memory) == (How.EXITED, 3, False, False)
    assert (first.stdout, first.stderr, first.handed_over, first.files) == (b"out", b"err", False, [])
    assert (first.wall_us, first.max_rss_kib) == (9, 7)
    assert (rig.slot.state, rig.freed, rig.lost) == (SlotState.IDLE, 1, [])


async def test_task_numbers_count_up(rig: Rig) -> None:
    for number in (1, 2, 3):
        run = rig.slot.run(CAT)
        assert rig.guest.task().number == run.number == number
        rig.guest.says(wire.ended(number))
        async with asyncio.timeout(WAIT_S):
            await run.ending()
    assert rig.freed == 3


async def test_stdin_by_pipe(rig: Rig) -> None:
    run = rig.slot.run(Work(argv=(b"cat",), stdin=None, stream=True))
    message, fds = rig.guest.read()
    assert wire.read_task(message).flags == wire.STDIN_FD | wire.STREAM
    assert len(fds) == 1
    assert run.stdin is not None
    await run.stdin.write(b"some input")
    run.stdin.close()
    assert os.read(fds[0], 100) == b"some input"
    assert os.read(fds[0], 100) == b""
    os.close(fds[0])
    rig.guest.says(wire.ended(1))
    async with asyncio.timeout(WAIT_S):
        await run.ending()


async def test_the_end_breaks_the_pipe_of_whoever_still_writes(rig: Rig) -> None:
    run = rig.slot.run(Work(argv=(b"cat",), stdin=None))
    _, (kept,) = rig.guest.read()
    assert run.stdin is not None
    writing = asyncio.create_task(run.stdin.write(bytes(8 << 20)))
    await rig.settle()
    rig.guest.says(wire.ended(1))
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(BrokenPipeError):
            await writing
        await run.ending()
    os.close(kept)


async def test_large_output_is_handed_over(rig: Rig) -> None:
    run = rig.run()
    out, err = rig.guest.hands_over(1, b"head", b"warning")
    async with asyncio.timeout(WAIT_S):
        first = await run.first()
        assert isinstance(first, Output)
        assert await run.first() is first
        assert (first.stdout_head, first.stderr_head) == (b"head", b"warning")
        os.write(out, b"more")
        assert await first.stdout.read() == b"more"
        os.close(out)
        os.close(err)
        assert await first.stdout.read() == await first.stderr.read() == b""
        rig.guest.says(wire.ended(1, flags=wire.HANDED_OVER))
        ending = await run.ending()
    assert ending.handed_over
    first.stdout.close()
    first.stderr.close()


async def test_a_pipe_that_somebody_keeps_open_ends_with_the_program(rig: Rig) -> None:
    """A program can leave its stdout in flight, in a message that nobody receives: the end must not wait for it."""
    run = rig.run()
    out, err = rig.guest.hands_over(1)
    os.write(out, b"all of it")
    async with asyncio.timeout(WAIT_S):
        first = await run.first()
        assert isinstance(first, Output)
        assert await first.stdout.read() == b"all of it"
        reading = asyncio.create_task(first.stdout.read())
        await rig.settle()
        assert not reading.done()
        rig.guest.says(wire.ended(1, flags=wire.HANDED_OVER))
        assert await reading == b""
        assert await first.stderr.read() == b""
    first.stdout.close()
    first.stderr.close()
    os.close(out)
    os.close(err)


async def test_output_files(rig: Rig, tmp_path: Path) -> None:
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a", b"/b", b"/c")))
    files = [file_with(tmp_path, b"of a"), file_with(tmp_path, b"of c")]
    rig.guest.says(wire.ended(1, files=[0, errno.ENOENT, 0]), files)
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert ending.files[1] == -errno.ENOENT
    assert [os.read(ending.files[n], 10) for n in (0, 2)] == [b"of a", b"of c"]
    assert not os.get_inheritable(ending.files[0])
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
    # By whoever has them, be it the garbage collector in another thread.
    await asyncio.to_thread(ending.close_files)
    await rig.settle()
    assert (rig.freed, rig.slot.state) == (1, SlotState.IDLE)
    run = rig.run(work)
    rig.guest.says(wire.ended(2, files=[errno.ENOENT, errno.ENOENT]))
    assert (await run.ending()).files == [-errno.ENOENT, -errno.ENOENT]
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
    assert os.read(ending.files[0], 10) == b"a"
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
    assert len(set(ending.files)) == 64
    ending.close_files()


async def test_a_small_default_of_the_host_does_not_limit_messages(no_fd_leaks: FdCheck) -> None:
    rig = Rig()
    ours = rig._connection
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    rig.connect()
    run = rig.run(Work(argv=(b"x" * (protocol.STRINGS_BYTES - 1),), stdin=bytes(61_440)))
    assert run.number == 1
    rig.close()


# -- cleaning


async def test_a_slot_that_cleans_is_free_when_it_is_clean(rig: Rig) -> None:
    run = rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, stdout=b"done"))
    async with asyncio.timeout(WAIT_S):
        assert (await run.ending()).stdout == b"done"
    assert (rig.slot.state, rig.freed) == (SlotState.CLEANING, 0)
    with pytest.raises(SlotLost, match="cleaning"):
        rig.slot.run(CAT)
    run.kill()
    rig.guest.says(wire.cleaned(1))
    await rig.settle()
    assert (rig.slot.state, rig.freed, rig.lost) == (SlotState.IDLE, 1, [])
    assert rig.run().number == 2


async def test_a_slot_that_cannot_be_cleaned_is_lost_but_its_task_is_not(rig: Rig) -> None:
    run = rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, stdout=b"done"))
    rig.guest.says(wire.cleaned(1, ok=0, error=errno.EBUSY))
    await rig.settle()
    assert (rig.slot.state, rig.freed) == (SlotState.LOST, 0)
    assert "could not be cleaned: Device or resource busy" in rig.lost[0]
    assert (await run.ending()).stdout == b"done"


async def test_a_program_that_could_not_be_started_is_the_slots_failure(rig: Rig) -> None:
    run = rig.run()
    rig.guest.says(wire.ended(1, how=protocol.NOT_STARTED, code=errno.EAGAIN))
    with pytest.raises(SlotLost, match="could not start a program: Resource temporarily unavailable"):
        async with asyncio.timeout(WAIT_S):
            await run.first()
    assert (rig.slot.state, rig.freed, len(rig.lost)) == (SlotState.LOST, 0, 1)


async def test_cleaning_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "CLEAN_GRACE_S", 0.01)
    rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING))
    await _until(lambda: bool(rig.lost))
    assert rig.lost == ["its guest did not clean up in time"]


async def test_the_guests_clean_up_is_not_the_next_tasks_cpu_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_us = iter([1_000, 90_000])
    assert rig.slot._cgroup is not None
    rig.slot._account = type(rig.slot._account)(0)
    monkeypatch.setattr(rig.slot._cgroup, "cpu_us", lambda: next(used_us))
    first = rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, guest_cpu_us=100))
    rig.guest.says(wire.cleaned(1, guest_cpu_us=80_000))
    await rig.settle()
    second = rig.run()
    rig.guest.says(wire.ended(2, guest_cpu_us=500))
    async with asyncio.timeout(WAIT_S):
        assert (await first.ending()).cpu_us == 900
        assert (await second.ending()).cpu_us == 8_500


# -- killing


async def test_kill_is_sent_once(rig: Rig) -> None:
    run = rig.run()
    for _ in range(1000):
        run.kill()
    assert rig.guest.read() == (wire.head(wire.KILL, 1), [])
    rig.guest.says(wire.ended(1, flags=wire.KILLED, how=1, code=9))
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert (ending.how, ending.code, ending.killed) == (How.SIGNALLED, 9, True)
    rig.guest.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        rig.guest.read()


async def test_kill_after_the_end_says_nothing(rig: Rig) -> None:
    run = rig.run()
    rig.guest.says(wire.ended(1))
    async with asyncio.timeout(WAIT_S):
        await run.ending()
    run.kill()
    following = rig.slot.run(CAT)
    assert rig.guest.task().number == 2
    run.kill()
    following.kill()
    assert rig.guest.read()[0] == wire.head(wire.KILL, 2)


async def test_a_guest_that_does_not_end_a_killed_task(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "KILL_GRACE_S", 0.01)
    run = rig.run()
    run.kill()
    with pytest.raises(SlotLost, match="did not end a killed task in time"):
        async with asyncio.timeout(WAIT_S):
            await run.ending()
    assert rig.lost == ["its guest did not end a killed task in time"]


async def test_the_end_of_a_killed_task_stops_the_clock(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "KILL_GRACE_S", 0.05)
    run = rig.run()
    run.kill()
    rig.guest.says(wire.ended(1, flags=wire.KILLED, how=1, code=9))
    async with asyncio.timeout(WAIT_S):
        await run.ending()
    await asyncio.sleep(0.1)
    assert (rig.slot.state, rig.lost) == (SlotState.IDLE, [])


# -- a guest that is gone, or takes nothing


@pytest.mark.parametrize("state", ["idle", "running", "handed over", "cleaning"])
@pytest.mark.parametrize("how", ["gone", "misbehaves", "retired", "failed"])
async def test_lost_in_each_state(rig: Rig, state: str, how: str) -> None:
    run = None
    out = err = -1
    if state != "idle":
        run = rig.run(Work(argv=(b"cat",), stdin=None))
    if state == "handed over":
        out, err = rig.guest.hands_over(1)
    if state == "cleaning":
        rig.guest.says(wire.ended(1, flags=wire.CLEANING))
    await rig.settle()
    waiting = asyncio.create_task(run.ending()) if run is not None else None
    await rig.settle()
    if how == "gone":
        rig.guest.close()
    elif how == "misbehaves":
        rig.guest.says(b"\xff" * 100)
    elif how == "retired":
        rig.slot.retire()
    else:
        rig.slot.fail("somebody said so")
    await rig.settle()
    assert rig.slot.state is SlotState.LOST
    assert len(rig.lost) == (0 if how == "retired" else 1)
    assert rig.freed == 0
    with pytest.raises(SlotLost, match="slot s is lost"):
        rig.slot.run(CAT)
    rig.slot.fail("again")
    rig.slot.retire()
    assert len(rig.lost) == (0 if how == "retired" else 1)
    if run is not None and waiting is not None:
        run.kill()
        if state == "cleaning":
            assert (await waiting).code == 0
        else:
            for _ in range(2):
                with pytest.raises(SlotLost, match="lost while the task ran"):
                    await run.ending()
            with pytest.raises(SlotLost):
                await waiting
        assert run.stdin is not None
        with pytest.raises(BrokenPipeError):
            await run.stdin.write(b"x")
        if state == "handed over":
            first = await run.first()
            assert isinstance(first, Output)
            assert await first.stdout.read() == b"", "ends, though the write end is still open"
        elif state == "running":
            with pytest.raises(SlotLost):
                await run.first()
    if out >= 0:
        os.close(out)
        os.close(err)


async def test_retire_tells_the_guest(rig: Rig) -> None:
    rig.slot.retire()
    assert rig.guest.read()[0] == wire.head(wire.RETIRE)
    assert rig.guest.read()[0] == b""


async def test_connecting_to_lost(no_fd_leaks: FdCheck) -> None:
    rig = Rig()
    with pytest.raises(SlotLost, match="connecting"):
        rig.slot.run(CAT)
    rig.slot.fail("it did not start")
    assert rig.lost == ["it did not start"]
    rig.close()


async def test_a_guest_that_is_gone_takes_no_task(rig: Rig) -> None:
    rig.guest.close()
    with pytest.raises(SlotLost, match="could not be given a task"):
        rig.slot.run(Work(argv=(b"cat",), stdin=None))
    assert (rig.slot.state, len(rig.lost)) == (SlotState.LOST, 1)


async def test_a_full_socket_loses_the_slot_and_blocks_nobody(rig: Rig) -> None:
    """Whoever waits for a task has read all before it: a guest that has not is broken."""
    fill(rig, 60_000)
    with pytest.raises(SlotLost, match="could not be given a task"):
        rig.slot.run(CAT)
    assert len(rig.lost) == 1


async def test_a_full_socket_at_kill(rig: Rig) -> None:
    run = rig.run()
    fill(rig, 100)
    run.kill()
    assert len(rig.lost) == 1
    assert "does not take KILL" in rig.lost[0]
    with pytest.raises(SlotLost):
        await run.ending()


async def test_work_that_fits_no_message_leaves_the_slot_as_it_was(rig: Rig) -> None:
    with pytest.raises(BadRequest):
        rig.slot.run(Work(argv=(b"a\0b",), stdin=None))
    with pytest.raises(ValueError, match="inline input"):
        rig.slot.run(Work(argv=(b"a",), stdin=bytes(61_441)))
    assert (rig.slot.state, rig.lost) == (SlotState.IDLE, [])
    assert rig.run().number == 1


# -- waiting, given up and taken up again


@pytest.mark.parametrize("what", ["first", "ending"])
async def test_a_cancelled_wait_can_be_asked_again_and_harms_nobody(rig: Rig, what: str) -> None:
    run = rig.run()
    waits = [asyncio.create_task(getattr(run, what)()) for _ in range(3)]
    await rig.settle()
    waits[1].cancel()
    await rig.settle()
    assert [wait.done() for wait in waits] == [False, True, False]
    rig.guest.says(wire.ended(1, stdout=b"kept"))
    async with asyncio.timeout(WAIT_S):
        results = await asyncio.gather(*waits, getattr(run, what)(), return_exceptions=True)
    assert isinstance(results.pop(1), asyncio.CancelledError)
    assert [each.stdout for each in results if isinstance(each, Ending)] == [b"kept"] * 3


async def test_cancelled_at_the_moment_the_news_comes(rig: Rig) -> None:
    run = rig.run()
    first = asyncio.create_task(run.first())
    await rig.settle()
    out, err = rig.guest.hands_over(1, b"head")
    rig.slot._readable()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    again = await run.first()
    assert isinstance(again, Output)
    assert again.stdout_head == b"head"
    os.close(out)
    os.close(err)
    again.stdout.close()
    again.stderr.close()


async def test_output_that_nobody_fetched_is_closed_with_the_run(rig: Rig) -> None:
    run = rig.run()
    first = asyncio.create_task(run.first())
    await rig.settle()
    first.cancel()
    out, err = rig.guest.hands_over(1)
    await rig.settle()
    rig.guest.says(wire.ended(1, flags=wire.HANDED_OVER))
    await rig.settle()
    assert rig.freed == 1
    del run, first
    with pytest.raises(BrokenPipeError):
        os.write(out, b"x")
    os.close(out)
    os.close(err)


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
    assert os.read(ending.files[0], 10) == b"mine"
    ending.close_files()


# -- disorder: each of these loses the slot, and none leaves a descriptor


def pipe_ends(count: int) -> list[int]:
    """Read ends; nobody holds the write ends."""
    ends = []
    for _ in range(count):
        read_end, write_end = os.pipe()
        os.close(write_end)
        ends.append(read_end)
    return ends


def null(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]


def regular(count: int) -> list[int]:
    return [os.open(__file__, os.O_RDONLY) for _ in range(count)]


Disorder = Callable[[], tuple[bytes, list[int]]]
DISORDERS: dict[str, Disorder] = {
    "an EXIT of a task that never was": lambda: (wire.ended(2), []),
    "an EXIT of task 0": lambda: (wire.ended(0), []),
    "an OUTPUT of another task": lambda: (wire.output(4_000_000_000), pipe_ends(2)),
    "an OUTPUT without pipes": lambda: (wire.output(1), []),
    "an OUTPUT with one pipe": lambda: (wire.output(1), pipe_ends(1)),
    "an OUTPUT with three pipes": lambda: (wire.output(1), pipe_ends(3)),
    "an OUTPUT with devices": lambda: (wire.output(1), null(2)),
    "an OUTPUT with a file": lambda: (wire.output(1), pipe_ends(1) + regular(1)),
    "an EXIT that says OUTPUT was sent": lambda: (wire.ended(1, flags=wire.HANDED_OVER), []),
    "an EXIT with a descriptor that it does not name": lambda: (wire.ended(1), regular(1)),
    "an EXIT with files that nobody asked for": lambda: (wire.ended(1, files=[0]), regular(1)),
    "an EXIT with an errno that nobody asked for": lambda: (wire.ended(1, files=[2]), []),
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
    for message, fds in [
        (wire.ended(0), []),
        (wire.ended(1), []),
        (wire.output(0), pipe_ends(2)),
        (wire.cleaned(0), []),
    ]:
        rig = Rig().connect()
        rig.guest.says(message, fds)
        await rig.settle()
        assert len(rig.lost) == 1
        rig.close()


async def test_a_second_output(rig: Rig) -> None:
    run = rig.run()
    out, err = rig.guest.hands_over(1, b"first")
    rig.guest.says(wire.output(1), pipe_ends(2))
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
    out, err = rig.guest.hands_over(1)
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


@pytest.mark.parametrize(("kind", "fds"), [("pipe", pipe_ends), ("device", null)])
async def test_output_files_that_are_none(rig: Rig, kind: str, fds: Callable[[int], list[int]]) -> None:
    """Reading such a descriptor could wait for ever, or do worse."""
    run = rig.run(Work(argv=(b"x",), outputs=(b"/a",)))
    rig.guest.says(wire.ended(1, files=[0]), fds(1))
    with pytest.raises(SlotLost):
        async with asyncio.timeout(WAIT_S):
            await run.ending()


async def test_no_message_leaves_a_descriptor(no_fd_leaks: FdCheck, tmp_path: Path) -> None:
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
            message = wire.ended(run.number, files=[0] * wanted)
            fds = [file_with(tmp_path, b"") for _ in range(wanted)]
        rig.guest.says(message, fds)
        await rig.settle()
        if not rig.lost and choice.random() < 0.5:
            (await run.ending()).close_files()
        # What nobody fetched is closed with it.
        del run
        await rig.settle()
    rig.close()
    del rig


# -- the owner's own mistakes are not the guest's


async def test_an_error_of_whoever_hears_of_a_free_slot_does_not_lose_it(no_fd_leaks: FdCheck) -> None:
    rig = Rig().connect()
    raised: list[object] = []
    rig.loop.set_exception_handler(lambda _, context: raised.append(context.get("exception")))

    def freed(_: str) -> None:
        raise IllegalMove("a bug of the owner's")

    rig.slot._freed = freed
    run = rig.run()
    rig.guest.says(wire.ended(1))
    async with asyncio.timeout(WAIT_S):
        await run.ending()
    await rig.settle()
    assert (rig.slot.state, rig.lost) == (SlotState.IDLE, [])
    assert [type(each) for each in raised] == [IllegalMove]
    rig.loop.set_exception_handler(None)
    rig.close()


def test_the_table_of_moves_is_whole() -> None:
    assert set(SLOT_MOVES) == set(SlotState)
    assert all(SlotState.LOST in moves for state, moves in SLOT_MOVES.items() if state is not SlotState.LOST)


async def test_a_move_that_is_not_in_the_table_raises(rig: Rig) -> None:
    with pytest.raises(IllegalMove, match="idle → cleaning is not a legal move"):
        rig.slot._move(SlotState.CLEANING)


async def test_a_thousand_tasks_as_a_conversation(rig: Rig) -> None:
    """A guest that answers as soon as it is asked, in a thread: nothing is left over, nothing is mixed up."""

    def answer(guest: ScriptedGuest) -> None:
        for _ in range(1000):
            task = guest.task()
            guest.says(wire.ended(task.number, flags=wire.CLEANING, stdout=task.argv[0]))
            guest.says(wire.cleaned(task.number))

    thread = asyncio.create_task(asyncio.to_thread(answer, rig.guest))
    async with asyncio.timeout(WAIT_S):
        for number in range(1000):
            run = rig.slot.run(Work(argv=(b"task %d" % number,)))
            assert (await run.ending()).stdout == b"task %d" % number
            while rig.slot.state is not SlotState.IDLE:  # noqa: ASYNC110 (the slot has one owner, no event)
                await asyncio.sleep(0)
        await thread
    assert (rig.freed, rig.lost) == (1000, [])


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (a timer of the slot's own)
            await asyncio.sleep(0.005)
