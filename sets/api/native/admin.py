"""/v1/admin: what operators see of the whole set."""

from __future__ import annotations

from typing import Any, Final

import falcon.asgi

from scheduler.manager import Manager
from scheduler.policy import account_state, pool_state
from scheduler.policy.account_state import AccountState
from scheduler.policy.node_state import SLOT_STATES, NodeState, features_hash
from scheduler.policy.pool_state import PoolState
from sets.api.native.operators import Operators
from sets.api.native.querying import one_of_each, whole_number
from sets.api.native.view import send_json

PAGE_DEFAULT: Final = 100
PAGE_MOST: Final = 1000


class NodesResource:
    """The machines of the set, by name: their capacity, how much of it is held, their slots, whom they serve."""

    def __init__(self, manager: Manager, operators: Operators, set_name: str) -> None:
        self._manager = manager
        self._operators = operators
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        query = one_of_each(req, ("after", "limit"))
        limit = whole_number(query, "limit", PAGE_DEFAULT, PAGE_MOST)
        found = self._manager.overview.nodes(limit + 1, query.get("after", ""))
        page = found[:limit]
        answer = {
            "set": self._set_name,
            "nodes": [node_json(node) for node in page],
            "next": page[-1].facts.id if len(found) > limit else None,
        }
        send_json(resp, answer)


class PoolsResource:
    """The pools of the set, those with most waiting tasks first: their slots by state, how many each wants, and why a
    pool's slots do not start."""

    def __init__(self, manager: Manager, operators: Operators, set_name: str) -> None:
        self._overview = manager.overview
        self._operators = operators
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        query = one_of_each(req, ("account", "after", "limit"))
        limit = whole_number(query, "limit", PAGE_DEFAULT, PAGE_MOST)
        found = self._overview.pools(limit + 1, query.get("after", ""), query.get("account"))
        page = found[:limit]
        answer = {
            "set": self._set_name,
            "pools": [pool_json(pool, self._overview.image_name(pool.key)) for pool in page],
            "next": pool_state.cursor_of(page[-1]) if len(found) > limit else None,
        }
        send_json(resp, answer)


class QueueResource:
    """The queue of the set by account, those with most waiting tasks first: what each holds, and who floods the set."""

    def __init__(self, manager: Manager, operators: Operators, set_name: str) -> None:
        self._manager = manager
        self._operators = operators
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        query = one_of_each(req, ("after", "limit"))
        limit = whole_number(query, "limit", PAGE_DEFAULT, PAGE_MOST)
        overview = self._manager.overview
        found = overview.accounts(limit + 1, query.get("after", ""))
        page = found[:limit]
        totals = overview.totals()
        answer = {
            "set": self._set_name,
            "draining": self._manager.draining,
            "queued": totals["tasks_waiting"],
            "queued_max": self._manager.settings.limits.max_waiting,
            "oldest_wait_s": totals["oldest_wait_seconds"] if totals["tasks_waiting"] else None,
            "cores": totals["cores"],
            "cores_held": totals["cores_busy"],
            "memory_mib": totals["memory_mib"],
            "memory_held_mib": totals["memory_busy_mib"],
            "slots_max": totals["slots_max"],
            "slots": {state: totals[f"slots_{state}"] for state in SLOT_STATES},
            "accounts": [account_json(account) for account in page],
            "next": account_state.cursor_of(page[-1]) if len(found) > limit else None,
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


def pool_json(pool: PoolState, image: str | None) -> dict[str, Any]:
    """A pool as operators see it; `image`: its name."""
    key = pool.key
    return {
        "pool": pool.id,
        "account": key.account,
        "image": image,
        "image_digest": key.image_digest,
        "cpu": key.resources.cpu_percent / 100,
        "memory_mib": key.resources.memory_mib,
        "isolation": key.isolation,
        "cpu_features": key.cpu_features,
        "priority": key.priority,
        "queued": pool.queued,
        "paused": pool.paused,
        "oldest_wait_s": pool.oldest_wait_s,
        "slots": pool.slots,
        "slots_wanted": pool.slots_wanted,
        "slots_max": pool.slots_most,
        "starting_s": pool.starting_s,
        "failures": pool.failures,
        "retry_in_s": pool.retry_in_s,
        "trouble": pool.trouble or None,
        "waiting_for": pool.waiting_for,
    }


def account_json(account: AccountState) -> dict[str, Any]:
    """An account's part of the queue as operators see it."""
    return {
        "account": account.account,
        "weight": account.weight,
        "pools": account.pools,
        "queued": account.queued,
        "paused": account.paused,
        "running": account.running,
        "cores_held": account.cpu_percent_held / 100,
        "memory_held_mib": account.memory_mib_held,
        "slots": account.slots,
        "oldest_wait_s": account.oldest_wait_s,
        "fair_part": account.fair_part,
        "floods": account.floods,
    }
