"""The spans of a task: one of the task, and one of each phase of its timeline in it."""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from scheduler.task import Kind, State, Task
from scheduler.timeline import Phase

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FAILED: Final = (State.FAILED, State.TIMED_OUT)
_NS: Final = 1000
"""Nanoseconds of a microsecond: spans have the former, tasks the latter."""


def write(tracer: Tracer, task: Task, phases: list[Phase]) -> int:
    """Make the spans of an ended task; returns how many, 0 where its trace is not sampled.

    The task's span is a child of the caller's, whose context came with the request; without one it begins a trace.
    """
    spec = task.spec
    parent = _PROPAGATOR.extract({"traceparent": spec.trace}, Context()) if spec.trace else Context()
    created_us = task.created_us
    end_us = max([task.ended_us or created_us, *(created_us + (phase.to_us or 0) for phase in phases)])
    span = tracer.start_span(
        spec.image,
        parent,
        SpanKind.SERVER if spec.kind is Kind.SYNC else SpanKind.CONSUMER,
        _facts(task),
        start_time=created_us * _NS,
    )
    if not span.is_recording():
        return 0
    if task.state in _FAILED:
        span.set_status(Status(StatusCode.ERROR, task.detail))
    inside = set_span_in_context(span, parent)
    for phase in phases:
        child = tracer.start_span(phase.name, inside, start_time=(created_us + phase.from_us) * _NS)
        if phase.why:
            child.set_status(Status(StatusCode.ERROR, phase.why))
        child.end(end_us * _NS if phase.to_us is None else (created_us + phase.to_us) * _NS)
    span.end(end_us * _NS)
    return len(phases) + 1


def _facts(task: Task) -> dict[str, AttributeValue]:
    """The attributes of a task's span, by the names of the semantic conventions where these have one."""
    spec = task.spec
    facts: dict[str, AttributeValue] = {
        "faas.name": spec.image,
        "faas.version": spec.image_digest,
        "faas.invocation_id": task.id,
        "faas.trigger": "http",
        "faas.coldstart": task.cold_start,
        "faas.max_memory": spec.resources.memory_mib << 20,
        "gc.account": spec.account,
        "gc.kind": spec.kind.value,
        "gc.priority": spec.priority.value,
        "gc.state": task.state.value,
        "gc.attempts": task.attempts,
        "gc.cpu_us": task.cpu_us,
        "gc.stdin_bytes": task.stdin_bytes,
        "gc.stdout_bytes": task.stdout_bytes,
    }
    if task.exit_code is not None:
        facts["process.exit.code"] = task.exit_code
    if task.reason is not None:
        facts["error.type" if task.state in _FAILED else "gc.reason"] = task.reason.value
    if task.batch is not None:
        facts["gc.batch"] = task.batch
    return facts
