"""A real set beside a real OTLP receiver: what a collector gets of sync and async tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.sets.api.conftest import StartApi, until

pytestmark = pytest.mark.docker
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Collector:
    """What an OTLP receiver was sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: set[str] = set()

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
        elif path == "/v1/metrics":
            for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for part in told.scope_metrics for metric in part.metrics}


@contextmanager
def receiving(collector: Collector) -> Iterator[str]:
    """The address of a receiver for `collector`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def facts(span: Span) -> dict[str, str | int | bool]:
    found: dict[str, str | int | bool] = {}
    for attribute in span.attributes:
        value = attribute.value
        found[attribute.key] = getattr(value, value.WhichOneof("value") or "string_value")
    return found


def test_a_collector_gets_spans_and_metrics(start_api: StartApi, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    with receiving(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        api = start_api("telemetry: true\n")
        context = {"traceparent": f"00-{TRACE}-{CALLER}-01"}

        ran = api.run("exit", "3", headers=context)
        assert ran.status_code == 422
        found = until(lambda: collector.trace(TRACE), "the sync task's spans")
        [failed] = [span for span in found if span.parent_span_id.hex() == CALLER]
        assert failed.kind == Span.SPAN_KIND_SERVER
        assert failed.status.code == Status.STATUS_CODE_ERROR
        said = facts(failed)
        assert said["faas.invocation_id"] == ran.headers["X-Task-Id"]
        assert (said["faas.coldstart"], said["process.exit.code"]) == (True, 3)
        inside = {span.name for span in found if span.parent_span_id == failed.span_id}
        assert inside >= {"slot_wait", "begin", "run", "record"}

        taken = api.run("exit", "0", headers={**context, "Prefer": "respond-async"})
        assert taken.status_code == 202
        task_id = taken.json()["id"]

        def of_async() -> list[Span]:
            return [one for one in collector.trace(TRACE) if facts(one).get("faas.invocation_id") == task_id]

        [done] = until(of_async, "the async task's span")
        assert done.kind == Span.SPAN_KIND_CONSUMER
        assert done.status.code == Status.STATUS_CODE_UNSET

        api.process.stop()
        # They are sent once a minute, and when the set stops.
        assert {"faas.invocations", "faas.errors", "gc_tasks_ended", "gc_cores_busy"} <= collector.metrics
