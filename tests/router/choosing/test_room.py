"""What is read from a health check's answer, and when a set counts as saturated."""

from __future__ import annotations

import json

import pytest

from router.choosing.room import MAX_BUILD_CHARS, Room, room_from

READY = {
    "status": "ready",
    "set": "a",
    "build": "0.1.0+617e65c",
    "cores": 2.0,
    "cores_busy": 2.0,
    "slots_idle": 1,
    "slots_starting": 0,
    "slots_running": 2,
    "slots_max": 32,
    "tasks_waiting": 10,
    "oldest_wait_seconds": 12.5,
    "another": {"member": [1]},
}


def test_a_set_tells_its_build_cores_slots_and_queue() -> None:
    room = room_from(json.dumps(READY).encode())
    assert room == Room("0.1.0+617e65c", 2.0, 2.0, 3, 32, 10, 12.5)
    assert room.saturated


@pytest.mark.parametrize(
    ("changes", "saturated"),
    [
        ({"tasks_waiting": 0}, False),
        ({"cores_busy": 1.5}, False),
        ({"cores_busy": 0.5, "slots_running": 31}, True),  # no slot is left
        ({"cores": None, "slots_max": None}, False),
        ({"cores": 0.0, "cores_busy": 0.0, "slots_max": None}, False),
    ],
)
def test_saturated_is_a_queue_beside_nothing_free(changes: dict[str, object], saturated: bool) -> None:
    assert room_from(json.dumps({**READY, **changes}).encode()).saturated is saturated


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"[]",
        b"null",
        b'{"cores": "two"}',
        b'{"cores": 1e999}',
        b"\xff\xfe",
        b'{"build": 3}',
        b"{" * 60_000,
    ],
)
def test_what_cannot_be_understood_tells_nothing(body: bytes) -> None:
    assert room_from(body) == Room()


def test_figures_that_make_no_sense_are_not_told() -> None:
    assert room_from(
        b'{"tasks_waiting": -1, "cores": -2, "oldest_wait_seconds": 1e300, "slots_max": 5}'
    ) == Room(slots_max=5)


def test_a_build_is_one_short_printable_line() -> None:
    room = room_from(json.dumps({"build": "x\n\x1b[31m" + "y" * 500}).encode())
    assert room.build.startswith("x??[31m")
    assert len(room.build) == MAX_BUILD_CHARS


def test_a_problem_tells_the_build_too() -> None:
    assert room_from(b'{"title": "The set drains", "status": 503, "build": "2"}') == Room("2")
