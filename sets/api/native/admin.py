"""/v1/admin: what operators see of the whole set."""

from __future__ import annotations

from typing import Any, Final

import falcon.asgi

from scheduler.manager import Manager
from scheduler.policy.node_state import NodeState, features_hash
from sets.api.native.operators import Operators
from sets.api.native.querying import one_of_each, whole_number
from sets.api.native.view import send_json

NODES_DEFAULT: Final = 100
NODES_MOST: Final = 1000


class NodesResource:
    """The machines of the set, by name: their capacity, how much of it is held, their slots, whom they serve."""

    def __init__(self, manager: Manager, operators: Operators, set_name: str) -> None:
        self._manager = manager
        self._operators = operators
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        query = one_of_each(req, ("after", "limit"))
        limit = whole_number(query, "limit", NODES_DEFAULT, NODES_MOST)
        found = self._manager.nodes(limit + 1, query.get("after", ""))
        page = found[:limit]
        answer = {
            "set": self._set_name,
            "nodes": [node_json(node) for node in page],
            "next": page[-1].facts.id if len(found) > limit else None,
        }
        send_json(resp, answer)


class DrainResource:
    """The drain of a set: it takes no new tasks and begins none that waits, and what runs goes on.

    PUT begins it, DELETE ends it, and each may be repeated; all answer how many tasks run and wait.
    """

    def __init__(self, manager: Manager, operators: Operators, set_name: str) -> None:
        self._manager = manager
        self._operators = operators
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        one_of_each(req, ())
        self._answer(resp)

    async def on_put(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check_order(req)
        one_of_each(req, ())
        self._manager.drain()
        self._answer(resp)

    async def on_delete(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check_order(req)
        one_of_each(req, ())
        self._manager.resume()
        self._answer(resp)

    def _answer(self, resp: falcon.asgi.Response) -> None:
        running = self._manager.running
        answer = {
            "set": self._set_name,
            "draining": self._manager.draining,
            "running": running,
            "waiting": int(self._manager.facts()["tasks_known"]) - running,
        }
        send_json(resp, answer)


def node_json(node: NodeState) -> dict[str, Any]:
    """A node as operators see it. `features` is the hash that its metrics have, too."""
    facts = node.facts
    return {
        "node": facts.id,
        "state": node.health.value,
        "build": facts.build,
        "cores": facts.cpu_percent / 100,
        "cores_held": node.cpu_percent_held / 100,
        "memory_mib": facts.memory_mib,
        "memory_held_mib": node.memory_mib_held,
        "slots_max": facts.max_slots,
        "slots": node.slots,
        "features": features_hash(facts.cpu_features),
        "cpu_features": sorted(facts.cpu_features),
        "tenancy": None
        if node.use is None
        else {"state": node.use, "account": node.account, "next_account": node.next_account},
    }
