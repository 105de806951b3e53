"""Sends traces and metrics to an OpenTelemetry collector, by OTLP over HTTP.

Only a set with `telemetry: true` imports this module and OpenTelemetry. The environment's `OTEL_` variables have the
settings, as the SDK knows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import Metric

from scheduler.task import Task
from scheduler.timeline import phases_of
from sets.telemetry import spans
from sets.telemetry.numbers import Numbers

log = structlog.get_logger()

SCOPE: Final = "general-compute"
FLUSH_S: Final = 5.0
"""How long a set that stops waits for its collector."""
LOOK_S: Final = 5.0
"""How long the metrics' thread waits for the loop's counts and gauges before it sends the previous ones."""
QUEUE_SPANS: Final = 8192
"""Spans that wait to be sent, unless `OTEL_BSP_MAX_QUEUE_SIZE` says otherwise."""


class Telemetry:
    """Turns the manager's events into spans and metrics (`scheduler.observer.Observer`).

    Threads of its own send them, so a collector that is slow or away holds nothing up: when `QUEUE_SPANS` wait, whole
    tasks' spans are dropped. `counts` says how many. `families` returns what `/metrics` has; it is called on the loop.
    """

    def __init__(
        self,
        set_name: str,
        build: str,
        families: Callable[[], Iterable[Metric]],
        *,
        span_exporter: SpanExporter | None = None,
        metric_exporter: MetricExporter | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broken = False
        self.counts = {"sent": 0, "failed": 0, "dropped": 0}
        self._ended = 0
        self._queue_spans = _positive(environ.get("OTEL_BSP_MAX_QUEUE_SIZE"), QUEUE_SPANS)
        resource = Resource.create(
            {
                "service.name": environ.get("OTEL_SERVICE_NAME") or SCOPE,
                "service.instance.id": set_name,
                "service.version": build,
            }
        )
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter: _Counted | None = None
        if environ.get("OTEL_TRACES_EXPORTER") != "none":
            self._exporter = _Counted(span_exporter or OTLPSpanExporter(), self.counts)
            self._tracers.add_span_processor(
                BatchSpanProcessor(self._exporter, max_queue_size=self._queue_spans)
            )
        self._tracer = self._tracers.get_tracer(SCOPE, build)
        self._reader: PeriodicExportingMetricReader | None = None
        if environ.get("OTEL_METRICS_EXPORTER") != "none":
            # Without a thread of its own: ours first asks the loop for its numbers.
            self._reader = PeriodicExportingMetricReader(metric_exporter or OTLPMetricExporter(), math.inf)
        self._interval_s = _positive(environ.get("OTEL_METRIC_EXPORT_INTERVAL"), 60_000) / 1000
        self._closing = threading.Event()
        self._metrics_thread: threading.Thread | None = None
        readers = [] if self._reader is None else [self._reader]
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._numbers = Numbers(self._meters.get_meter(SCOPE, build), families)

    # -- Observer

    def task_ended(self, task: Task) -> None:
        """Queue the task's spans and count it. Never raises: the task's own way must not break here."""
        try:
            phases = phases_of(task)
            self._numbers.task_ended(task, phases)
            exporter = self._exporter
            if exporter is None:
                return
            if self._ended - exporter.taken + len(phases) + 1 > self._queue_spans:
                self.counts["dropped"] += len(phases) + 1
                return
            self._ended += spans.write(self._tracer, task, phases)
        except Exception:
            if not self._broken:
                self._broken = True
                log.exception("a task's telemetry is lost; further losses are not logged", task=task.id)

    def slot_started(self, seconds: float) -> None:
        self._numbers.slot_started(seconds)

    # -- life

    def open(self) -> None:
        """Send the metrics from now on, every `OTEL_METRIC_EXPORT_INTERVAL`. Call it on the loop."""
        self._loop = asyncio.get_running_loop()
        if self._reader is not None:
            self._metrics_thread = threading.Thread(
                target=self._send_metrics, name="telemetry-metrics", daemon=True
            )
            self._metrics_thread.start()

    async def close(self) -> None:
        """Send what waits, for `FLUSH_S` at most."""
        loop = asyncio.get_running_loop()
        sent = loop.create_future()

        def shut() -> None:
            # The metrics' thread sends them once more meanwhile.
            self._closing.set()
            self._tracers.shutdown()
            if self._metrics_thread is not None:
                self._metrics_thread.join()
            self._meters.shutdown()
            # The loop is closed where this was too late.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, sent)

        # A daemon, as the SDK's own threads: none of them keeps the process alive.
        threading.Thread(target=shut, name="telemetry-close", daemon=True).start()
        try:
            await asyncio.wait_for(sent, FLUSH_S)
        except TimeoutError:
            log.warning("the collector did not take all telemetry in time", seconds=FLUSH_S, **self.counts)
        self._loop = None

    def _send_metrics(self) -> None:
        assert self._reader is not None
        last = False
        while not last:
            last = self._closing.wait(self._interval_s)
            self._look()
            try:
                self._reader.collect()
            except Exception as error:
                log.warning("the metrics could not be sent", error=str(error))

    def _look(self) -> None:
        """Have the loop take its numbers."""
        loop = self._loop
        if loop is None:
            return
        taken = threading.Event()

        def look() -> None:
            try:
                self._numbers.look()
            finally:
                taken.set()

        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(look)
            taken.wait(LOOK_S)


class _Counted(SpanExporter):
    """Counts the spans that an exporter sent; `taken`: how many left the queue."""

    def __init__(self, exporter: SpanExporter, counts: dict[str, int]) -> None:
        self._exporter = exporter
        self._counts = counts
        self.taken = 0

    def export(self, batch: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(batch)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(batch)
        finally:
            self._counts["sent" if result is SpanExportResult.SUCCESS else "failed"] += len(batch)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _positive(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else default
