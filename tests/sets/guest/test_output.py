"""What a program writes: in one message, handed over, streamed, and never a byte lost."""

from __future__ import annotations

import os
import random
import stat
import time

import pytest

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import (
    ROOT,
    Connection,
    Guest,
    User,
    pattern,
    processes_of,
    read_and_close,
    stderr_pattern,
    wait_readable,
)

Started = tuple[Guest, Connection]
MOST = wire.BODY_BYTES


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [(0, 0), (1, 0), (0, 1), (MOST, 0), (0, MOST), (MOST, MOST), (4096, 4097)],
)
def test_output_that_fits_comes_in_one_message(
    guest: Started, actor: bytes, stdout: int, stderr: int
) -> None:
    _, connection = guest
    for seed in range(3):
        result = connection.run(actor, b"write", b"%d" % seed, b"%d" % stdout, b"%d" % stderr)
        assert result.handed_over is False
        assert result.end == (wire.EXITED, 0)
        assert result.stdout == pattern(stdout)
        assert result.stderr == stderr_pattern(stderr)


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        (MOST + 1, 0),
        (0, MOST + 1),
        (MOST, MOST + 1),
        (65_536, 65_536),
        (10_000_000, 0),
        (0, 10_000_000),
        (10_000_000, 10_000_000),
    ],
)
def test_output_that_outgrows_a_message_is_handed_over(
    start: StartGuest, actor: bytes, user: User, stdout: int, stderr: int
) -> None:
    _, connection = start(user)
    result = connection.run(actor, b"write", b"1", b"%d" % stdout, b"%d" % stderr)
    assert result.handed_over is True
    assert result.end == (wire.EXITED, 0)
    assert result.stdout == pattern(stdout)
    assert result.stderr == stderr_pattern(stderr)


@pytest.mark.parametrize("seed", range(40))
def test_no_byte_is_lost_whatever_the_sizes(guest: Started, actor: bytes, seed: int) -> None:
    _, connection = guest
    chance = random.Random(seed)
    for _ in range(5):
        stdout, stderr = (
            chance.choice(
                [0, chance.randrange(100), chance.randrange(MOST - 9, MOST + 9), chance.randrange(300_000)]
            )
            for _ in range(2)
        )
        stdin = chance.randbytes(chance.choice([0, 10, 61_440]))
        result = connection.run(
            *(actor, b"write", b"%d" % chance.randrange(1000), b"%d" % stdout, b"%d" % stderr),
            stdin=stdin,
            stream=chance.random() < 0.2,
            pipes=chance.random() < 0.5,
        )
        assert result.end == (wire.EXITED, 0)
        assert result.stdout == pattern(stdout)
        assert result.stderr == stderr_pattern(stderr)


def test_output_that_came_slowly(guest: Started) -> None:
    """Bytes written long before the end, in small pieces."""
    _, connection = guest
    script = b"for i in 1 2 3 4 5; do printf x; sleep 0.02; printf y >&2; done; exit 3"
    result = connection.run(b"/bin/sh", b"-c", script)
    assert (result.end, result.stdout, result.stderr) == ((wire.EXITED, 3), b"xxxxx", b"yyyyy")


