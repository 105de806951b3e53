"""Telemetry beside a set: its queue is bounded, what it loses is counted, and nobody waits for a collector."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from scheduler.moments import Moments
from scheduler.task import State, Task, TaskSpec
from sets.api.idempotency import fingerprinted
from sets.api.metrics import SetMetrics
from sets.telemetry import missing, telemetry
from sets.telemetry.telemetry import Telemetry
from tests.conftest import ROOT

SPANS = 6
"""Spans of one task here: its own, and five phases."""


class Stuck(SpanExporter):
    """A collector that takes no spans before it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.go_on.wait()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


class Kept(MetricExporter):
    """Keeps the values of the newest metrics by name and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[tuple[str, ...], Any] = {}

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        for resource in metrics_data.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        told = (str(value) for _, value in sorted((point.attributes or {}).items()))
                        value = point.value if hasattr(point, "value") else point.count
                        self.values[(metric.name, *told)] = value
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        pass


def ended(state: State = State.SUCCEEDED) -> Task:
    spec = TaskSpec("acme", "cat:1", "sha256:1")
    return Task("a-1", spec, 1, state, started_us=21, ended_us=91, moments=Moments(0, 10, 30, 80, 95))


def made(spans: SpanExporter, metrics: MetricExporter | None = None, **environ: str) -> Telemetry:
    return Telemetry(
        "a",
        "build-1",
        SetMetrics().families,
        span_exporter=spans,
        metric_exporter=metrics or Kept(),
        environ=environ,
    )


async def test_closing_sends_what_waits() -> None:
    memory = InMemorySpanExporter()
    telemetry = made(memory)
    telemetry.open()
    telemetry.task_ended(ended())
    await telemetry.close()
    found = memory.get_finished_spans()
    assert len(found) == SPANS
    resource = found[0].resource.attributes
    assert (resource["service.name"], resource["service.instance.id"]) == ("general-compute", "a")
    assert telemetry.counts == {"sent": SPANS, "failed": 0, "dropped": 0}


async def test_a_full_queue_drops_whole_tasks_and_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", str(SPANS))
    stuck = Stuck()
    telemetry = made(stuck, OTEL_BSP_MAX_QUEUE_SIZE=str(2 * SPANS))
    telemetry.task_ended(ended())
    stuck.asked.wait()
    # The collector has one task's spans in hand, two more wait, and the rest finds no room.
    for _ in range(5):
        telemetry.task_ended(ended())
    assert telemetry.counts == {"sent": 0, "failed": 0, "dropped": 3 * SPANS}
    stuck.go_on.set()
    await telemetry.close()
    assert telemetry.counts == {"sent": 3 * SPANS, "failed": 0, "dropped": 3 * SPANS}


async def test_closing_does_not_wait_for_a_stuck_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "FLUSH_S", 0.05)
    stuck = Stuck()
    stopped = made(stuck)
    stopped.task_ended(ended())
    await stopped.close()
    assert stopped.counts["sent"] == 0
    stuck.go_on.set()


async def test_spans_for_a_collector_that_is_away_are_counted_as_failed() -> None:
    with socket.socket() as nobody:
        # Bound and not listening: connections are refused, and nobody else gets the port.
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces"
        telemetry = made(OTLPSpanExporter(url, timeout=0.1))
        telemetry.task_ended(ended())
        await telemetry.close()
    assert telemetry.counts == {"sent": 0, "failed": SPANS, "dropped": 0}


async def test_metrics_have_the_names_of_faas_and_those_of_the_metrics_page() -> None:
    kept = Kept()
    telemetry = made(InMemorySpanExporter(), kept)
    telemetry.open()
    for state in (State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.TIMED_OUT):
        telemetry.task_ended(ended(state))
    telemetry.slot_started(0.5)
    await telemetry.close()
    values = kept.values
    assert values["faas.invocations", "http", "sync"] == 2
    assert values["faas.errors", "http", "sync"] == 1
    assert values["faas.timeouts", "http", "sync"] == 1
    assert values["faas.invoke_duration", "http", "sync"] == 4
    assert values["faas.init_duration",] == 1
    assert values["gc.task.phase_duration", "http", "sync", "slot_wait"] == 4
    assert values["gc_task_cpu_seconds",] == 0
    assert values["gc_tasks_ended", "sync", "failed"] == 0, "this page counted none of them"


async def test_an_exporter_can_be_turned_off() -> None:
    memory, kept = InMemorySpanExporter(), Kept()
    telemetry = made(memory, kept, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")
    telemetry.open()
    telemetry.task_ended(ended())
    await telemetry.close()
    assert memory.get_finished_spans() == ()
    assert kept.values == {}


async def test_a_task_that_cannot_be_told_breaks_nothing() -> None:
    telemetry = made(InMemorySpanExporter())
    broken = ended()
    broken.created_us = None  # type: ignore[assignment]
    with capture_logs() as logs:
        telemetry.task_ended(broken)
        telemetry.task_ended(broken)
    await telemetry.close()
    assert [record["task"] for record in logs] == ["a-1"], "a bug must not fill the log"


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sets.telemetry.find_spec", lambda name: None)
    assert "pip install 'general-compute[otel]'" in (missing() or "")


def test_an_idempotency_key_holds_for_tries_with_other_traces() -> None:
    spec = TaskSpec("acme", "cat:1", "sha256:1")
    traced = TaskSpec(
        "acme", "cat:1", "sha256:1", trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    )
    assert fingerprinted(spec) == fingerprinted(traced)


def test_a_set_without_telemetry_does_not_import_it(tmp_path: Path) -> None:
    assert missing() is None
    script = f"""
import sys
from sets import server
from sets.assembly import assemble
from sets.config import parse
assemble(parse("name: a\\nstate_dir: {tmp_path}\\ndocker_host: unix:///nowhere\\n", "here"))
print(*[name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr
