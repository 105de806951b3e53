"""Pipes: back-pressure, ends, cancelled waits, and descriptors that belong to somebody else after a close."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import selectors
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler.source import OpenFile
from sets.executor.pipes import PIPE_BYTES, PipeReader, PipeWriter, enlarge
from tests.scheduler.fakes import Elsewhere
from tests.sets.executor.conftest import FdCheck

WAIT_S = 60.0


@pytest.fixture
async def loop(no_fd_leaks: FdCheck) -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def settle() -> None:
    """Let everything that is ready run, and the loop look at its descriptors."""
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


def is_waiting(task: asyncio.Task[object]) -> bool:
    return not task.done()


async def test_bytes_arrive_in_order_and_then_the_end(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader, writer = PipeReader(loop, far), PipeWriter(loop, near)
    await writer.write(b"one ")
    await writer.write(b"")
    await writer.write(b"two")
    assert await reader.read() == b"one two"
    writer.close()
    assert await reader.read() == b""
    assert await reader.read() == b""
    reader.close()


async def test_a_reader_waits_for_bytes(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    for data in (b"first", b"second"):
        reading = asyncio.create_task(reader.read())
        await settle()
        assert is_waiting(reading)
        os.write(near, data)
        async with asyncio.timeout(WAIT_S):
            assert await reading == data
    os.close(near)
    assert await reader.read() == b""
    reader.close()


async def test_a_full_pipe_holds_the_writer_back(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    writer = PipeWriter(loop, near)
    data = os.urandom(3 << 20)
    writing = asyncio.create_task(writer.write(data))
    await settle()
    assert is_waiting(writing)
    got = bytearray()
    async with asyncio.timeout(WAIT_S):
        while len(got) < len(data):
            got += os.read(far, 10_000)
            await asyncio.sleep(0)
        await writing
    assert got == data
    writer.close()
    assert os.read(far, 1) == b""
    os.close(far)


async def test_a_writer_whose_pipe_holds_little_writes_all_the_same(loop: asyncio.AbstractEventLoop) -> None:
    """As when other programs of the user have used up their share of pipe memory."""
    far, near = os.pipe()
    fcntl.fcntl(near, fcntl.F_SETPIPE_SZ, 4096)
    reader, writer = PipeReader(loop, far), PipeWriter(loop, near)
    data = os.urandom(300_001)
    writing = asyncio.create_task(writer.write(data))
    got = bytearray()
    async with asyncio.timeout(WAIT_S):
        while len(got) < len(data):
            got += await reader.read()
        await writing
    assert got == data
    writer.close()
    reader.close()


@pytest.mark.parametrize("end", ["write", "send"])
async def test_nobody_reads_any_more(loop: asyncio.AbstractEventLoop, end: str, tmp_path: Path) -> None:
    far, near = os.pipe()
    writer = PipeWriter(loop, near)
    (tmp_path / "input").write_bytes(bytes(4 << 20))
    source = OpenFile(os.open(tmp_path / "input", os.O_RDONLY))
    work = writer.write(bytes(4 << 20)) if end == "write" else writer.send(source)
    writing = asyncio.create_task(work)
    await settle()
    assert is_waiting(writing)
    os.close(far)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(BrokenPipeError):
            await writing
        with pytest.raises(BrokenPipeError):
            await writer.write(b"more")
    writer.close()
    source.close()


async def test_close_wakes_a_waiting_reader(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    reading = asyncio.create_task(reader.read())
    await settle()
    reader.close()
    reader.close()
    async with asyncio.timeout(WAIT_S):
        assert await reading == b""
    assert await reader.read() == b""
    os.close(near)


@pytest.mark.parametrize("end", ["write", "send"])
async def test_close_wakes_a_waiting_writer(
    loop: asyncio.AbstractEventLoop, end: str, tmp_path: Path
) -> None:
    far, near = os.pipe()
    writer = PipeWriter(loop, near)
    (tmp_path / "input").write_bytes(bytes(4 << 20))
    source = OpenFile(os.open(tmp_path / "input", os.O_RDONLY))
    work = writer.write(bytes(4 << 20)) if end == "write" else writer.send(source)
    writing = asyncio.create_task(work)
    await settle()
    assert is_waiting(writing)
    writer.close()
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(BrokenPipeError):
            await writing
    with pytest.raises(BrokenPipeError):
        await writer.write(b"x")
    with pytest.raises(BrokenPipeError):
        await writer.send(source)
    os.close(far)
    source.close()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_closed_number_that_another_file_took_is_never_touched(
    loop: asyncio.AbstractEventLoop, cancelled: bool
) -> None:
    """Close while a reader waits, give the number to another pipe that the loop watches too: that one stays whole."""
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    reading = asyncio.create_task(reader.read())
    await settle()
    if cancelled:
        # Cancelled, but not yet told so: what it does when it wakes comes after the number's change of hands.
        reading.cancel()
    reader.close()
    other_far, other_near = os.pipe()
    assert far in (other_far, other_near), "the kernel gives out the lowest free number"
    other = PipeReader(loop, other_far)
    other_reading = asyncio.create_task(other.read())
    await asyncio.gather(reading, return_exceptions=True)
    await settle()
    reader.close()
    del reader
    assert is_waiting(other_reading)
    os.write(other_near, b"for the other")
    async with asyncio.timeout(WAIT_S):
        assert await other_reading == b"for the other"
    other.close()
    os.close(other_near)
    os.close(near)


async def test_a_dropped_end_is_closed_once(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    del reader
    with pytest.raises(BrokenPipeError):
        os.write(near, b"x")
    os.close(near)
    far, near = os.pipe()
    writer = PipeWriter(loop, near)
    writer.close()
    taken = os.open("/dev/null", os.O_RDONLY)
    assert taken == near
    del writer
    assert os.read(taken, 1) == b""
    os.close(taken)
    os.close(far)


async def test_cancelled_waits_leave_nothing_registered(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader, writer = PipeReader(loop, far), PipeWriter(loop, near)
    reading: asyncio.Task[object] = asyncio.create_task(reader.read())
    await settle()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert not loop.remove_reader(far)

    writing: asyncio.Task[object] = asyncio.create_task(writer.write(bytes(2 << 20)))
    await settle()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert not loop.remove_writer(near)

    # Both ends still work.
    held = 0
    while held < PIPE_BYTES and (chunk := await reader.read()):
        held += len(chunk)
        os.set_blocking(far, False)
        try:
            selector = selectors.DefaultSelector()
            selector.register(far, selectors.EVENT_READ)
            if not selector.select(0):
                break
        finally:
            selector.close()
    await writer.write(b"after")
    assert await reader.read() == b"after"
    reader.close()
    writer.close()


async def test_two_waiters_on_one_end_are_a_bug_that_raises(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    first = asyncio.create_task(reader.read())
    await settle()
    with pytest.raises(RuntimeError, match="two coroutines"):
        await reader.read()
    os.write(near, b"x")
    async with asyncio.timeout(WAIT_S):
        assert await first == b"x"
    reader.close()
    os.close(near)


# -- the end of a pipe whose write end somebody still holds


async def test_complete_ends_a_pipe_that_is_held_open(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    os.write(near, b"all there is")
    reader.complete()
    assert await reader.read() == b"all there is"
    async with asyncio.timeout(WAIT_S):
        assert await reader.read() == b""
    reader.close()
    os.close(near)


async def test_complete_wakes_a_waiting_reader(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    reading = asyncio.create_task(reader.read())
    await settle()
    reader.complete()
    async with asyncio.timeout(WAIT_S):
        assert await reading == b""
    reader.close()
    reader.complete()
    os.close(near)


async def test_complete_loses_no_byte_that_came_at_the_same_moment(loop: asyncio.AbstractEventLoop) -> None:
    far, near = os.pipe()
    reader = PipeReader(loop, far)
    reading = asyncio.create_task(reader.read())
    await settle()
    os.write(near, b"last words")
    reader.complete()
    async with asyncio.timeout(WAIT_S):
        assert await reading == b"last words"
        assert await reader.read() == b""
    reader.close()
    os.close(near)


# -- files


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, PIPE_BYTES, 5 * PIPE_BYTES + 17])
async def test_send(loop: asyncio.AbstractEventLoop, tmp_path: Path, size: int, here: bool) -> None:
    data = os.urandom(size)
    path = tmp_path / "input"
    path.write_bytes(data)
    far, near = os.pipe()
    reader, writer = PipeReader(loop, far), PipeWriter(loop, near)
    source = OpenFile(os.open(path, os.O_RDONLY)) if here else Elsewhere(data)

    async def send() -> None:
        await writer.send(source)
        writer.close()

    sending = asyncio.create_task(send())
    got = bytearray()
    async with asyncio.timeout(WAIT_S):
        while chunk := await reader.read():
            got += chunk
        await sending
    assert got == data
    if isinstance(source, OpenFile):
        assert os.lseek(source.fileno(), 0, os.SEEK_CUR) == 0
    source.close()
    reader.close()


async def test_a_file_shorter_than_said(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"shortened")
    far, near = os.pipe()
    writer = PipeWriter(loop, near)
    source = OpenFile(os.open(path, os.O_RDONLY))
    os.truncate(path, 5)
    with pytest.raises(OSError, match="ends after 5 of 9 bytes"):
        await writer.send(source)
    source.close()
    os.close(far)
    writer.close()


# -- much


async def test_large_transfers_arrive_intact(loop: asyncio.AbstractEventLoop) -> None:
    pipes = [os.pipe() for _ in range(4)]
    block = os.urandom(1 << 20)
    blocks = 24

    async def write(fd: int) -> None:
        writer = PipeWriter(loop, fd)
        for number in range(blocks):
            await writer.write(block[number:] + block[:number])
        writer.close()

    async def read(fd: int) -> str:
        reader = PipeReader(loop, fd)
        enlarge(fd)
        hashed = hashlib.blake2b()
        while chunk := await reader.read():
            hashed.update(chunk)
        reader.close()
        return hashed.hexdigest()

    wanted = hashlib.blake2b()
    for number in range(blocks):
        wanted.update(block[number:] + block[:number])
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        reads = [group.create_task(read(far)) for far, _ in pipes]
        for _, near in pipes:
            group.create_task(write(near))
    assert [each.result() for each in reads] == [wanted.hexdigest()] * len(pipes)


async def test_enlarge_is_a_wish(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    far, near = os.pipe()
    enlarge(near)
    assert fcntl.fcntl(near, fcntl.F_GETPIPE_SZ) == PIPE_BYTES

    def refuse(*_: object) -> Callable[..., int]:
        raise PermissionError

    monkeypatch.setattr("sets.executor.pipes.fcntl.fcntl", refuse)
    enlarge(near)
    os.close(far)
    os.close(near)
