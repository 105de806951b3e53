"""The ways in which a slot is lost: its guest is gone, takes nothing, or is too slow."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable

import pytest

from scheduler.errors import SlotLost
from scheduler.execution import Output, Work
from sets.executor import protocol, slot
from sets.executor.slot_state import SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck
from tests.sets.executor.scripted import CAT, WAIT_S, Rig


def fill(rig: Rig, message_bytes: int) -> None:
    """Send until the guest's socket is full."""
    assert rig.slot._socket is not None
    with contextlib.suppress(BlockingIOError):
        while True:
            rig.slot._socket.send(bytes(message_bytes))


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


async def test_a_guest_that_does_not_end_a_killed_task(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "KILL_GRACE_S", 0.01)
    run = rig.run()
    run.kill()
    with pytest.raises(SlotLost, match="did not end a killed task in time"):
        async with asyncio.timeout(WAIT_S):
            await run.ending()
    assert rig.lost == ["its guest did not end a killed task in time"]


@pytest.mark.parametrize("state", ["idle", "running", "handed over", "cleaning"])
@pytest.mark.parametrize("how", ["gone", "misbehaves", "retired", "failed"])
async def test_lost_in_each_state(rig: Rig, state: str, how: str) -> None:
    run = None
    out = err = -1
    if state != "idle":
        run = rig.run(Work(argv=(b"cat",), stdin=None))
    if state == "handed over":
        out, err = await rig.guest.hands_over(1)
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
    """A guest that waits for a task has read everything before it; one that has not is broken."""
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


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (a timer of the slot's own)
            await asyncio.sleep(0.005)
