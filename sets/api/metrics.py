"""The metrics of a set: counts of ended tasks, and its manager's gauges."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.batches.batches import Batches
from scheduler.callbacks.deliveries import Deliveries
from scheduler.clock import wall_us
from scheduler.following import Cause
from scheduler.manager import Manager
from scheduler.moments import Moments
from scheduler.policy.rates import Rates
from scheduler.store.contract import DeadLetters
from scheduler.task import FINAL_STATES, Kind, Reason, Task
from sets.api.batch_metrics import BatchCounts
from sets.api.callback_metrics import CallbackCounts
from sets.api.node_metrics import NodeGauges

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the text that `SetMetrics.text` returns, in Prometheus' format."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_LIMITS_US: Final = [round(seconds * 1_000_000) for seconds in _SECONDS]
_SHORTEST_US: Final = _LIMITS_US[0]


class SetMetrics:
    """Counts the manager's events (`scheduler.observer.Observer`)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._tasks = _TaskCounts()
        self._registry.register(self._tasks)
        self._start = Histogram(
            "gc_slot_start_seconds", "From the decision to start a slot to its hello", registry=self._registry
        )

    def task_ended(self, task: Task) -> None:
        self._tasks.count(task)

    def slot_started(self, seconds: float) -> None:
        self._start.observe(seconds)

    def watch(self, manager: Manager, build: str) -> None:
        """Add the manager's gauges, those of its nodes, and the build."""
        self._registry.register(_Gauges(manager, build))
        self._registry.register(NodeGauges(manager.overview))

    def families(self) -> Iterable[Metric]:
        """Return the metrics as they are now, without those that need a check."""
        return self._registry.collect()

    def watch_telemetry(self, counts: Mapping[str, int]) -> None:
        """Add the spans that were sent to the collector or lost; `counts` has them by result."""
        self._registry.register(_Spans(counts))

    def watch_disk(self, folder: Path, reserve_bytes: int) -> None:
        """Add the room on the disk of `folder`, and the reserve below which the set takes no async task."""
        self._registry.register(_Disk(folder, reserve_bytes))

    def watch_callbacks(self, deliveries: Deliveries) -> None:
        """Add the counts of callbacks."""
        self._registry.register(CallbackCounts(deliveries))

    def watch_batches(self, batches: Batches) -> None:
        """Add the numbers of batches."""
        self._registry.register(BatchCounts(batches))

    def watch_rates(self, rates: Rates) -> None:
        """Add the count of requests that were refused because their accounts sent too many."""
        self._registry.register(_Refused(rates))

    def watch_accounts(self, standing: Callable[[], tuple[int, bool]]) -> None:
        """Add the version of the accounts, and whether their file is accepted; `standing` returns both."""
        self._registry.register(_AccountsStanding(standing))

    def watch_certificates(self, ends: Callable[[], Mapping[str, float]]) -> None:
        """Add the time until certificates of links end; `ends` returns the Unix times, by certificate."""
        self._registry.register(_CertificateEnds(ends))

    def text(self, *, ready: bool, launcher_up: bool, dead: DeadLetters | None = None) -> bytes:
        """Return all metrics as they are now, in Prometheus' text format.

        `ready` and `launcher_up` as just checked, `dead` as just read; None: it could not be read.
        """
        checked = CollectorRegistry()
        gauges: list[tuple[str, str, float]] = [
            ("gc_ready", "1 if the set takes tasks, as /readyz says; 0: it would refuse them", ready),
            ("gc_launcher_up", "1 if slots can start; 0: the engine or the registrar is away", launcher_up),
        ]
        if dead is not None:
            gauges += [
                ("gc_dead_letters", "Tasks that the platform gave up, and that can be replayed", dead.tasks),
                ("gc_dead_letters_bytes", "Inputs of the dead letters", dead.size_bytes),
            ]
        for name, help_text, value in gauges:
            Gauge(name, help_text, registry=checked).set(value)
        return generate_latest(self._registry) + generate_latest(checked)


