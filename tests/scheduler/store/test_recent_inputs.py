"""Inputs of tasks that were just added are not read from the disk again."""

from __future__ import annotations

from scheduler.store.contract import Body
from scheduler.store.recent_inputs import RecentInputs


def test_the_oldest_go_when_there_are_too_many_bytes() -> None:
    recent = RecentInputs(limit_bytes=10)
    for name in ("a", "b", "c"):
        recent.keep(name, Body(4, name.encode() * 4))
    assert recent.get("a") is None
    assert recent.get("b") == Body(4, b"bbbb")
    assert recent.get("c") == Body(4, b"cccc")


def test_room_comes_back_with_what_is_dropped() -> None:
    recent = RecentInputs(limit_bytes=10)
    recent.keep("a", Body(8, b"a" * 8))
    recent.drop("a")
    recent.drop("a")
    recent.keep("b", Body(10, b"b" * 10))
    assert recent.get("b") == Body(10, b"b" * 10)


def test_neither_blobs_nor_what_is_too_large_are_kept() -> None:
    recent = RecentInputs(limit_bytes=10)
    recent.keep("a", Body(4, blob="x"))
    recent.keep("b", Body(11, b"b" * 11))
    assert recent.get("a") is None
    assert recent.get("b") is None
