"""The metrics of a set for OpenTelemetry: those of FaaS, and the counts and gauges that `/metrics` has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from prometheus_client import Metric

from scheduler.task import Kind, State, Task
from scheduler.timeline import Phase

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_BYTES: Final = tuple(1 << power for power in range(20, 37))
_COUNTED: Final = {
    State.SUCCEEDED: ("faas.invocations", "{invocation}", "Tasks that succeeded"),
    State.FAILED: ("faas.errors", "{error}", "Tasks that failed"),
    State.TIMED_OUT: ("faas.timeouts", "{timeout}", "Tasks that ran for longer than they may"),
}


class Numbers:
    """Records what ends and starts, and reports what `families` returned at the last `look`."""

    def __init__(self, meter: Meter, families: Callable[[], Iterable[Metric]]) -> None:
        self._meter = meter
        self._families = families
        self._seen: dict[str, list[Observation]] = {}
        self._ended = {
            state: meter.create_counter(name, unit, text) for state, (name, unit, text) in _COUNTED.items()
        }
        self._cold = meter.create_counter(
            "faas.coldstarts", "{coldstart}", "Tasks that waited for a slot to start"
        )
        self._run = self._histogram("faas.invoke_duration", "Run time of tasks")
        self._cpu = self._histogram("faas.cpu_usage", "CPU time of tasks")
        self._start = self._histogram(
            "faas.init_duration", "From the decision to start a slot until it is ready"
        )
        self._phase = self._histogram("gc.task.phase_duration", "Phases of tasks' timelines")
        self._memory = meter.create_histogram(
            "faas.mem_usage", "By", "Peak memory of tasks", explicit_bucket_boundaries_advisory=_BYTES
        )
        # No image or account among the attributes: their number has no bound.
        self._by_kind = {kind: {"faas.trigger": "http", "gc.kind": kind.value} for kind in Kind}

    def task_ended(self, task: Task, phases: list[Phase]) -> None:
        by_kind = self._by_kind[task.spec.kind]
        counter = self._ended.get(task.state)
        if counter is not None:
            counter.add(1, by_kind)
        if task.cold_start:
            self._cold.add(1, by_kind)
        self._run.record(task.duration_us / 1e6, by_kind)
        self._cpu.record(task.cpu_us / 1e6, by_kind)
        if task.memory_peak_kib:
            self._memory.record(task.memory_peak_kib << 10, by_kind)
        for phase in phases:
            if phase.to_us is not None:
                self._phase.record((phase.to_us - phase.from_us) / 1e6, {**by_kind, "gc.phase": phase.name})

    def slot_started(self, seconds: float) -> None:
        self._start.record(seconds)

    def look(self) -> None:
        """Take the counts and gauges as they are now. The histograms of `/metrics` are those recorded here."""
        for family in self._families():
            if family.type not in ("counter", "gauge"):
                continue
            new = family.name not in self._seen
            self._seen[family.name] = [
                Observation(float(sample.value), sample.labels)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            if new:
                create = (
                    self._meter.create_observable_counter
                    if family.type == "counter"
                    else self._meter.create_observable_gauge
                )
                create(family.name, [partial(self._observed, family.name)], description=family.documentation)

    def _observed(self, name: str, options: CallbackOptions) -> list[Observation]:
        return self._seen[name]

    def _histogram(self, name: str, text: str):  # type: ignore[no-untyped-def]
        return self._meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=_SECONDS)
