"""A program that is started ahead of its task: taken where it fits, gone with all it left where it does not."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sets.guest import wire
from tests.sets.guest.rig import Connection, Guest, Result, processes_of

Started = tuple[Guest, Connection]


def run(
    connection: Connection,
    argv: list[bytes],
    stdin: bytes = b"in",
    *,
    env: Sequence[bytes] = (),
    files: Sequence[bytes] = (),
    flags: int = wire.PRESTART,
) -> Result:
    connection.number += 1
    connection.send(wire.task(connection.number, argv, env, files, stdin, flags))
    return connection.finish()


def waiting(connection: Connection, count: int = 1) -> None:
    """Until that many processes beside the guest live; fails after a while."""
    for _ in range(2000):
        if len(processes_of(connection.pid)) == count + 1:
            return
        time.sleep(0.01)
    raise AssertionError(f"{processes_of(connection.pid)} live, {count} and the guest expected")


def is_prestarted(result: Result) -> bool:
    return bool(result.exit.flags & wire.PRESTARTED)


def test_the_next_alike_task_finds_its_process_started(guest: Started, actor: bytes) -> None:
    _, connection = guest
    assert not is_prestarted(run(connection, [actor, b"cat"], b"one"))
    for body in (b"two", b"", b"x" * 61_440):
        waiting(connection)
        result = run(connection, [actor, b"cat"], body)
        assert is_prestarted(result)
        assert (result.stdout, result.end) == (body, (wire.EXITED, 0))


def begin_with_a_pipe(connection: Connection, argv: list[bytes]) -> int:
    """Send a TASK whose input comes by a pipe; our end of it."""
    theirs, ours = os.pipe()
    connection.number += 1
    flags = wire.PRESTART | wire.STDIN_FD
    connection.send(wire.task(connection.number, argv, flags=flags), [theirs])
    os.close(theirs)
    return ours


def test_large_input_flows_into_the_waiting_process(guest: Started, actor: bytes) -> None:
    _, connection = guest
    body = os.urandom(300_000)
    for number in range(3):
        ours = begin_with_a_pipe(connection, [actor, b"cat"])
        pid = os.fork()
        if pid == 0:
            view = memoryview(body)
            while view:
                view = view[os.write(ours, view) :]
            os._exit(0)
        os.close(ours)
        result = connection.finish()
        os.waitpid(pid, 0)
        assert result.stdout == body
        assert is_prestarted(result) == (number > 0)
        waiting(connection)


def test_who_writes_to_a_waiting_process_that_has_ended_is_told(guest: Started, actor: bytes) -> None:
    """Its pipe breaks, as one that the program itself has."""
    _, connection = guest
    argv = [b"/bin/sh", b"-c", b"exec head -c 1"]
    run(connection, argv)
    waiting(connection)
    ours = begin_with_a_pipe(connection, argv)
    os.write(ours, b"xy")
    result = connection.finish()
    assert (is_prestarted(result), result.stdout) == (True, b"x")
    with pytest.raises(BrokenPipeError):
        os.write(ours, b"z")
    os.close(ours)


def test_other_arguments_environment_or_files_discard_the_waiting_process(
    guest: Started, actor: bytes
) -> None:
    _, connection = guest
    run(connection, [actor, b"cat"])
    waiting(connection)
    assert not is_prestarted(run(connection, [actor, b"cat", b"other"]))
    waiting(connection)
    alike: list[tuple[list[bytes], list[bytes]]] = [([b"A=1"], []), ([], [b"/tmp/x"]), ([], [])]
    for env, files in alike:
        result = run(connection, [actor, b"cat"], env=env, files=files)
        assert not is_prestarted(result)
        assert result.stdout == b"in"
        waiting(connection)
    assert is_prestarted(run(connection, [actor, b"cat"]))


def test_a_task_that_does_not_ask_takes_the_waiting_process_and_leaves_none(
    guest: Started, actor: bytes
) -> None:
    _, connection = guest
    run(connection, [actor, b"cat"])
    waiting(connection)
    assert is_prestarted(run(connection, [actor, b"cat"], flags=0))
    waiting(connection, 0)
    assert not is_prestarted(run(connection, [actor, b"cat"], flags=0))


def test_input_by_a_file_flows_into_the_waiting_process(guest: Started, actor: bytes, tmp_path: Path) -> None:
    _, connection = guest
    run(connection, [actor, b"cat"])
    waiting(connection)
    file = tmp_path / "input"
    file.write_bytes(b"from a file")
    with file.open("rb") as body:
        connection.begin([actor, b"cat"], stdin_fd=body.fileno())
    result = connection.finish()
    assert is_prestarted(result)
    assert result.stdout == b"from a file"


def test_a_program_that_writes_or_ends_before_its_input_is_reported(guest: Started, actor: bytes) -> None:
    _, connection = guest
    for argv in ([actor, b"argv"], [actor, b"exit", b"0"], [actor, b"exit", b"7"]):
        run(connection, argv)
        message = connection.receive()
        assert wire.read_head(message) == wire.Head(wire.UNFIT, 0, connection.number)
        waiting(connection, 0)


def test_what_the_waiting_process_left_is_not_seen_by_another_program(guest: Started, actor: bytes) -> None:
    started, connection = guest
    # Reads all of its input first, so that it leaves what it leaves as a task, then again while it waits.
    run(connection, [actor, b"cat"])
    waiting(connection)
    place = started.inside(connection)
    (place / "left").write_bytes(b"by the waiting process")
    assert not is_prestarted(run(connection, [actor, b"exit", b"0"], flags=0))
    assert not (place / "left").exists()


def test_kill_retire_and_a_lost_executor_end_the_waiting_process(guest: Started, actor: bytes) -> None:
    started, connection = guest
    run(connection, [actor, b"cat"])
    waiting(connection)
    connection.send(wire.head(wire.KILL, connection.number))
    assert is_prestarted(run(connection, [actor, b"cat"]))
    waiting(connection)
    connection.socket.close()
    again = started.listener.greet()
    waiting(again, 0)
    run(again, [actor, b"cat"])
    waiting(again)
    again.send(wire.head(wire.RETIRE))
    assert started.ended() == 0


def test_a_killed_prestarted_task_reports_and_the_next_is_started_anew(guest: Started, actor: bytes) -> None:
    _, connection = guest
    run(connection, [actor, b"cat"])
    waiting(connection)
    ours = begin_with_a_pipe(connection, [actor, b"cat"])
    connection.send(wire.head(wire.KILL, connection.number))
    result = connection.finish()
    os.close(ours)
    assert result.exit.flags == wire.KILLED | wire.PRESTARTED
    assert result.end == (wire.SIGNALLED, 9)
    waiting(connection)
    assert is_prestarted(run(connection, [actor, b"cat"]))
