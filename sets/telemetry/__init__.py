"""Traces and metrics for OpenTelemetry, in its modules; this one does not import it."""

from __future__ import annotations

from importlib.util import find_spec


def missing() -> str | None:
    """Say what to install, where OpenTelemetry is not there."""
    if (
        find_spec("opentelemetry") is not None
        and find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    ):
        return None
    return "telemetry is on, but OpenTelemetry is not installed: pip install 'general-compute[otel]'"
