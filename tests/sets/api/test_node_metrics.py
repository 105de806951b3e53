"""The metrics of a set's machines."""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry, generate_latest

from scheduler.overview import Overview
from scheduler.policy.node import Health, NodeFacts
from scheduler.policy.node_state import NodeState, features_hash
from sets.api.node_metrics import NODES_MOST, NodeGauges


class SomeNodes:
    """An overview, as far as the metrics need one."""

    def __init__(self, nodes: list[NodeState]) -> None:
        self._nodes = nodes

    def nodes(self, most: int, after: str = "") -> list[NodeState]:
        return self._nodes[:most]

    def cores_wanted(self) -> dict[str, float]:
        return {"": 12.0, "avx2,avx512f": 0.5}


def text_of(nodes: list[NodeState]) -> str:
    registry = CollectorRegistry()
    registry.register(NodeGauges(cast(Overview, SomeNodes(nodes))))
    return generate_latest(registry).decode()


def test_each_machine_has_its_gauges() -> None:
    features = frozenset(["avx2", "sse2"])
    n1 = NodeFacts("n1", 400, 8192, 16, features, build="abc")
    text = text_of(
        [
            NodeState(n1, Health.READY, 150, 512, {"idle": 2, "starting": 1, "running": 2}),
            NodeState(NodeFacts("n2", 200, 4096, 8), Health.LOST),
        ]
    )
    for line in (
        'gc_nodes{state="ready"} 1.0',
        'gc_nodes{state="draining"} 0.0',
        'gc_nodes{state="lost"} 1.0',
        'gc_cores_wanted{cpu_features=""} 12.0',
        'gc_cores_wanted{cpu_features="avx2,avx512f"} 0.5',
        'gc_node_up{node="n1"} 1.0',
        'gc_node_up{node="n2"} 0.0',
        'gc_node_cores{node="n1"} 4.0',
        'gc_node_cores_held{node="n1"} 1.5',
        'gc_node_slots{node="n1",state="idle"} 2.0',
        'gc_node_slots{node="n1",state="starting"} 1.0',
        f'gc_node_info{{build="abc",features="{features_hash(features)}",node="n1"}} 1.0',
    ):
        assert line in text.splitlines(), line


def test_machines_beyond_a_bound_have_none() -> None:
    text = text_of(
        [NodeState(NodeFacts(f"n{number:05}", 100, 100, 1), Health.READY) for number in range(NODES_MOST + 5)]
    )
    assert text.count("gc_node_up{") == NODES_MOST
