"""/livez, /readyz and /metrics of a set."""

from __future__ import annotations

import falcon.asgi
import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.manager import Manager
from scheduler.task import State, Task

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class SetMetrics:
    """Counts what the manager tells (`scheduler.manager.Observer`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._ended = Counter("gc_tasks_ended", "Tasks ended", ("kind", "state"), registry=self.registry)
        self._cpu = Counter("gc_task_cpu_seconds", "CPU time that tasks used", registry=self.registry)
        self._cold = Counter("gc_tasks_cold", "Tasks that waited for a slot to start", registry=self.registry)
        self._run = Histogram(
            "gc_task_run_seconds", "Run time of tasks", registry=self.registry, buckets=_SECONDS
        )
        self._queue = Histogram(
            "gc_task_queue_seconds",
            "Time that tasks waited for a slot",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._start = Histogram(
            "gc_slot_start_seconds", "From the decision to start a slot to its hello", registry=self.registry
        )
        self._children = {
            (kind, state): self._ended.labels(kind, state) for kind in ("sync", "async") for state in State
        }

    def task_ended(self, task: Task) -> None:
        self._children[task.spec.kind.value, task.state].inc()
        self._cpu.inc(task.cpu_us / 1e6)
        self._run.observe(task.duration_us / 1e6)
        self._queue.observe(task.queue_us / 1e6)
        if task.cold_start:
            self._cold.inc()

    def slot_started(self, seconds: float) -> None:
        self._start.observe(seconds)

    def watch(self, manager: Manager) -> None:
        """Add the manager's gauges."""
        self.registry.register(_Gauges(manager))


class _Gauges(Collector):
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def collect(self) -> list[Metric]:
        return [
            GaugeMetricFamily("gc_" + name, name.replace("_", " "), value=value)
            for name, value in self._manager.facts().items()
        ]


class LiveResource:
    """The process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"status": "ok"}


class ReadyResource:
    """The set can run tasks; a 503 problem when it is draining or its engine does not answer."""

    def __init__(self, manager: Manager, set_name: str) -> None:
        self._manager = manager
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        await self._manager.check()
        resp.data = msgspec.json.encode({"status": "ready", "set": self._set_name, **self._manager.facts()})
        resp.content_type = "application/json"


class MetricsResource:
    def __init__(self, metrics: SetMetrics) -> None:
        self._metrics = metrics

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = generate_latest(self._metrics.registry)
        resp.content_type = "text/plain; version=0.0.4; charset=utf-8"
