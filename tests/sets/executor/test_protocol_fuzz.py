"""Any bytes from a guest, with any descriptors, in any order, are either understood or lose the slot, and do nothing
else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler.errors import SlotLost
from scheduler.execution import NoFile, Output, Work
from sets.executor import protocol
from sets.executor.protocol import ExitMessage, ProtocolError, UnfitMessage
from sets.executor.run import SlotRun
from sets.executor.slot_state import SlotState
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck
from tests.sets.executor.scripted import Rig
from tests.sets.executor.test_protocol import EXITS, MESSAGES

KINDS = st.sampled_from([0, 1, *range(15, 24), 255])
ANY_BYTES = st.binary(max_size=300) | st.builds(
    lambda kind, flags, task, body: wire.head(kind, task, flags) + body,
    KINDS,
    st.integers(0, 255),
    st.integers(0, 3),
    st.binary(max_size=200),
)


def _mutated(message: bytes, changes: list[tuple[int, int]], size: int) -> bytes:
    """Some bytes changed, those of the lengths and counts above all; cut or with more behind."""
    bytes_now = bytearray(message)
    for at, value in changes:
        bytes_now[at % min(len(bytes_now), 64)] = value
    return bytes(bytes_now[:size]) if size < 1000 else bytes(bytes_now)


MUTATED = st.builds(
    _mutated,
    MESSAGES | st.builds(wire.head, st.just(protocol.UNFIT), st.integers(0, 3)),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 5000),
)


@given(ANY_BYTES | MUTATED)
@settings(max_examples=1500)
@example(b"")
@example(wire.head(protocol.EXIT) + b"\xff" * 200)
@example(wire.head(protocol.OUTPUT) + b"\xff" * 8)
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = protocol.decode(memoryview(data))
    except ProtocolError:
        return
    # What is understood says no more than its bytes did.
    if isinstance(message, ExitMessage):
        assert len(message.stdout) + len(message.stderr) + 8 * len(message.files) == len(data) - 60
    elif isinstance(message, UnfitMessage):
        assert len(data) == 8


# -- a slot whose guest has lost its mind

RIGHT = st.one_of(
    st.builds(wire.output, st.integers(0, 3), st.binary(max_size=9), st.binary(max_size=9)),
    st.builds(
        lambda task, flags, files, body: wire.ended(task, flags=flags, files=files, stdout=body),
        st.integers(0, 3),
        st.integers(0, 15),
        st.lists(st.sampled_from([0, 2, -2]), max_size=3),
        st.binary(max_size=9),
    ),
    st.builds(wire.cleaned, st.integers(0, 3), ok=st.integers(0, 1), error=st.integers(-(2**31), 2**31 - 1)),
    st.builds(wire.head, st.just(protocol.UNFIT), st.integers(0, 3)),
)


DESCRIPTORS = st.sampled_from([[], [], [], [1], [1, 1]])
"""A message with any of them costs the slot, so most have none."""

WORKS = st.sampled_from(
    [
        Work(argv=(b"a",), stdin=b"in"),
        Work(argv=(b"a",), stdin=None),
        Work(argv=(b"a",), stdin=None, prestart=True),
        Work(argv=(b"a",), stdin=b"", outputs=(b"/x", b"/y")),
    ]
)
STEPS = st.lists(
    WORKS
    | st.sampled_from(["kill", "drop", "output", "exit", "exit, dirty", "cleaned", "hears"])
    | st.tuples(RIGHT | EXITS | MUTATED | ANY_BYTES, DESCRIPTORS),
    max_size=10,
)
Step = Work | str | tuple[bytes, list[int]]


def _as_is_right(step: str, run: SlotRun) -> bytes:
    """What a sane guest would say of that task."""
    if step == "output":
        return wire.output(run.number, b"head")
    if step == "cleaned":
        return wire.cleaned(run.number)
    dirty = "dirty" in step or run.file_count
    flags = (wire.HANDED_OVER if run.handed_over else 0) | (wire.CLEANING if dirty else 0)
    return wire.ended(run.number, flags=flags, files=[5] * run.file_count)


def _hear(rig: Rig) -> None:
    """The guest reads a message, if one has come, and answers with bytes what wants some."""
    rig.guest.socket.setblocking(False)
    try:
        _, fds = rig.guest.read()
    except OSError:
        return
    finally:
        rig.guest.socket.setblocking(True)
    for fd in fds:
        with contextlib.suppress(OSError):
            os.write(fd, b"bytes")
        os.close(fd)


async def _use(run: SlotRun) -> None:
    """The caller of a task: feeds it, reads all it gives, closes what it got."""
    with contextlib.suppress(SlotLost):
        if run.stdin is not None:
            # The user of a pipe notices the wrong end.
            with contextlib.suppress(OSError):
                await run.stdin.write(b"input")
            run.stdin.close()
        first = await run.first()
        if isinstance(first, Output):
            for pipe in (first.stdout, first.stderr):
                with contextlib.suppress(OSError):
                    while await pipe.read():
                        pass
                pipe.close()
        ending = await run.ending()
        for file in ending.files:
            if not isinstance(file, NoFile):
                async for _ in file.pieces():
                    pass
        ending.close_files()


async def _converse(steps: list[Step]) -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    rig = Rig().connect()
    users: list[asyncio.Task[None]] = []
    run: SlotRun | None = None
    for step in steps:
        if isinstance(step, Work):
            if rig.slot.state is SlotState.IDLE:
                run = rig.run(step)
                users.append(asyncio.create_task(_use(run)))
        elif step == "kill":
            if run is not None:
                run.kill()
        elif step == "drop":
            run = None
        elif step == "hears":
            _hear(rig)
        elif isinstance(step, tuple) or run is not None:
            if isinstance(step, str):
                assert run is not None
                step = _as_is_right(step, run), []
            message, fds = step
            with contextlib.suppress(BrokenPipeError):
                socket.send_fds(rig.guest.socket, [message], fds)
        await rig.settle()
        assert not failures, failures
        assert rig.slot.state in SlotState
        assert len(rig.lost) == (rig.slot.state is SlotState.LOST)
    run = None
    rig.close()
    async with asyncio.timeout(60):
        await asyncio.gather(*users)
    assert not failures, failures


@given(STEPS)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_conversation_keeps_the_slot_or_loses_it(no_fd_leaks: FdCheck, steps: list[Step]) -> None:
    asyncio.run(_converse(steps))