def test_streaming_hands_over_before_the_end(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([actor, b"pause"], stream=True)
    stdout, stderr, out_fd, err_fd = connection.output()
    assert (stdout, stderr) == (b"", b"")
    wait_readable(out_fd)
    assert os.read(out_fd, 100) == b"ready"
    connection.send(wire.head(wire.KILL, connection.number))
    ended = connection.finish_exit()
    assert ended.flags == wire.HANDED_OVER | wire.KILLED
    assert os.read(out_fd, 1) == b""
    assert os.read(err_fd, 1) == b""
    os.close(out_fd)
    os.close(err_fd)


def test_a_reader_who_goes_away_ends_the_program(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([actor, b"pour"])
    _, _, out_fd, err_fd = connection.output()
    os.close(out_fd)
    os.close(err_fd)
    ended = connection.finish_exit()
    assert (ended.how, ended.code) == (wire.SIGNALLED, 13)


def test_a_program_that_closes_its_output_and_works_on(guest: Started, actor: bytes) -> None:
    _, connection = guest
    result = connection.run(actor, b"half", b"50")
    assert (result.end, result.stdout, result.stderr) == ((wire.EXITED, 0), b"before", b"after")
    assert result.exit.wall_us >= 50_000


def test_a_program_that_reads_its_own_output(guest: Started, actor: bytes) -> None:
    """It loses what it takes; it cannot make the guest wait."""
    _, connection = guest
    for _ in range(3):
        assert connection.run(actor, b"steal").end == (wire.EXITED, 0)
    assert connection.run(actor, b"cat", stdin=b"x").stdout == b"x"


def test_outputs_are_pipes_that_nobody_used_before(guest: Started) -> None:
    _, connection = guest
    script = b"stat -Lc %f /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; chmod 777 /proc/self/fd/1"
    for _ in range(2):
        modes = connection.run(b"/bin/sh", b"-c", script).stdout.split()
        assert modes == [b"%x" % (stat.S_IFIFO | 0o600)] * 3


def test_output_files(start: StartGuest, actor: bytes, user: User) -> None:
    guest, connection = start(user)
    place = guest.place()
    unreadable = 13  # EACCES, even for root: a slot has no capabilities
    wanted: list[tuple[bytes, bytes | int]] = [
        (b"/regular", b"content"),
        (b"/link", 40),
        (b"/fifo", 22),
        (b"/folder", 22),
        (b"/missing", 2),
        (b"/linked/inner", 40),
        (b"/folder/inner", b""),
        (b"/folder/../regular", b"content"),
        (b"/regular/x", 20),
        (b"/secret", unreadable),
        (b"/folder/", 2),
    ]
    result = connection.run(actor, b"outputs", place, files=[place + name for name, _ in wanted])
    assert result.end == (wire.EXITED, 0)
    assert dict(zip([name for name, _ in wanted], result.files, strict=True)) == dict(wanted)
    assert result.cleaned == (True, 0)


def test_output_files_are_no_way_into_the_guest(start: StartGuest, user: User) -> None:
    _, connection = start(user, env=["OTHER_TOKEN=secret"])
    kernels = [
        b"/proc/1/environ",
        b"/proc/1/mem",
        b"/proc/1/maps",
        b"/sys/kernel/notes",
        b"/proc/version",
    ]
    links = [b"/proc/self/fd/3", b"/proc/self/cwd", b"/proc/self/root/etc/passwd", b"/proc/1/exe"]
    result = connection.run(
        b"/bin/true", files=[*kernels, *links, b"/etc/passwd", b"/", b"/dev/null", b"//etc/passwd"]
    )
    assert result.files[: len(kernels)] == [22] * len(kernels)
    assert all(errno in (2, 22, 40) for errno in result.files[len(kernels) : len(kernels) + len(links)])
    assert isinstance(result.files[-4], bytes)
    assert result.files[-3:] == [2, 22, 2]


def test_output_files_of_what_was_not_executed_or_was_killed(start: StartGuest, actor: bytes) -> None:
    guest, connection = start(ROOT)
    assert connection.run(b"/nowhere", files=[guest.place() + b"/x"]).files == [2]
    script = b"echo made > %s/x; exec %s pause" % (guest.place(), actor)
    connection.begin([b"/bin/sh", b"-c", script], files=[guest.place() + b"/x"], stream=True)
    _, _, out_fd, err_fd = connection.output()
    wait_readable(out_fd)
    connection.send(wire.head(wire.KILL, connection.number))
    assert wire.read_exit(connection.receive()).files == (5,)
    # A KILL that the end overtook changes nothing.
    connection.send(wire.head(wire.KILL, connection.number))
    assert connection.read_file(0, 5) == b"made\n"
    connection.send(wire.head(wire.RELEASE, connection.number))
    assert wire.read_cleaned(connection.receive()) == (True, 0)
    assert list(guest.inside(connection).iterdir()) == []
    assert connection.run(b"/bin/true").end == (wire.EXITED, 0)
    for fd in (out_fd, err_fd):
        os.close(fd)


def test_the_most_output_files(start: StartGuest) -> None:
    guest, connection = start(ROOT)
    names = [guest.place() + b"/%d" % i for i in range(64)]
    script = b'for i in "$@"; do echo "$i" > "$i"; done'
    result = connection.run(b"/bin/sh", b"-c", script, b"sh", *names, files=names)
    assert result.files == [name + b"\n" for name in names]


LARGE = 3_000_000
MAKE = b"head -c %d /dev/zero | tr '\\0' x > $1; printf abc > $2"


def begin_with_files(connection: Connection, place: bytes) -> wire.Exit:
    """Run a program that leaves a large file and a small one, and ask for both."""
    names = [place + b"/large", place + b"/small"]
    connection.begin([b"/bin/sh", b"-c", MAKE % LARGE, b"sh", *names], files=names)
    ended = wire.read_exit(connection.receive())
    assert ended.files == (LARGE, 3)
    assert ended.flags == wire.CLEANING
    return ended


def release(connection: Connection) -> None:
    connection.send(wire.head(wire.RELEASE, connection.number))
    assert wire.read_cleaned(connection.receive()) == (True, 0)


def test_files_are_read_in_parts_together_and_again(start: StartGuest, user: User) -> None:
    guest, connection = start(user)
    begin_with_files(connection, guest.place())
    # Nobody reads the large one yet, and more of it is there than its pipe holds.
    large = connection.ask_for(0, 0, LARGE)
    assert connection.read_file(1, 3) == b"abc"
    assert read_and_close(connection.ask_for(1, 1, 1)) == b"b"
    assert read_and_close(connection.ask_for(1, 3, 0)) == b""
    assert read_and_close(large) == b"x" * LARGE
    assert read_and_close(connection.ask_for(0, LARGE - 7, 7)) == b"x" * 7
    release(connection)
    assert list(guest.inside(connection).iterdir()) == []


def test_a_new_request_for_a_file_ends_the_one_before(guest: Started) -> None:
    started, connection = guest
    begin_with_files(connection, started.place())
    first = connection.ask_for(0, 0, LARGE)
    wait_readable(first)
    assert read_and_close(connection.ask_for(0, 0, 9)) == b"x" * 9
    assert len(read_and_close(first)) < LARGE
    release(connection)


def test_a_reader_of_a_file_who_goes_away_and_files_that_nobody_reads(guest: Started) -> None:
    started, connection = guest
    begin_with_files(connection, started.place())
    os.close(connection.ask_for(0, 0, LARGE))
    held = connection.ask_for(0, 0, LARGE)
    release(connection)
    assert len(read_and_close(held)) < LARGE
    begin_with_files(connection, started.place())
    release(connection)
    assert connection.run(b"/bin/true").end == (wire.EXITED, 0)


def test_an_executor_that_is_lost_while_files_are_read(guest: Started) -> None:
    started, connection = guest
    begin_with_files(connection, started.place())
    held = connection.ask_for(0, 0, LARGE)
    connection.socket.close()
    again = started.listener.greet()
    assert len(read_and_close(held)) < LARGE
    assert list(started.inside(again).iterdir()) == []
    assert again.run(b"/bin/true").end == (wire.EXITED, 0)
    again.close()


@pytest.mark.parametrize(
    "message",
    [
        wire.read(1, 2, 0, 1),
        wire.read(1, 0, 0, LARGE + 1),
        wire.read(1, 0, LARGE + 1, 0),
        wire.read(1, 1, 2, 2**64 - 1),
        wire.read(1, 1, 0, 1, reserved=1),
        wire.read(2, 1, 0, 1),
        wire.read(1, 1, 0, 1)[:-1],
        wire.head(wire.PIPES, 1),
    ],
    ids=[
        "no such file",
        "too many bytes",
        "beyond the end",
        "lengths that wrap around",
        "reserved",
        "of another task",
        "short",
        "pipes",
    ],
)
def test_malformed_requests_for_files(start: StartGuest, message: bytes) -> None:
    guest, connection = start(ROOT)
    begin_with_files(connection, guest.place())
    connection.send(message, [1])
    assert guest.ended() == 4


@pytest.mark.parametrize(
    "message", [wire.read(1, 1, 0, 1), wire.head(wire.RELEASE, 2), wire.task(2, [b"/x"])]
)
def test_malformed_messages_while_files_are_read(start: StartGuest, message: bytes) -> None:
    guest, connection = start(ROOT)
    begin_with_files(connection, guest.place())
    connection.send(message)
    assert guest.ended() == 4


def test_retire_while_files_are_read(start: StartGuest) -> None:
    guest, connection = start(ROOT)
    begin_with_files(connection, guest.place())
    connection.send(wire.head(wire.RETIRE))
    assert guest.ended() == 0


def test_the_rest_waits_for_a_slow_reader_until_the_task_is_killed(guest: Started, actor: bytes) -> None:
    """A program has ended that wrote more than the executor's pipe holds, and nobody reads it."""
    _, connection = guest
    for kills in (True, False):
        connection.begin([actor, b"write", b"1", b"150000", b"0"])
        head, _, out_fd, err_fd = connection.output()
        assert head == pattern(MOST)
        if kills:
            wait_readable(out_fd)
            connection.send(wire.head(wire.KILL, connection.number))
            ended = connection.finish_exit()
            assert ended.flags == wire.HANDED_OVER | wire.KILLED
            rest = read_and_close(out_fd)
            assert pattern(150_000)[MOST:].startswith(rest)
        else:
            assert read_and_close(out_fd) == pattern(150_000)[MOST:]
            assert connection.finish_exit().flags == wire.HANDED_OVER
        os.close(err_fd)


def test_outputs_end_before_exit_though_a_program_parked_them(guest: Started) -> None:
    """Its stdout is in a message that nobody receives; the executor's pipe ends all the same."""
    _, connection = guest
    script = (
        b"import array, os, socket, sys\n"
        b"a, b = socket.socketpair()\n"
        b"b.sendmsg([b'x'], [(1, 1, array.array('i', [1]))])\n"
        b"sys.stdout.write('y' * 100000)\n"
    )
    result = connection.run(b"/usr/bin/env", b"python3", b"-c", script)
    assert result.handed_over
    assert result.stdout == b"y" * 100_000


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("stdout", "stderr"), [(0, 0), (MOST, 100), (MOST + 1, 0), (10_000_000, 1_000_000)])
def test_pipes_that_come_with_the_task_are_the_program_s(
    start: StartGuest, actor: bytes, user: User, stdout: int, stderr: int, stream: bool
) -> None:
    _, connection = start(user)
    for _ in range(2):
        result = connection.run(
            actor, b"write", b"1", b"%d" % stdout, b"%d" % stderr, pipes=True, stream=stream
        )
        assert result.handed_over is (stream or max(stdout, stderr) > MOST)
        assert (result.end, result.stdout, result.stderr) == (
            (wire.EXITED, 0),
            pattern(stdout),
            stderr_pattern(stderr),
        )


def test_a_program_opens_the_pipes_that_came_with_its_task_by_name(start: StartGuest, user: User) -> None:
    _, connection = start(user)
    result = connection.run(b"/bin/sh", b"-c", b"echo a > /dev/stdout; echo b > /dev/stderr", pipes=True)
    assert (result.stdout, result.stderr) == (b"a\n", b"b\n")


def test_a_reader_who_goes_away_ends_a_program_with_pipes_of_its_own(guest: Started, actor: bytes) -> None:
    _, connection = guest
    connection.begin([actor, b"pour"], pipes=True)
    _, _, out_fd, err_fd = connection.output()
    os.close(out_fd)
    os.close(err_fd)
    ended = connection.finish_exit()
    assert (ended.how, ended.code) == (wire.SIGNALLED, 13)


def test_pipes_that_come_for_a_waiting_program_take_what_it_writes(guest: Started, actor: bytes) -> None:
    """It has pipes of its own already; those of its task are filled from them."""
    _, connection = guest
    argv = [b"/bin/sh", b"-c", b"read line; head -c 300000 /dev/zero"]
    for prestarted in (False, True):
        result = connection.run(*argv, stdin=b"go\n", pipes=True, flags=wire.PRESTART)
        assert bool(result.exit.flags & wire.PRESTARTED) is prestarted
        assert (result.handed_over, result.stdout) == (True, bytes(300_000))
        for _ in range(2000):
            if len(processes_of(connection.pid)) > 1:
                break
            time.sleep(0.01)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_another_number_of_pipes_than_announced(start: StartGuest, count: int) -> None:
    guest, connection = start(ROOT)
    connection.send(wire.task(1, [b"/bin/true"], flags=wire.OUTPUT_FDS), [1] * count)
    assert guest.ended() == 4


@pytest.mark.parametrize("pipes", [False, True])
def test_output_is_handed_over_as_soon_as_somebody_follows(guest: Started, actor: bytes, pipes: bool) -> None:
    """What was written before, and what comes then; a second SHOW, and one for another task, change nothing."""
    _, connection = guest
    read_end, write_end = os.pipe()
    script = b"echo first; read line; echo $line; echo warned >&2; exit 3"
    connection.begin([b"/bin/sh", b"-c", script], stdin_fd=read_end, pipes=pipes)
    os.close(read_end)
    connection.send(wire.head(wire.SHOW, connection.number + 1))
    connection.send(wire.head(wire.SHOW, connection.number))
    stdout, stderr, out_fd, err_fd = connection.output()
    while not stdout.endswith(b"\n"):
        wait_readable(out_fd)
        stdout += os.read(out_fd, 100)
    assert (stdout, stderr) == (b"first\n", b"")
    connection.send(wire.head(wire.SHOW, connection.number))
    os.write(write_end, b"second\n")
    os.close(write_end)
    ended = connection.finish_exit()
    assert (ended.flags, ended.how, ended.code) == (wire.HANDED_OVER, wire.EXITED, 3)
    assert (read_and_close(out_fd), read_and_close(err_fd)) == (b"second\n", b"warned\n")
    connection.send(wire.head(wire.SHOW, connection.number))
    assert connection.run(actor, b"exit", b"4").end == (wire.EXITED, 4)
