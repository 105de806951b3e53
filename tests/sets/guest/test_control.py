"""What an executor may say, and what the guest makes of anything else: kill, retire, reconnect, refuse."""

from __future__ import annotations

import os
import struct
import threading

import pytest

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import WORKER, Connection, Guest, User, processes_of, wait_readable

Started = tuple[Guest, Connection]


def begin_pausing(connection: Connection, actor: bytes) -> tuple[int, int]:
    """A program that runs, surely, until it is killed; its stdout and stderr."""
    connection.begin([actor, b"pause"], stream=True)
    _, _, out_fd, err_fd = connection.output()
    wait_readable(out_fd)
    assert os.read(out_fd, 100) == b"ready"
    return out_fd, err_fd


def test_kill(start: StartGuest, actor: bytes, user: User) -> None:
    _, connection = start(user)
    for _ in range(3):
        fds = begin_pausing(connection, actor)
        connection.send(wire.head(wire.KILL, connection.number))
        ended = connection.finish_exit()
        assert ended.flags == wire.HANDED_OVER | wire.KILLED
        assert (ended.how, ended.code) == (wire.SIGNALLED, 9)
        for fd in fds:
            os.close(fd)
    assert connection.run(actor, b"exit", b"2").end == (wire.EXITED, 2)


def test_kill_of_a_program_that_is_not_streamed(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([actor, b"pause"])
    connection.send(wire.head(wire.KILL, connection.number))
    result = connection.finish()
    assert result.exit.flags == wire.KILLED
    assert result.end == (wire.SIGNALLED, 9)


def test_kill_of_a_whole_tree(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([b"/bin/sh", b"-c", b"%s pause & %s pause & wait" % (actor, actor)], stream=True)
    _, _, out_fd, err_fd = connection.output()
    got = b""
    while got != b"readyready":
        wait_readable(out_fd)
        got += os.read(out_fd, 100)
    connection.send(wire.head(wire.KILL, connection.number))
    connection.finish_exit()
    assert processes_of(connection.pid) == [connection.pid]
    os.close(out_fd)
    os.close(err_fd)


def test_kill_that_comes_late_or_is_meant_for_another(guest: Started, actor: bytes) -> None:
    _, connection = guest
    assert connection.run(actor, b"exit", b"1").end == (wire.EXITED, 1)
    connection.send(wire.head(wire.KILL, 1))
    connection.send(wire.head(wire.KILL, 77))
    fds = begin_pausing(connection, actor)
    connection.send(wire.head(wire.KILL, 1))
    connection.send(wire.head(wire.KILL, 3))
    script = b"sleep 0.05; exit 4"
    connection.send(wire.head(wire.KILL, connection.number))
    assert connection.finish_exit().flags == wire.HANDED_OVER | wire.KILLED
    for fd in fds:
        os.close(fd)
    connection.begin([b"/bin/sh", b"-c", script])
    connection.send(wire.head(wire.KILL, 2))
    result = connection.finish()
    assert (result.end, result.exit.flags) == ((wire.EXITED, 4), 0)


def test_kill_gets_through_a_flood_of_signals(guest: Started) -> None:
    """The program may send process 1 the signal that the guest waits for."""
    _, connection = guest
    connection.begin([b"/bin/sh", b"-c", b"while :; do kill -CHLD 1; done"])
    connection.send(wire.head(wire.KILL, connection.number))
    assert connection.finish().exit.flags == wire.KILLED


def test_kill_of_a_program_that_pours(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([actor, b"pour"])
    stdout, _, out_fd, err_fd = connection.output()
    assert len(stdout) == wire.BODY_BYTES
    connection.send(wire.head(wire.KILL, connection.number))
    assert connection.finish_exit().flags == wire.HANDED_OVER | wire.KILLED
    os.close(out_fd)
    os.close(err_fd)


def test_retire(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user)
    connection.run(actor, b"exit", b"0")
    connection.send(wire.head(wire.RETIRE))
    assert guest.ended() == 0


def test_retire_while_a_program_runs(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user)
    out_fd, err_fd = begin_pausing(connection, actor)
    connection.send(wire.head(wire.RETIRE))
    assert guest.ended() == 0
    assert os.read(out_fd, 1) == b""
    os.close(out_fd)
    os.close(err_fd)


@pytest.mark.parametrize("stream", [False, True])
def test_a_lost_executor_ends_the_program(start: StartGuest, actor: bytes, user: User, stream: bool) -> None:
    guest, connection = start(user)
    script = b"echo left > %s/left; %s daemon %s/daemon; exec %s pause" % (
        guest.place(),
        actor,
        guest.place(),
        actor,
    )
    read_end, write_end = os.pipe()
    connection.begin([b"/bin/sh", b"-c", script], stream=stream, stdin_fd=read_end)
    os.close(read_end)
    if stream:
        _, _, out_fd, err_fd = connection.output()
        wait_readable(out_fd)
        os.close(err_fd)
        os.close(out_fd)
    connection.close()
    again = guest.listener.greet()
    assert again.pid == connection.pid
    assert processes_of(again.pid) == [again.pid]
    assert list(guest.inside(again).iterdir()) == []
    os.close(write_end)
    # Numbers begin again with each connection.
    result = again.run(actor, b"fds")
    assert (result.end, result.stdout, result.exit.task) == ((wire.EXITED, 0), b"0 1 2 ", 1)
    again.close()


def test_an_executor_that_comes_back_later(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(WORKER)
    guest.listener.stop()
    connection.close()
    guest.process.poll()
    guest.listener.open()
    again = guest.listener.greet()
    assert again.run(actor, b"exit", b"9").end == (wire.EXITED, 9)
    again.close()


def test_an_executor_that_refuses_is_asked_again(start: StartGuest) -> None:
    guest, connection = start(WORKER)
    connection.close()
    for _ in range(4):
        guest.listener.greet().close()
    guest.listener.greet().close()


def test_a_slow_executor_is_waited_for(guest: Started, actor: bytes) -> None:
    """More messages than its socket holds: KILLs are read meanwhile by nobody, and nothing is lost."""
    _, connection = guest
    for _ in range(2):
        connection.begin([actor, b"write", b"1", b"61440", b"61440"])
        timer = threading.Event()
        timer.wait(0.05)
        result = connection.finish()
        assert len(result.stdout) == len(result.stderr) == 61_440


def task_message(**changes: int) -> bytes:
    """A good TASK, but for some fields: running it would leave a mark."""
    strings = b"/bin/touch\0MARK\0A=b\0/file\0"
    fields = {
        "type": wire.TASK,
        "flags": 0,
        "reserved": 0,
        "task": 1,
        "argc": 2,
        "envc": 1,
        "filec": 1,
        "reserved2": 0,
        "strings_len": len(strings),
        "stdin_len": 3,
        **changes,
    }
    return struct.pack("<BBHIHHHHII", *fields.values()) + strings + b"abc"


GOOD = task_message()
MALFORMED = {
    "one byte": b"\1",
    "half a head": wire.head(wire.KILL)[:7],
    "an unknown type": wire.head(4),
    "type 0": wire.head(0),
    "a message of the guest's own": wire.head(wire.HELLO),
    "a head alone": GOOD[:8],
    "cut in the counts": GOOD[:23],
    "cut by a byte": GOOD[:-1],
    "a byte too much": GOOD + b"x",
    "an unknown flag": task_message(flags=16),
    "pipes promised": task_message(flags=wire.OUTPUT_FDS),
    "pipes that nobody asked for": wire.head(wire.PIPES),
    "a READ of no file": wire.read(0, 0, 0, 0),
    "a RELEASE of nothing": wire.head(wire.RELEASE),
    "reserved head": task_message(reserved=1),
    "reserved counts": task_message(reserved2=1),
    "not the next number": task_message(task=2),
    "number 0": task_message(task=0),
    "no arguments": task_message(argc=0, envc=3),
    "more arguments than strings": task_message(argc=3),
    "fewer files than strings": task_message(filec=0),
    "more files than strings": task_message(filec=2),
    "strings beyond the message": task_message(strings_len=1000),
    "strings into the input": task_message(strings_len=27, stdin_len=2),
    "lengths that wrap around": task_message(strings_len=0xFFFFFFF0, stdin_len=len(GOOD)),
    "a descriptor promised": task_message(flags=wire.STDIN_FD, stdin_len=0),
    "a variable without =": wire.task(1, [b"/bin/touch", b"MARK"], [b"NOVALUE"]),
    "a variable without name": wire.task(1, [b"/bin/touch", b"MARK"], [b"=value"]),
    "a relative file": wire.task(1, [b"/bin/touch", b"MARK"], [], [b"file"]),
    "too many strings": wire.task(1, [b"/bin/touch", b"MARK", *([b""] * 8191)]),
    "too many files": wire.task(1, [b"/bin/touch", b"MARK"], [], [b"/x"] * 65),
    "too long strings": wire.task(1, [b"/bin/touch", b"MARK", b"x" * 69_608]),
    "too long an input": wire.task(1, [b"/bin/touch", b"MARK"], stdin=bytes(61_441)),
    "longer than any message": wire.task(1, [b"/bin/touch", b"MARK", b"x" * 60_000], stdin=bytes(80_000)),
    "a KILL with a body": wire.head(wire.KILL) + b"x",
    "a KILL with flags": wire.head(wire.KILL, flags=1),
    "a RETIRE with a body": wire.head(wire.RETIRE) + b"x",
    "a RETIRE with reserved bits": wire.head(wire.RETIRE, reserved=1),
}


def test_the_message_that_is_spoilt_is_good_by_itself(start: StartGuest) -> None:
    guest, connection = start(WORKER, cwd="tmp")
    connection.number = 1
    connection.send(GOOD)
    result = connection.finish()
    assert result.end == (wire.EXITED, 0)
    assert result.cleaned == (True, 0)
    assert result.files == [2]
    assert list(guest.inside(connection).iterdir()) == []


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_messages_end_the_guest(start: StartGuest, message: bytes) -> None:
    guest, connection = start(WORKER, cwd="tmp")
    inside = os.open(guest.inside(connection), os.O_RDONLY)
    connection.send(message)
    assert guest.ended() == 4
    assert connection.lost()
    assert os.listdir(inside) == []
    os.close(inside)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_descriptors_that_were_not_announced(start: StartGuest, count: int) -> None:
    guest, connection = start(WORKER)
    connection.send(GOOD, [0] * count)
    assert guest.ended() == 4


@pytest.mark.parametrize("count", [2, 3])
def test_more_descriptors_than_one(start: StartGuest, count: int) -> None:
    guest, connection = start(WORKER)
    connection.send(task_message(flags=wire.STDIN_FD, stdin_len=0)[:-3], [0] * count)
    assert guest.ended() == 4


def test_a_descriptor_beside_inline_input(start: StartGuest) -> None:
    guest, connection = start(WORKER)
    connection.send(task_message(flags=wire.STDIN_FD), [0])
    assert guest.ended() == 4


@pytest.mark.parametrize(
    "message",
    [
        GOOD,
        wire.task(2, [b"/bin/true"]),
        b"\1",
        wire.head(9),
        wire.head(wire.KILL) + b"x",
        wire.head(wire.KILL, flags=2),
        wire.head(wire.PIPES, 1),
        wire.read(1, 0, 0, 1),
        wire.head(wire.RELEASE, 1),
    ],
    ids=[
        "a second task",
        "the next task",
        "one byte",
        "unknown",
        "a KILL with a body",
        "a KILL with flags",
        "PIPES without pipes",
        "a READ before the end",
        "a RELEASE before the end",
    ],
)
def test_malformed_messages_while_a_program_runs(start: StartGuest, actor: bytes, message: bytes) -> None:
    guest, connection = start(WORKER)
    out_fd, err_fd = begin_pausing(connection, actor)
    connection.send(message)
    assert guest.ended() == 4
    assert os.read(out_fd, 1) == b""
    os.close(out_fd)
    os.close(err_fd)


def test_a_kill_with_a_descriptor(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(WORKER)
    begin = begin_pausing(connection, actor)
    connection.send(wire.head(wire.KILL, connection.number), [0])
    assert guest.ended() == 4
    for fd in begin:
        os.close(fd)


@pytest.mark.parametrize(
    ("task", "count"), [(1, 2), (2, 2), (1, 1), (1, 0)], ids=["twice", "of another task", "one", "none"]
)
def test_pipes_out_of_order(start: StartGuest, actor: bytes, task: int, count: int) -> None:
    guest, connection = start(WORKER)
    if task == 1 and count == 2:
        begun: tuple[int, ...] = begin_pausing(connection, actor)
    else:
        connection.begin([actor, b"pause"], stream=True)
        assert wire.read_head(connection.receive()).type == wire.OUTPUT
        begun = ()
    connection.send(wire.head(wire.PIPES, task), [1] * count)
    assert guest.ended() == 4
    for fd in begun:
        os.close(fd)


def test_it_refuses_to_be_anything_but_process_1(guest_binary: os.PathLike[str]) -> None:
    import subprocess

    ended = subprocess.run([guest_binary, "/tmp/socket"], capture_output=True, timeout=10)
    assert ended.returncode == 2
    assert b"PID 1" in ended.stderr
