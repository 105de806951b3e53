"""The operators' calls, `/v1/admin`, in /openapi.json."""

from __future__ import annotations

from typing import Any

from sets.api.native.operation import JSON, answer, operation, query


def operators_paths() -> dict[str, Any]:
    """The paths under `/v1/admin` with their operations."""
    return {
        "/v1/admin/nodes": {
            "get": operation(
                "listNodes",
                "The set's machines, for operators: capacity, use, slots by state, tenancy",
                {"200": answer("A page of nodes, by name", JSON)},
                [
                    query("after", {"type": "string"}, "the `next` of the page before"),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "nodes at most"),
                ],
                ("400",),
            )
        },
        "/v1/admin/pools": {
            "get": operation(
                "listPools",
                "The set's pools, for operators: slots by state, slots wanted, why slots do not start",
                {"200": answer("A page of pools, those with most waiting tasks first", JSON)},
                [
                    query("account", {"type": "string"}, "only the pools of this account"),
                    query("after", {"type": "string"}, "the `next` of the page before"),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "pools at most"),
                ],
                ("400",),
            )
        },
        "/v1/admin/queue": {
            "get": operation(
                "showQueue",
                "The set's queue by account, for operators: what waits, what runs and holds what, who floods",
                {"200": answer("A page of accounts, those with most waiting tasks first", JSON)},
                [
                    query("after", {"type": "string"}, "the `next` of the page before"),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "accounts at most"),
                ],
                ("400",),
            )
        },
        "/v1/admin/drain": {
            "get": operation(
                "isDraining",
                "Whether the set drains, and how many tasks run and wait, for operators",
                {"200": answer("Whether it drains", JSON)},
                [],
                ("400",),
            ),
            "put": operation(
                "drain",
                "Take no new tasks and begin none that waits; what runs goes on",
                {"200": answer("It drains", JSON)},
                [],
                ("400",),
            ),
            "delete": operation(
                "resume",
                "Take and begin tasks again",
                {"200": answer("It takes tasks", JSON)},
                [],
                ("400",),
            ),
        },
    }
