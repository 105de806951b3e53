"""A guest whose slot is dressed first: it looks at its places only then."""

from __future__ import annotations

import os
import stat
import subprocess
import time

import pytest

from scheduler.images.content import Entry, Kind
from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import WAIT_S, WORKER, Connection, User

NARROW = "mode=755,size=256m,nr_inodes=200k"
"""Options of places that only root may write to, as they are before they are dressed."""


def dressed(connection: Connection) -> None:
    connection.send(wire.head(wire.DRESSED))
    message = connection.receive()
    assert wire.read_head(message) == wire.Head(wire.CLEANED, 0, 0)
    assert wire.read_cleaned(message)[0]


def test_it_fills_its_places_when_they_are_its_own(start: StartGuest, actor: bytes) -> None:
    content = [Entry("tmp", Kind.FOLDER, mode=0o750), Entry("tmp/file", Kind.FILE, mode=0o640, data=b"text")]
    guest, connection = start(WORKER, undressed=True, tmpfs=NARROW, content=content)
    place = guest.inside(connection)
    assert os.listdir(place) == []
    for number in range(2):
        os.chown(guest.inside(connection, number), WORKER.uid, WORKER.gid)
    dressed(connection)
    assert (place / "file").read_bytes() == b"text"
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    # A place that is the program's own is put back to what it was, too.
    result = connection.run(actor, b"spoil", guest.place())
    assert result.end == (wire.EXITED, 0), result
    assert stat.S_IMODE(place.stat().st_mode) == 0o750


def test_a_working_directory_in_a_mount_that_is_taken_away(start: StartGuest, user: User) -> None:
    """Such as that of an image whose VOLUME has files: the program begins in the folder below."""
    outer = "mkdir PLACES/below; mount -t tmpfs cover PLACES; mkdir PLACES/below"
    guest, connection = start(user, undressed=True, places=("tmp",), cwd="tmp/below", outer=outer)
    enter = ["nsenter", f"--target={connection.pid}", "--mount", "--pid"]
    subprocess.run([*enter, "umount", "--lazy", str(guest.places[0])], check=True)
    dressed(connection)
    said = connection.run(b"/bin/sh", b"-c", b"pwd -P; touch here")
    assert said.stdout.decode() == f"{guest.places[0]}/below\n"
    assert connection.run(b"/bin/ls", b"-A").stdout == b""


def test_its_descriptors_are_as_without(start: StartGuest, user: User) -> None:
    """The connection is its last one, also the one after it, and a program gets none."""
    _, plain_connection = start(user)
    guest, connection = start(user, undressed=True)
    dressed(connection)

    def numbers(pid: int) -> list[int]:
        return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))

    # One more, which keeps the number of the first connection.
    at_rest = numbers(connection.pid)
    assert len(at_rest) == len(numbers(plain_connection.pid)) + 1
    assert connection.run(b"/bin/cat", stdin=b"in").stdout == b"in"
    connection.close()
    again = guest.listener.greet()
    assert again.run(b"/bin/cat", stdin=b"again").stdout == b"again"
    # It closes those of a task when it has told the end.
    deadline = time.monotonic() + WAIT_S
    while numbers(again.pid) != at_rest:
        assert time.monotonic() < deadline, numbers(again.pid)
    again.close()


def test_it_ends_where_its_executor_goes_before(start: StartGuest) -> None:
    guest, connection = start(undressed=True)
    connection.close()
    assert guest.ended() == 3


@pytest.mark.parametrize("number", [0, 1])
def test_it_ends_when_it_is_retired_before(start: StartGuest, number: int) -> None:
    """Whatever the number, as a guest that serves; that was a finding of the fuzzer."""
    guest, connection = start(undressed=True)
    connection.send(wire.head(wire.RETIRE, number))
    assert guest.ended() == 0


@pytest.mark.parametrize(
    "message",
    [
        wire.head(wire.KILL),
        wire.head(wire.DRESSED, task=1),
        wire.head(wire.DRESSED, flags=1),
        wire.head(wire.DRESSED, reserved=1),
        wire.head(wire.DRESSED) + b"x",
        wire.head(wire.DRESSED)[:-1],
        wire.task(1, [b"/bin/true"]),
    ],
)
def test_it_ends_at_another_message(start: StartGuest, message: bytes) -> None:
    guest, connection = start(undressed=True)
    connection.send(message)
    assert guest.ended() == 4


def test_dressed_is_malformed_for_a_guest_that_does_not_wait(start: StartGuest) -> None:
    guest, connection = start()
    connection.send(wire.head(wire.DRESSED))
    assert guest.ended() == 4
