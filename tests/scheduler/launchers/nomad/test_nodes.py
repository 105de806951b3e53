"""The book of a cluster's nodes: lists and events come in, and what a set must know comes out."""

from __future__ import annotations

from typing import Any

from scheduler.launchers.nomad.nodes import NodeBook
from scheduler.launchers.nomad.orders import NodeState
from scheduler.launchers.nomad.records import Node
from scheduler.policy.node import Standing

OPEN, CLOSED, DRAINED = Standing.OPEN, Standing.CLOSED, Standing.DRAINED


def node(node_id: str, name: str = "n1", status: str = "ready", **fields: Any) -> Node:
    return Node(node_id, name, status, **{"pool": "default", **fields})


def stands(states: list[NodeState]) -> list[tuple[str, Standing]]:
    return [(state.node, state.standing) for state in states]


def test_a_list_tells_each_node_once() -> None:
    book = NodeBook("default")
    there = [
        node("1"),
        node("2", "n2", "down"),
        node("3", "n3", eligibility="ineligible"),
        node("4", "n4", drain=True),
    ]
    assert stands(book.listed(there)) == [("n1", OPEN), ("n2", CLOSED), ("n3", CLOSED), ("n4", DRAINED)]
    assert book.listed(there) == []
    assert stands(book.all()) == [("n1", OPEN), ("n2", CLOSED), ("n3", CLOSED), ("n4", DRAINED)]
    assert book.taking == 1


def test_an_event_tells_what_has_changed() -> None:
    book = NodeBook("default")
    book.listed([node("1"), node("2", "n2")])
    (told,) = book.seen(node("2", "n2", drain=True, eligibility="ineligible"), gone=False)
    assert told == NodeState("n2", DRAINED, "an operator drains node n2")
    # The drain is over; the node stays ineligible until an operator says otherwise.
    (told,) = book.seen(node("2", "n2", eligibility="ineligible"), gone=False)
    assert told == NodeState("n2", CLOSED, "node n2 is marked ineligible in the cluster")
    assert stands(book.seen(node("2", "n2"), gone=False)) == [("n2", OPEN)]


def test_a_node_that_left_is_closed_and_then_forgotten() -> None:
    book = NodeBook("default")
    book.listed([node("1"), node("2", "n2")])
    assert stands(book.seen(node("2", "n2"), gone=True)) == [("n2", CLOSED)]
    assert book.listed([node("1")]) == []
    assert stands(book.all()) == [("n1", OPEN)]


def test_nodes_of_other_pools_are_not_ours() -> None:
    book = NodeBook("default")
    assert book.seen(node("1", pool="gpu"), gone=False) == []
    book.listed([node("1")])
    assert stands(book.seen(node("1", pool="gpu"), gone=False)) == [("n1", CLOSED)]


def test_a_machine_that_was_set_up_again_stands_as_its_new_record_does() -> None:
    book = NodeBook("default")
    assert stands(book.listed([node("old", status="down"), node("new")])) == [("n1", OPEN)]
