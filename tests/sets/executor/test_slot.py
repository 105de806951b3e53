"""A slot against a scripted guest: its tasks, and their callers that wait."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from scheduler.errors import BadRequest, IllegalMove, SlotLost
from scheduler.execution import Ending, How, Output, Work
from sets.executor import protocol, slot
from sets.executor.slot_state import SLOT_MOVES, SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck
from tests.sets.executor.scripted import CAT, WAIT_S, Rig, ScriptedGuest

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
    assert first.frees
    assert (first.how, first.code, first.killed, first.oom_kills) == (How.EXITED, 3, False, 0)
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
    assert wire.read_task(message).flags == wire.STDIN_FD | wire.STREAM | wire.OUTPUT_FDS
    # Any user's program can open its own standard input and outputs again by name.
    assert [stat.S_IMODE(os.fstat(fd).st_mode) for fd in fds] == [0o666] * 5
    for fd in fds[1:]:
        os.close(fd)
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
    _, (kept, *others) = rig.guest.read()
    for fd in others:
        os.close(fd)
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
    out, err = await rig.guest.hands_over(1, b"head", b"warning")
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


async def test_output_goes_straight_to_us_where_it_is_expected_to_be_large(rig: Rig) -> None:
    """Where the input is large, the caller streams, or the slot's last task wrote much."""
    large = {"stdin": None}, {"stream": True}
    for number, asked in enumerate([*large, {}, {}], start=1):
        run = rig.slot.run(Work(argv=(b"x",), **asked))  # type: ignore[arg-type]
        task = rig.guest.takes()
        assert bool(task.flags & wire.OUTPUT_FDS) == (number < 4)
        if number < 3:
            os.write(rig.guest.outputs[0], b"more")
            out, err = await rig.guest.hands_over(number, b"head")
            first = await run.first()
            assert isinstance(first, Output)
            assert (first.stdout_head, await first.stdout.read()) == (b"head", b"more")
            first.stdout.close()
            first.stderr.close()
            for end in (out, err):
                with pytest.raises(BrokenPipeError):
                    os.write(end, b"x")
                os.close(end)
        rig.guest.says(wire.ended(number, flags=wire.HANDED_OVER if number < 3 else 0, stdout=b""))
        async with asyncio.timeout(WAIT_S):
            await run.ending()
        # Nobody reads what was not handed over.
        if rig.guest.outputs:
            with pytest.raises(BrokenPipeError):
                os.write(rig.guest.outputs[0], b"x")


async def test_a_pipe_that_somebody_keeps_open_ends_with_the_program(rig: Rig) -> None:
    """A program can leave its stdout in flight, in a message that nobody receives: the end must not wait for it."""
    run = rig.run()
    out, err = await rig.guest.hands_over(1)
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
        ending = await run.ending()
    assert (ending.stdout, ending.frees) == (b"done", False)
    assert (rig.slot.state, rig.freed) == (SlotState.CLEANING, 0)
    with pytest.raises(SlotLost, match="cleaning"):
        rig.slot.run(CAT)
    run.kill()
    rig.guest.says(wire.cleaned(1))
    await rig.settle()
    assert (rig.slot.state, rig.freed, rig.lost) == (SlotState.IDLE, 1, [])
    assert rig.run().number == 2


async def test_the_guests_clean_up_is_not_the_next_tasks_cpu_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_us = iter([1_000, 18_000])
    assert rig.slot._cgroup is not None
    rig.slot._account = type(rig.slot._account)(0)
    monkeypatch.setattr(rig.slot._cgroup, "cpu_us", lambda: next(used_us))
    first = rig.run()
    rig.guest.says(wire.ended(1, flags=wire.CLEANING, guest_cpu_us=100))
    rig.guest.says(wire.cleaned(1, guest_cpu_us=8_000))
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


async def test_the_end_of_a_killed_task_stops_the_clock(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "KILL_GRACE_S", 0.05)
    run = rig.run()
    run.kill()
    rig.guest.says(wire.ended(1, flags=wire.KILLED, how=1, code=9))
    async with asyncio.timeout(WAIT_S):
        await run.ending()
    await asyncio.sleep(0.1)
    assert (rig.slot.state, rig.lost) == (SlotState.IDLE, [])


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
    rig.guest.says(wire.output(1, b"head"))
    rig.slot._readable()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    again = await run.first()
    assert isinstance(again, Output)
    assert again.stdout_head == b"head"
    _, ends = rig.guest.read()
    for end in ends:
        os.close(end)
    again.stdout.close()
    again.stderr.close()


async def test_a_listener_is_told_the_first_news_in_the_moment_that_they_come(rig: Rig) -> None:
    told: list[Ending | Output | None] = []
    run = rig.run()
    run.tell(told.append)
    assert told == []
    rig.guest.says(wire.ended(1, stdout=b"all of it"))
    rig.slot._readable()
    assert [each.stdout for each in told if isinstance(each, Ending)] == [b"all of it"]
    late: list[Ending | Output | None] = []
    run.tell(late.append)
    assert late == told


async def test_a_listener_is_told_of_output_before_the_end(rig: Rig) -> None:
    told: list[Ending | Output | None] = []
    run = rig.run()
    run.tell(told.append)
    rig.guest.says(wire.output(1, b"head"))
    rig.slot._readable()
    _, ends = rig.guest.read()
    rig.guest.says(wire.ended(1, flags=wire.HANDED_OVER))
    rig.slot._readable()
    (output,) = told
    assert isinstance(output, Output)
    assert output.stdout_head == b"head"
    for end in ends:
        os.close(end)
    output.stdout.close()
    output.stderr.close()


async def test_a_listener_is_told_of_a_slot_that_is_lost(rig: Rig) -> None:
    told: list[Ending | Output | None] = []
    rig.run().tell(told.append)
    rig.slot.fail("its guest is gone")
    assert told == [None]


async def test_output_that_nobody_fetched_is_closed_with_the_run(rig: Rig) -> None:
    run = rig.run()
    first = asyncio.create_task(run.first())
    await rig.settle()
    first.cancel()
    out, err = await rig.guest.hands_over(1)
    await rig.settle()
    rig.guest.says(wire.ended(1, flags=wire.HANDED_OVER))
    await rig.settle()
    assert rig.freed == 1
    del run, first
    with pytest.raises(BrokenPipeError):
        os.write(out, b"x")
    os.close(out)
    os.close(err)


# -- the owner's own mistakes are not the guest's


async def test_an_error_of_whoever_hears_of_a_free_slot_does_not_lose_it(no_fd_leaks: FdCheck) -> None:
    rig = Rig().connect()
    raised: list[object] = []
    rig.loop.set_exception_handler(lambda _, context: raised.append(context.get("exception")))

    def freed(_: str, cpu_us: int) -> None:
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
