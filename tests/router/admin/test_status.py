"""The workers of a router added up."""

from __future__ import annotations

import msgspec
import pytest

from router.admin.status import SetSnapshot, Snapshot, status_of
from router.choosing.room import Room
from router.counting.stats import FINE_BOUNDS_S


def place(duration_s: float) -> int:
    return next(index for index, bound in enumerate(FINE_BOUNDS_S) if bound >= duration_s)


def one_set(**changes: object) -> SetSnapshot:
    made = SetSnapshot(
        "http://h:1", "ready", 95.0, 95.0, "up", 0.0, 3, 100, 1, {200: 10}, {"reset": 1}, 1, 2, 3, 4,
        30.0, 10, 11, 1, {place(0.01): 10},
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def worker(pid: int, *, sets: dict[str, SetSnapshot] | None = None, **changes: object) -> Snapshot:
    made = Snapshot(
        pid, "r1", "/etc/r.yaml", 7, "d7", "ops", "why", None, 2, ["qa"], sets or {"a": one_set()},
        100, 5, 6, 1, 2, {"no-set": 1}, False,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_counts_add_up_and_rates_too() -> None:
    slow = one_set(durations={place(1.0): 30}, answers=30, attempts=30, errors=0, statuses={200: 29, 502: 1})
    status = status_of([worker(1), worker(2, sets={"a": slow})])
    a = status["sets"]["a"]
    assert (status["workers"], status["requests"], status["active"], status["problems"]) == (
        2,
        200,
        10,
        {"no-set": 2},
    )
    assert (a["inflight"], a["answers"], a["statuses"], a["failures"]) == (
        6,
        40,
        {"200": 39, "502": 1},
        {"reset": 2},
    )
    assert a["requests_per_s"] == pytest.approx(40 / 30, abs=0.01)
    assert a["error_rate"] == pytest.approx(1 / 41, rel=0.001)
    assert a["p50_ms"] == pytest.approx(1000, rel=0.2)
    assert status["digest"] == "d7"


def test_the_worst_health_is_told_and_the_weight_that_counts_is_the_mean() -> None:
    away = one_set(health="ejected", effective_weight=0.0, ejected_for_s=12.0)
    a = status_of([worker(1), worker(2, sets={"a": away})])["sets"]["a"]
    assert (a["health"], a["effective_weight"], a["ejected_for_s"], a["weight"]) == (
        "ejected",
        47.5,
        12.0,
        95.0,
    )


def test_reads_are_told_beside_what_takes_room_and_why_a_set_is_ejected() -> None:
    away = one_set(reading=4, health="ejected", ejected_for_s=12.0, ejected_because="its answer is no HTTP")
    a = status_of([worker(1), worker(2, sets={"a": away}), worker(3)])["sets"]["a"]
    assert (a["inflight"], a["reading"], a["ejected_because"]) == (9, 4, "its answer is no HTTP")


def test_what_a_set_tells_of_itself_is_told_once_not_added_up() -> None:
    full = one_set(room=Room("b2", 2.0, 2.0, 4, 32, 10, 12.5))
    a = status_of([worker(1), worker(2, sets={"a": full}), worker(3, sets={"a": full})])["sets"]["a"]
    assert (a["build"], a["cores"], a["cores_busy"], a["slots"], a["slots_max"]) == ("b2", 2.0, 2.0, 4, 32)
    assert (a["queued"], a["oldest_wait_s"], a["saturated"]) == (10, 12.5, True)
    silent = status_of([worker(1)])["sets"]["a"]
    assert (silent["build"], silent["cores"], silent["queued"], silent["saturated"]) == (
        None,
        None,
        None,
        False,
    )


def test_while_the_workers_differ_no_file_is_in_force_everywhere() -> None:
    status = status_of([worker(1, version=8, digest="d8"), worker(2, config_error="line 1"), worker(3)])
    assert (status["version"], status["digest"], status["config_error"]) == (7, "", "line 1")
    both = {"a": one_set(), "b": one_set()}
    status = status_of([worker(1, version=8, digest="d8", sets=both), worker(2, sets={"b": one_set()})])
    assert list(status["sets"]) == ["b"]


def test_a_snapshot_travels_as_json() -> None:
    sent = msgspec.json.encode(worker(1))
    assert msgspec.json.decode(sent, type=Snapshot) == worker(1)
