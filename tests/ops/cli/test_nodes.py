"""`gcompute nodes`."""

from __future__ import annotations

import json
from typing import Any

from tests.ops.cli.fake_api import FakeApi
from tests.ops.cli.program import Program


def node(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "node": name,
        "state": "ready",
        "build": "abc",
        "cores": 4.0,
        "cores_held": 1.5,
        "memory_mib": 8192,
        "memory_held_mib": 512,
        "slots_max": 16,
        "slots": {"idle": 2, "starting": 1, "running": 2},
        "features": "0123abcd",
        "cpu_features": ["avx2"],
        "tenancy": None,
        **facts,
    }


def test_nodes_are_listed_with_what_is_held_and_whom_they_serve(api: FakeApi, gcompute: Program) -> None:
    held = {"state": "held", "account": "bank", "next_account": None}
    emptied = {"state": "emptied", "account": "bank", "next_account": "clinic"}
    nodes = [node("n1"), node("n2", tenancy=held), node("n3", tenancy=emptied, state="draining")]
    api.on("GET", "/v1/admin/nodes", lambda call: call.json({"set": "a", "nodes": nodes, "next": None}))
    done = gcompute("nodes", "--url", api.url, "--token", "gc_ops_secret", "--limit", "5", "--after", "n0")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows[1] == [
        *("n1", "ready", "1.5 of 4", "512 of 8192", "5 of 16", "2", "1", "all", "0123abcd", "abc")
    ]
    assert [row[7] for row in rows[2:]] == ["bank", "bank, then clinic"]
    (call,) = api.calls
    assert sorted(call.query) == [("after", "n0"), ("limit", "5")]
    assert call.headers["authorization"] == "Bearer gc_ops_secret"


def test_nodes_as_json_are_the_answer(api: FakeApi, gcompute: Program) -> None:
    document = {"set": "a", "nodes": [node("n1")], "next": "n1"}
    api.on("GET", "/v1/admin/nodes", lambda call: call.json(document))
    assert json.loads(gcompute("nodes", "--url", api.url, "--json").stdout) == document


def test_the_help_says_whose_address_and_token_it_takes(gcompute: Program) -> None:
    said = gcompute("nodes", "--help", env={"COLUMNS": "160"}).stdout.decode()
    assert "The set's own address, not a router's; else GC_SET_URL" in said
    assert "An operator's token" in said
    assert "--account" not in said
