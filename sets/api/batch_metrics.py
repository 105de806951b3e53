"""The metrics of batches."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.batches.batches import Batches
from scheduler.task import FINAL_STATES


class BatchCounts(Collector):
    """Reads the numbers of the batches when metrics are asked for."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def collect(self) -> list[Metric]:
        facts = self._batches.facts()
        inputs = GaugeMetricFamily(
            "gc_batch_inputs",
            "Inputs of open batches: waiting (their task is not made yet), and by the state of their task",
            labels=("state",),
        )
        for state in ("waiting", "queued", "running"):
            inputs.add_metric((state,), getattr(facts, state))
        ended = CounterMetricFamily(
            "gc_batch_tasks_ended", "Tasks of batches that have ended", labels=("state",)
        )
        for final in sorted(FINAL_STATES):
            ended.add_metric((final.value,), facts.ended.get(final, 0))
        return [
            GaugeMetricFamily("gc_batches_open", "Batches that are not over", value=facts.open),
            inputs,
            CounterMetricFamily(
                "gc_batch_tasks_made", "Tasks that were made for inputs of batches", value=facts.made
            ),
            ended,
        ]
