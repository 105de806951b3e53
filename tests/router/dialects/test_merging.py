"""Merging pages of tasks and rows of usage, without a set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.dialects.merging import Unreadable, in_words, merge_pages, merge_usage

IDS = st.sets(st.integers(0, 10_000), max_size=30)


@given(st.lists(IDS, min_size=1, max_size=4), st.integers(1, 20))
def test_merging_keeps_order_and_loses_nothing(sets: list[set[int]], limit: int) -> None:
    bodies = []
    everything = []
    for number, times in enumerate(sets):
        ids = [f"s{number}-{time:05d}" for time in sorted(times, reverse=True)]
        everything += ids
        bodies.append(
            json.dumps(
                {
                    "tasks": [{"id": task} for task in ids[:limit]],
                    "next": ids[limit - 1] if ids[limit:] else None,
                }
            ).encode()
        )
    named = {f"s{number}": body for number, body in enumerate(bodies)}
    page = json.loads(merge_pages("tasks", named, {}, limit))
    newest = sorted(everything, key=lambda task: (task.partition("-")[2], task), reverse=True)
    assert [task["id"] for task in page["tasks"]] == newest[:limit]
    assert (page["next"] is None) == (len(newest) <= limit)


def test_a_set_that_sends_more_than_was_asked_for() -> None:
    body = json.dumps({"tasks": [{"id": f"a-{number}"} for number in (5, 4, 3, 2)], "next": None}).encode()
    page = json.loads(merge_pages("tasks", {"a": body}, {}, 3))
    assert ([task["id"] for task in page["tasks"]], page["next"]) == (["a-5", "a-4", "a-3"], "a-3")


def test_batches_of_all_sets_are_one_list() -> None:
    bodies = {
        "a": json.dumps({"batches": [{"id": "a-5"}, {"id": "a-1"}], "next": None}).encode(),
        "b": json.dumps({"batches": [{"id": "b-3"}], "next": None}).encode(),
    }
    page = json.loads(merge_pages("batches", bodies, {}, 2))
    assert [batch["id"] for batch in page["batches"]] == ["a-5", "b-3"]
    assert (page["next"], page["sets"]) == ("b-3", ["a", "b"])


def test_callbacks_of_all_sets_are_one_list() -> None:
    bodies = {
        "a": json.dumps({"callbacks": [{"id": "a-5"}, {"id": "a-1"}], "next": None}).encode(),
        "b": json.dumps({"callbacks": [{"id": "b-3"}], "next": None}).encode(),
        "c": json.dumps({"tasks": [{"id": "c-4"}], "next": None}).encode(),
    }
    page = json.loads(merge_pages("callbacks", bodies, {}, 2))
    assert [callback["id"] for callback in page["callbacks"]] == ["a-5", "b-3"]
    assert (page["next"], page["sets"], page["partial"]) == ("b-3", ["a", "b"], True)


def test_none_readable() -> None:
    with pytest.raises(
        Unreadable, match="set 'b': it is in maintenance; set 'a': its list could not be read"
    ):
        merge_pages("tasks", {"a": b"x"}, {"b": "it is in maintenance"}, 3)
    with pytest.raises(Unreadable, match="set 'a': its usage could not be read"):
        merge_usage({"a": b"[]"}, {})
    assert in_words({str(number): "down" for number in range(7)}).endswith("set '4': down; and 2 more")


def usage(*rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"usage": rows, **more}).encode()


def test_usage_rows_of_the_same_texts_are_added() -> None:
    merged = json.loads(
        merge_usage(
            {
                "a": usage(
                    {"day": "1", "image": "x", "tasks": 2, "cpu_us": 10, "amount": "0.10", "quota": 0.1},
                    total=1,
                    amount="0.10",
                    currency="EUR",
                    sets=["a"],
                    partial=False,
                ),
                "b": usage(
                    {"day": "1", "image": "x", "tasks": 3, "cpu_us": 5, "amount": "0.05", "quota": 0.2},
                    {"day": "2", "image": "x", "tasks": 1, "cpu_us": 1, "amount": "0.01"},
                    total=2,
                    amount="0.06",
                    currency="EUR",
                ),
            },
            {},
        )
    )
    assert merged == {
        "usage": [
            {"day": "1", "image": "x", "tasks": 5, "cpu_us": 15, "amount": "0.15", "quota": 0.3},
            {"day": "2", "image": "x", "tasks": 1, "cpu_us": 1, "amount": "0.01"},
        ],
        "total": 3,
        "amount": "0.16",
        "currency": "EUR",
        "sets": ["a", "b"],
        "partial": False,
    }


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"\xff",
        b'{"usage": [5]}',
        b'{"usage": [{"amount": "much"}]}',
        b'{"usage": [{"amount": "NaN"}]}',
        b'{"usage": [{"amount": "1e999999"}]}',
        b'{"usage": [{"tasks": 1e999999}]}',
        b'{"usage": [{"tasks": 1}, {"tasks": ' + b"[" * 100_000 + b"}]}",
        b'{"total": ' + b"9" * 5000 + b"}",
    ],
)
def test_usage_that_cannot_be_read_adds_nothing(bad: bytes) -> None:
    good = usage({"day": "1", "tasks": 2, "amount": "0.10"})
    merged = json.loads(merge_usage({"a": good, "b": bad, "c": good}, {}))
    assert merged["usage"] == [{"day": "1", "tasks": 4, "amount": "0.20"}]
    assert (merged["sets"], merged["partial"], list(merged["missing"])) == (["a", "c"], True, ["b"])


def test_usage_of_other_shapes_is_kept_apart() -> None:
    merged = json.loads(
        merge_usage(
            {
                "a": usage({"day": "1", "tasks": 2, "note": "x", "amount": "1"}, total=1),
                "b": b'{"usage": 5, "total": [{"day": "1"}]}',
                "c": usage({"day": "1", "tasks": "2"}, {"day": "1", "note": "x", "amount": 2}, total=None),
            },
            {},
        )
    )
    assert merged["usage"] == [
        {"day": "1", "tasks": 2, "note": "x", "amount": "3"},
        {"day": "1", "tasks": "2"},
    ]
    assert merged["total"] == 1
