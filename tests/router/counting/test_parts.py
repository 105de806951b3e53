"""Callers of one image or account, told apart in a bounded place."""

from __future__ import annotations

import msgspec

from router.counting.parts import ACCOUNTS, IMAGES, Part, Parts, Shape, count, together

SMALL = Shape(4, 64)


def only(parts: Parts) -> Part:
    (part,) = parts.table().values()
    return part


def numbers(part: Part) -> tuple[int, int, int]:
    return count(part.seen), count(part.error), count(part.failed)


def test_callers_are_counted_by_their_first_request() -> None:
    parts = Parts(SMALL)
    parts.note("ocr:1", 1, error=False, failed=False)
    parts.note("ocr:1", 2, error=True, failed=False)
    parts.note("ocr:1", 3, error=False, failed=True)
    for _ in range(50):
        parts.note("ocr:1", 1, error=True, failed=False)
        parts.note("ocr:1", 2, error=False, failed=False)
    assert numbers(only(parts)) == (3, 1, 1)
    assert only(parts).name == "ocr:1"


def test_a_caller_of_two_workers_is_one() -> None:
    workers = [Parts(SMALL) for _ in range(3)]
    for parts in workers:
        parts.note("ocr:1", 7, error=True, failed=False)
    workers[2].note("ocr:1", 8, error=False, failed=False)
    sum_: dict[int, Part] = {}
    for parts in workers:
        sum_ = together(sum_, parts.table())
    (part,) = sum_.values()
    assert numbers(part) == (2, 1, 0)


def test_made_up_names_take_no_more_room_and_hide_nobody() -> None:
    parts = Parts(IMAGES)
    for key in range(50):
        parts.note("ocr:1", key, error=True, failed=False)
    for number in range(2_000):
        parts.note(f"made/up-{number}" + "x" * 500, 9_000_000 + number, error=False, failed=False)
    table = parts.table()
    assert len(table) == IMAGES.places
    (mine,) = [part for part in table.values() if part.name == "ocr:1"]
    assert count(mine.error) == 50
    assert len(msgspec.json.encode(table)) < 16_000


def test_it_is_small_when_full_whatever_the_names_are() -> None:
    for shape in (IMAGES, ACCOUNTS):
        parts = Parts(shape)
        for key in range(shape.places * 20):
            parts.note(f'"\\\udcff{key % 997}', key, error=True, failed=False)
        text = msgspec.json.encode(parts.table())
        assert len(text) < 70_000
        assert msgspec.json.decode(text, type=dict[int, Part]) == parts.table()
