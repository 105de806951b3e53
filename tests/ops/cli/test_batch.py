"""`gcompute batch list` against an API that a test plays; `tests.sets.api` has the other orders, in real slots."""

from __future__ import annotations

import json
from typing import Any

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program


def batch(batch_id: str, state: str, **facts: Any) -> dict[str, Any]:
    counts = ("waiting", "queued", "running", "succeeded", "failed", "timed_out", "cancelled")
    known = {"id": batch_id, "state": state, "image": "ocr:1", "name": None, "inputs": 10}
    return {**known, "counts": dict.fromkeys(counts, 0), "waiting_for": None, "detail": None, **facts}


RUNNING = batch("b-2", "running", waiting_for="the set drains")
RUNNING["counts"] |= {"waiting": 4, "queued": 1, "running": 1, "succeeded": 2, "failed": 1, "timed_out": 1}
CANCELLED = batch("a-1", "cancelled", name="pages", detail="cancelled by its owner")
CANCELLED["counts"] |= {"cancelled": 10}


def both(call: Call) -> None:
    call.json({"batches": [RUNNING, CANCELLED], "next": "a-1", "sets": ["a", "b"], "partial": False})


def test_they_are_listed(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/batches", both)
    done = gcompute("batch", "list", "--limit", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows == [
        ["ID", "STATE", "INPUTS", "DONE", "FAILED", "IMAGE", "NAME", "WAITS FOR"],
        ["b-2", "running", "10", "4", "2", "ocr:1", "", "the set drains"],
        ["a-1", "cancelled", "10", "10", "0", "ocr:1", "pages", "cancelled by its owner"],
    ]
    assert b"more: --before a-1" in done.stderr
    assert api.calls[0].query == [("limit", "2")]


def test_as_json(api: FakeApi, gcompute: Program) -> None:
    api.on("GET", "/v1/batches", both)
    done = gcompute("batch", "list", "--json", "--before", "b-9")
    assert [found["id"] for found in json.loads(done.stdout)["batches"]] == ["b-2", "a-1"]
    assert api.calls[0].query == [("before", "b-9"), ("limit", "20")]


def test_sets_that_are_missing_are_named(api: FakeApi, gcompute: Program) -> None:
    page = {
        "batches": [],
        "next": None,
        "sets": ["a"],
        "partial": True,
        "missing": {"b": "it does not answer"},
    }
    api.on("GET", "/v1/batches", lambda call: call.json(page))
    done = gcompute("batch", "list")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.endswith(
        b"only sets a answered: batches of others are missing\nset b: it does not answer\nno batches\n"
    )
