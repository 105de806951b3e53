"""The data plane's counts as Prometheus metrics, read when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from router.stats import LATENCY_BOUNDS_S

if TYPE_CHECKING:
    from router.assembly import Router


class RouterCollector(Collector):
    """Yields one family per metric; every name begins with `gc_router_`."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def collect(self) -> Iterator[Metric]:
        plane = self._router.plane
        file = self._router.file
        yield _counter("gc_router_requests", "Requests whose head was read.", plane.requests)
        yield _counter("gc_router_cancelled", "Requests whose client went away.", plane.cancelled)
        yield _counter(
            "gc_router_retries_over_budget", "Retries that the budget forbade.", plane.retries_over_budget
        )
        yield _counter(
            "gc_router_stalled_clients", "Clients that did not read their answer.", plane.stalled_clients
        )
        yield _counter("gc_router_config_reloads", "Configurations taken since the start.", file.reloads)
        yield _counter("gc_router_config_failures", "Configurations refused since the start.", file.failures)
        yield _gauge(
            "gc_router_config_ok", "Whether the file as it is now is in force.", float(file.error is None)
        )
        yield _gauge("gc_router_config_version", "The version in force.", plane.table.version)
        yield _gauge("gc_router_active_requests", "Requests in work.", plane.active)
        yield _gauge("gc_router_connections", "Open client connections.", len(plane.clients))
        problems = CounterMetricFamily(
            "gc_router_problems", "Problems that the router itself answered.", labels=["problem"]
        )
        for name, count in plane.problems.counts.items():
            problems.add_metric([name], count)
        yield problems
        yield from self._sets()

    def _sets(self) -> Iterator[Metric]:
        plane = self._router.plane
        now = plane.loop.time()
        answers = CounterMetricFamily(
            "gc_router_answers", "Answers relayed, by set and status.", labels=["set", "status"]
        )
        failures = CounterMetricFamily(
            "gc_router_failures", "Attempts that failed.", labels=["set", "failure"]
        )
        retries = CounterMetricFamily("gc_router_retries", "Retries sent to a set.", labels=["set"])
        pressure = CounterMetricFamily(
            "gc_router_back_pressure", "Answers `executed: false`.", labels=["set"]
        )
        truncated = CounterMetricFamily("gc_router_truncated", "Answers that broke off.", labels=["set"])
        ejections = CounterMetricFamily("gc_router_ejections", "Ejections by passive checks.", labels=["set"])
        latency = HistogramMetricFamily(
            "gc_router_answer_seconds", "From head to the answer's end.", labels=["set"]
        )
        up = GaugeMetricFamily("gc_router_set_up", "Whether a set is chosen for new work.", labels=["set"])
        weight = GaugeMetricFamily("gc_router_set_weight_percent", "The weight in force.", labels=["set"])
        effective = GaugeMetricFamily(
            "gc_router_set_effective_weight_percent",
            "The share of new work, health and states considered.",
            labels=["set"],
        )
        percentages = plane.chooser.percentages(now)
        inflight = GaugeMetricFamily("gc_router_set_inflight", "Requests in flight.", labels=["set"])
        idle = GaugeMetricFamily("gc_router_set_idle_connections", "Kept connections.", labels=["set"])
        for name, stats in plane.stats.items():
            for status, count in stats.statuses.items():
                answers.add_metric([name, str(status)], count)
            for failure, count in stats.failures.items():
                failures.add_metric([name, failure], count)
            retries.add_metric([name], stats.retries)
            pressure.add_metric([name], stats.back_pressure)
            truncated.add_metric([name], stats.truncated)
            ejections.add_metric([name], stats.ejections)
            latency.add_metric([name], _buckets(stats.latency), stats.latency_sum_s)
        for name in plane.table.sets:
            up.add_metric([name], float(plane.board.of(name).word(now) == "up"))
            weight.add_metric([name], plane.table.default.shares.get(name, 0) / 100)
            effective.add_metric([name], percentages.get(name, 0.0))
            inflight.add_metric([name], plane.pools[name].inflight)
            idle.add_metric([name], plane.pools[name].idle)
        yield from (
            answers,
            failures,
            retries,
            pressure,
            truncated,
            ejections,
            latency,
            up,
            weight,
            effective,
            inflight,
            idle,
        )


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    total = 0
    buckets = []
    for bound, count in zip((*map(str, LATENCY_BOUNDS_S), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
