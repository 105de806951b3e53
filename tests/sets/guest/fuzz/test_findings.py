"""Findings of the fuzzer, shown to the real guest: each test failed before the mistake was mended."""

from __future__ import annotations

import time
from pathlib import Path

from tests.sets.guest import wire
from tests.sets.guest.conftest import StartGuest
from tests.sets.guest.rig import ROOT, Connection, Guest

Started = tuple[Guest, Connection]
STUFF = b"head -c 65536 /dev/zero > /proc/self/fd/0; : > %s/stuffed; exec sleep 1000"


def _appears(path: Path) -> None:
    for _ in range(2000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} does not appear")


def test_a_waiting_program_that_fills_its_own_input_cannot_stall_the_guest(guest: Started) -> None:
    """The input of its task, however small, finds no room then: a blocking write would wait for ever, deaf to KILL."""
    started, connection = guest
    stuffed = started.inside(connection) / "stuffed"
    argv = [b"/bin/sh", b"-c", STUFF % started.place()]
    for flags in (wire.KILLED, wire.KILLED | wire.PRESTARTED):
        connection.number += 1
        connection.send(
            wire.task(
                connection.number, argv, stdin=b"x" if flags & wire.PRESTARTED else b"", flags=wire.PRESTART
            )
        )
        if not flags & wire.PRESTARTED:
            _appears(stuffed)
        connection.send(wire.head(wire.KILL, connection.number))
        ended = connection.finish().exit
        assert ended.flags & (wire.KILLED | wire.PRESTARTED) == flags
        _appears(stuffed)


def test_an_empty_message_that_brings_a_descriptor_is_malformed(start: StartGuest) -> None:
    """Nothing would have closed it: to the guest, an empty message was the end of the connection."""
    started, connection = start(ROOT)
    with open("/dev/null", "rb") as null:
        connection.send(b"", [null.fileno()])
    assert started.ended() == 4