class _Times:
    """How often a time fell into each of `_LIMITS_US`, and above the last."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(_LIMITS_US) + 1)
        self.sum_us = 0

    def add(self, time_us: int) -> None:
        # Most are short, and none is negative unless the wall clock was set back.
        if time_us <= _SHORTEST_US:
            self.counts[0] += 1
            if time_us > 0:
                self.sum_us += time_us
            return
        self.counts[bisect_left(_LIMITS_US, time_us)] += 1
        self.sum_us += time_us


class _TaskCounts(Collector):
    """Counts tasks for almost nothing: plain numbers, made into metrics when they are asked for."""

    def __init__(self) -> None:
        self._given_up = dict.fromkeys(Kind, 0)
        self._failed_attempts = self._lost_attempts = 0
        self._ended = {(kind, state): 0 for kind in Kind for state in sorted(FINAL_STATES)}
        self._cpu_us = self._cold = 0
        self._run, self._queue = _Times(), _Times()
        self._slot_wait, self._input_wait, self._begin = _Times(), _Times(), _Times()
        self._first_byte, self._record = _Times(), _Times()

    def count(self, task: Task) -> None:
        self._ended[task.spec.kind, task.state] += 1
        self._cpu_us += task.cpu_us
        self._run.add(task.duration_us)
        self._queue.add(task.queue_us)
        self._cold += task.cold_start
        if task.moments is not None:
            self._count_moments(task, task.moments)
        given_up = task.reason is Reason.PLATFORM
        self._given_up[task.spec.kind] += given_up
        # The last attempt decided the outcome, unless it was lost or never began.
        decided = task.started_us is not None and not given_up
        if task.attempts > decided:
            self._failed_attempts += len(task.failed_attempts)
            self._lost_attempts += task.lost_attempts - decided

    def _count_moments(self, task: Task, moments: Moments) -> None:
        created_us, ended_us, ready_us = task.created_us, task.ended_us, task.started_us
        if ready_us is not None:
            ready, started = ready_us - created_us, moments.started
            if moments.slot_wanted is not None:
                self._slot_wait.add(ready - moments.slot_wanted)
            # 0: it was there before the task.
            if moments.input_ready:
                self._input_wait.add(moments.input_ready - ready)
            if started is not None:
                self._begin.add(started - ready)
                if moments.first_byte is not None:
                    self._first_byte.add(moments.first_byte - started)
        if ended_us is not None:
            # It is on disk by now.
            self._record.add(wall_us() - ended_us)

    def collect(self) -> list[Metric]:
        ended = CounterMetricFamily("gc_tasks_ended", "Tasks ended", labels=("kind", "state"))
        for (kind, state), count in self._ended.items():
            ended.add_metric((kind.value, state.value), count)
        given_up = CounterMetricFamily(
            "gc_tasks_given_up",
            "Tasks that failed by the platform's fault, not by their program's: it lost each attempt, or the results",
            labels=("kind",),
        )
        for kind, count in self._given_up.items():
            given_up.add_metric((kind.value,), count)
        repeated = CounterMetricFamily(
            "gc_attempts_repeated",
            "Attempts of ended tasks that did not decide their outcome: the platform lost them, or the task failed and "
            "had asked to be run again",
            labels=("cause",),
        )
        repeated.add_metric(("platform",), self._lost_attempts)
        repeated.add_metric(("task",), self._failed_attempts)
        return [
            ended,
            given_up,
            repeated,
            CounterMetricFamily("gc_task_cpu_seconds", "CPU time that tasks used", self._cpu_us / 1e6),
            CounterMetricFamily("gc_tasks_cold", "Tasks that waited for a slot to start", self._cold),
            *(_histogram(f"gc_task_{name}_seconds", text, times) for name, text, times in self._times()),
        ]

    def _times(self) -> list[tuple[str, str, _Times]]:
        return [
            ("run", "Run time of tasks", self._run),
            ("queue", "Time that tasks waited for a slot", self._queue),
            ("slot_wait", "From wanting a slot to having one, of the last attempt", self._slot_wait),
            (
                "input_wait",
                "Time that a task had a slot while its streamed input still arrived",
                self._input_wait,
            ),
            ("begin", "From having a slot to the start of the program", self._begin),
            ("first_byte", "From the start of the program to its first byte of stdout", self._first_byte),
            ("record", "From the end of a task to its outcome on disk", self._record),
        ]


def _histogram(name: str, help_text: str, times: _Times) -> HistogramMetricFamily:
    limits = [*(f"{limit:g}" for limit in _SECONDS), "+Inf"]
    buckets = list(zip(limits, accumulate(times.counts), strict=True))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=times.sum_us / 1e6)


_HELP: Final = {
    "tasks_known": "Tasks that are queued, running or ending",
    "tasks_waiting": "Tasks that wait for a slot: the length of the queue",
    "tasks_waiting_max": "Maximum number of tasks that wait for a slot; the set refuses further ones",
    "oldest_wait_seconds": "How long the normal task that waits longest has waited; 0 when none waits",
    "cores": "Cores that running tasks share",
    "cores_busy": "Cores that running normal tasks occupy, by what they asked for",
    "cores_spare": "Cores that running spare tasks occupy, by what they asked for; normal tasks can have them at once",
    "memory_mib": "Memory that running tasks share, MiB",
    "memory_busy_mib": "Memory that running tasks occupy, by what they asked for, MiB",
    "slots_max": "Maximum number of slots",
    "slots_idle": "Slots that are ready for a task",
    "slots_starting": "Slots that start",
    "slots_running": "Slots that run a task",
    "kept_bytes": "Rows, inputs, results and output files of all accounts' tasks, and what is being written of them",
    "disk_short": "1 while the disk is short of space, and new tasks of the accounts that use most of it are refused",
    "followers": "Outputs that callers follow while their tasks wait or run",
    "prestart_unfit_images": "Images that are no longer prestarted: their programs did not wait for their input",
}


_COUNTERS: Final = {"spare_gave_way": "How often a spare task was told to give way to a normal one"}


class _Gauges(Collector):
    def __init__(self, manager: Manager, build: str) -> None:
        self._manager = manager
        self._build = build

    def collect(self) -> list[Metric]:
        build = GaugeMetricFamily("gc_build_info", "The build that runs: always 1", labels=("build",))
        build.add_metric((self._build,), 1)
        broken = CounterMetricFamily(
            "gc_followers_broken_off", "Answers to followers that were broken off", labels=("cause",)
        )
        for cause in Cause:
            broken.add_metric((cause.value,), self._manager.followers.broken_off[cause])
        return [
            build,
            broken,
            *(
                CounterMetricFamily("gc_" + name, _COUNTERS[name], value)
                if name in _COUNTERS
                else GaugeMetricFamily("gc_" + name, _HELP[name], value=value)
                for name, value in self._manager.facts().items()
            ),
        ]


class _AccountsStanding(Collector):
    def __init__(self, standing: Callable[[], tuple[int, bool]]) -> None:
        self._standing = standing

    def collect(self) -> Iterator[Metric]:
        version, accepted = self._standing()
        yield GaugeMetricFamily("gc_accounts_version", "Version of the accounts that counts", version)
        yield GaugeMetricFamily(
            "gc_accounts_accepted",
            "1 if the file of accounts is accepted; 0: the set goes on with what it knew",
            int(accepted),
        )


class _Refused(Collector):
    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    def collect(self) -> list[Metric]:
        return [
            CounterMetricFamily(
                "gc_requests_over_rate",
                "Requests refused because their account sends more per second than it may",
                self._rates.refused,
            )
        ]


class _Spans(Collector):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> list[Metric]:
        spans = CounterMetricFamily(
            "gc_otel_spans",
            "Spans for the collector: sent, failed (it did not take them) or dropped (too many waited)",
            labels=("result",),
        )
        for result, count in self._counts.items():
            spans.add_metric((result,), count)
        return [spans]


class _Disk(Collector):
    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    def collect(self) -> list[Metric]:
        reserve = GaugeMetricFamily(
            "gc_disk_reserve_bytes",
            "Free disk space below which the set takes no async task and stores no further bodies",
            value=self._reserve_bytes,
        )
        try:
            room = os.statvfs(self._folder)
        except OSError:
            return [reserve]
        free_bytes = room.f_bavail * room.f_frsize
        return [
            GaugeMetricFamily(
                "gc_disk_free_bytes", "Free disk space at the set's `state_dir`", value=free_bytes
            ),
            reserve,
        ]


class _CertificateEnds(Collector):
    def __init__(self, ends: Callable[[], Mapping[str, float]]) -> None:
        self._ends = ends

    def describe(self) -> list[Metric]:
        # Otherwise the registry would ask for the values to learn the name.
        return []

    def collect(self) -> list[Metric]:
        left = GaugeMetricFamily(
            "gc_link_certificate_expires_seconds",
            "Seconds until a certificate of the links to executors ends; negative once it has: `own`, `authority`, or "
            "a node's",
            labels=("certificate",),
        )
        now = time.time()
        for certificate, end in self._ends().items():
            left.add_metric((certificate,), end - now)
        return [left]
