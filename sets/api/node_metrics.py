"""The metrics of a set's machines, by their names, and of the cores that its tasks want."""

from __future__ import annotations

from collections import Counter
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.overview import Overview
from scheduler.policy.node import Health
from scheduler.policy.node_state import features_hash

NODES_MOST: Final = 1_000
"""How many nodes have metrics of their own, the first ones by name: each label costs the monitoring memory."""


class NodeGauges(Collector):
    """Asks for the nodes whenever the metrics are asked for."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> list[Metric]:
        count = GaugeMetricFamily("gc_nodes", "Machines by state, up to 1,000 of them", labels=("state",))
        up = _gauge("gc_node_up", "1 while the machine takes tasks, 0 while it drains or is lost")
        cores = _gauge("gc_node_cores", "Cores that running tasks share on the machine")
        held = _gauge("gc_node_cores_held", "Cores that running tasks hold on the machine")
        slots = _gauge("gc_node_slots", "Slots of the machine by state", "state")
        info = _gauge(
            "gc_node_info",
            "The executor's build, and a hash that is the same for machines with the same CPU features: always 1",
            "build",
            "features",
        )
        nodes = self._overview.nodes(NODES_MOST)
        states = Counter(node.health for node in nodes)
        for health in Health:
            count.add_metric((health.value,), states[health])
        for node in nodes:
            name = node.facts.id
            up.add_metric((name,), node.health is Health.READY)
            cores.add_metric((name,), node.facts.cpu_percent / 100)
            held.add_metric((name,), node.cpu_percent_held / 100)
            for state, number in node.slots.items():
                slots.add_metric((name, state), number)
            info.add_metric((name, node.facts.build, features_hash(node.facts.cpu_features)), 1)
        wanted = GaugeMetricFamily(
            "gc_cores_wanted",
            "Cores that normal tasks want, by the CPU features that they need; the most of the last five minutes",
            labels=("cpu_features",),
        )
        for features, cores_wanted in self._overview.cores_wanted().items():
            wanted.add_metric((features,), cores_wanted)
        return [count, up, cores, held, slots, info, wanted]


def _gauge(name: str, help_text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, labels=("node", *labels))
