"""The metrics of a set's callbacks."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.callbacks.deliveries import WAITING_MAX, Deliveries


class CallbackCounts(Collector):
    """Reads the counts of the deliveries when metrics are asked for."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def collect(self) -> list[Metric]:
        ended = CounterMetricFamily(
            "gc_callbacks_ended", "Callbacks that were made, or failed for good", labels=("state",)
        )
        for state, count in self._deliveries.ends().items():
            ended.add_metric((state.value,), count)
        tries = CounterMetricFamily(
            "gc_callback_tries",
            "Tries of callbacks that a receiver answered, with any status, and those that none answered",
            labels=("outcome",),
        )
        for outcome, count in self._deliveries.tries().items():
            tries.add_metric((outcome,), count)
        return [
            ended,
            tries,
            GaugeMetricFamily(
                "gc_callbacks_waiting",
                "Callbacks that wait for their receivers, or are being tried",
                value=self._deliveries.waiting(),
            ),
            GaugeMetricFamily(
                "gc_callbacks_waiting_max",
                "Callbacks that may wait when another task is submitted with one",
                value=WAITING_MAX,
            ),
        ]
