"""The nodes of a cell as operators see them. Pure."""

from __future__ import annotations

import hashlib
from itertools import islice
from typing import Final

import msgspec

from scheduler.policy.books import Books
from scheduler.policy.node import Health, Node, NodeFacts
from scheduler.policy.tenancy import SHARERS

SLOT_STATES: Final = ("idle", "starting", "running")
"""The states of a slot."""


class NodeState(msgspec.Struct, frozen=True):
    """A node as it is now. What is held is held by running tasks; `slots` counts its slots by state.

    `use` is the state of its tenancy, None where all accounts share all nodes; `account` is the one that it serves
    alone, `next_account` the one that it is emptied or kept for, each None where there is none such.
    """

    facts: NodeFacts
    health: Health
    cpu_percent_held: int = 0
    memory_mib_held: int = 0
    slots: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(SLOT_STATES, 0))
    use: str | None = None
    account: str | None = None
    next_account: str | None = None


def states(books: Books, most: int, after: str = "") -> list[NodeState]:
    """The first `most` nodes by name, of those behind `after`; those that are lost are among them."""
    nodes = {node.facts.id: node for node in books.nodes}
    names = sorted(name for name in (*nodes, *books.nodes.lost) if name > after)
    return [
        _state(books, nodes[name]) if name in nodes else NodeState(books.nodes.lost[name], Health.LOST)
        for name in islice(names, most)
    ]


def features_hash(features: frozenset[str]) -> str:
    """Eight hexadecimal digits that are alike for nodes with the same CPU features."""
    return hashlib.sha256(" ".join(sorted(features)).encode()).hexdigest()[:8]


def _state(books: Books, node: Node) -> NodeState:
    slots = dict.fromkeys(SLOT_STATES, 0)
    for slot in books.slots_on.get(node, ()):
        kind = "starting" if slot in slot.pool.starting else "idle" if slot.task_id is None else "running"
        slots[kind] += 1
    tenure = node.tenure
    return NodeState(
        node.facts,
        node.health,
        node.facts.cpu_percent - node.free_cpu,
        node.facts.memory_mib - node.free_memory,
        slots,
        None if tenure is None else tenure.use.value,
        None if tenure is None or tenure.tenant in (None, SHARERS) else tenure.tenant,
        None if tenure is None or tenure.heir in (None, SHARERS) else tenure.heir,
    )
