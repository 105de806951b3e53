"""`gcompute pools` and `gcompute queue`."""

from __future__ import annotations

import json
from typing import Any

from tests.ops.cli.fake_api import FakeApi
from tests.ops.cli.program import Program


def pool(account: str, **facts: Any) -> dict[str, Any]:
    return {
        "pool": "0123456789ab",
        "account": account,
        "image": "ocr:1",
        "image_digest": "sha256:" + "0" * 64,
        "cpu": 0.5,
        "memory_mib": 512,
        "isolation": "shared",
        "cpu_features": [],
        "priority": "normal",
        "queued": 3,
        "paused": 0,
        "oldest_wait_s": 4.2,
        "slots": {"idle": 2, "starting": 1, "running": 5},
        "slots_wanted": 8,
        "slots_max": 16,
        "starting_s": 4.2,
        "failures": 0,
        "retry_in_s": None,
        "trouble": None,
        "waiting_for": "a slot of its kind has been starting for 4.2 s",
        **facts,
    }


def account(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "account": name,
        "weight": 1,
        "pools": 2,
        "queued": 3,
        "paused": 0,
        "running": 5,
        "cores_held": 2.5,
        "memory_held_mib": 2560,
        "slots": {"idle": 2, "starting": 1, "running": 5},
        "oldest_wait_s": 4.2,
        "fair_part": 0.5,
        "floods": [],
        **facts,
    }


QUEUE = {
    "set": "a",
    "draining": False,
    "queued": 1203,
    "queued_max": 100_000,
    "oldest_wait_s": 4.2,
    "cores": 4.0,
    "cores_held": 3.5,
    "memory_mib": 8192,
    "memory_held_mib": 2560,
    "slots_max": 32,
    "slots": {"idle": 2, "starting": 1, "running": 7},
    "next": None,
}


def test_pools_are_listed_with_their_slots_and_why_slots_do_not_start(
    api: FakeApi, gcompute: Program
) -> None:
    fails = {
        "image": None,
        "isolation": "fresh",
        "cpu_features": ["avx2"],
        "paused": 2,
        "failures": 3,
        "retry_in_s": 12.0,
        "trouble": "no space left",
        "waiting_for": None,
    }
    pools = [pool("acme"), pool("shop", **fails)]
    api.on("GET", "/v1/admin/pools", lambda call: call.json({"set": "a", "pools": pools, "next": "3-ab"}))
    done = gcompute("pools", "--url", api.url, "--token", "gc_ops_secret", "--of", "acme", "--limit", "2")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows[1] == [
        *("acme", "ocr:1", "0.5 cpu 512 MiB", "3", "8 of 16", "2", "5", "1"),
        "a slot of its kind has been starting for 4.2 s",
    ]
    assert rows[2][1:4] == ["sha256:000000000000", "0.5 cpu 512 MiB fresh avx2", "3 + 2"]
    assert rows[2][8] == (
        "the last slot of its kind could not start: no space left; failed starts in a row: 3; "
        "the next start is in 12.0 s"
    )
    assert b"more: --after 3-ab" in done.stderr
    (call,) = api.calls
    assert sorted(call.query) == [("account", "acme"), ("limit", "2")]
    assert call.headers["authorization"] == "Bearer gc_ops_secret"


def test_the_queue_is_listed_by_account_with_who_floods(api: FakeApi, gcompute: Program) -> None:
    rows = [account("acme", queued=1200, floods=["queue", "cores"]), account("shop", oldest_wait_s=None)]
    api.on("GET", "/v1/admin/queue", lambda call: call.json(QUEUE | {"accounts": rows}))
    done = gcompute("queue", "--url", api.url, "--after", "9-9-x")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert lines[1] == ["acme", "1200", "4.20 s", "5", "2.5", "50%", "8", "queue, cores"]
    assert lines[2] == ["shop", "3", "", "5", "2.5", "50%", "8", ""]
    assert done.stderr.decode() == (
        "set a: 1203 tasks queued of 100000 at most, cores held: 3.5 of 4, slots: 10 of 32\n"
    )
    assert api.calls[0].query == [("after", "9-9-x"), ("limit", "100")]


def test_both_as_json_are_the_answer(api: FakeApi, gcompute: Program) -> None:
    pools = {"set": "a", "pools": [pool("acme")], "next": None}
    queue = QUEUE | {"accounts": [account("acme")]}
    api.on("GET", "/v1/admin/pools", lambda call: call.json(pools))
    api.on("GET", "/v1/admin/queue", lambda call: call.json(queue))
    assert json.loads(gcompute("pools", "--url", api.url, "--json").stdout) == pools
    assert json.loads(gcompute("queue", "--url", api.url, "--json").stdout) == queue
