"""Says in words what the next task of a pool waits for. Pure."""

from __future__ import annotations

from scheduler.policy.node import Nodes
from scheduler.policy.pool import Pool


def waits_for(pool: Pool, nodes: Nodes, now: float, node: str = "", bound: str = "") -> str:
    """A clause for messages, such as "a slot of its kind has been starting for 4.2 s".

    `node`: such a clause about the node that the pool waits for, where it waits for one; `bound`: about the number of
    its account's slots, where that keeps it from another.
    """
    refusals = nodes.refusals()
    usual = _usual(pool, now, node, bound)
    if not usual and (not refusals or any(each.takes_slots for each in nodes)):
        usual = "all places for slots are in use"
    clauses = (usual, nodes.scarcity(pool.key), refusals)
    return "; ".join(filter(None, clauses))


def _usual(pool: Pool, now: float, node: str, bound: str) -> str:
    said: list[str] = []
    if pool.trouble:
        said.append(f"the last slot of its kind could not start: {pool.trouble}")
    if node:
        said.append(node)
    if bound and not (pool.starting or pool.idle):
        said.append(bound)
    if pool.starting:
        starting_s = now - min(slot.since for slot in pool.starting)
        said.append(f"a slot of its kind has been starting for {starting_s:.1f} s")
    if said:
        return "; ".join(said)
    if pool.idle and pool.is_spare:
        return "it is a spare task, and other tasks leave it no cores or memory"
    if pool.idle:
        return "the cores or the memory that it needs are in use"
    if pool.running:
        return f"all slots of its kind are busy ({len(pool.running)})"
    if not pool.at_once:
        return "no node that could run it takes tasks now"
    return ""
