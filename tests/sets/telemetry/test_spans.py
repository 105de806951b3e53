"""The spans of one task: their family, their times, and what they say of the task."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from scheduler.moments import LostAttempt, Moments
from scheduler.task import Kind, Reason, State, Task, TaskSpec
from scheduler.timeline import phases_of
from sets.telemetry import spans

CREATED_US = 1_700_000_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


def written(task: Task) -> dict[str, ReadableSpan]:
    """The spans of a task by name."""
    memory = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(memory))
    count = spans.write(tracers.get_tracer("test"), task, phases_of(task))
    found = memory.get_finished_spans()
    assert count == len(found)
    return {span.name: span for span in found}


def ended(
    *, kind: Kind = Kind.SYNC, trace: str | None = None, state: State = State.SUCCEEDED, **facts: Any
) -> Task:
    spec = TaskSpec("acme", "cat:1", "sha256:1", kind=kind, trace=trace)
    return Task(
        "a-1",
        spec,
        CREATED_US,
        state,
        started_us=CREATED_US + 20,
        ended_us=CREATED_US + 90,
        attempts=1,
        moments=Moments(0, 10, 30, 80, 95),
        **facts,
    )


def test_a_task_is_a_span_with_its_phases_in_it() -> None:
    found = written(ended(cold_start=True, exit_code=0))
    task = found.pop("cat:1")
    assert (task.start_time, task.end_time) == (CREATED_US * 1000, (CREATED_US + 95) * 1000)
    assert task.parent is None
    assert task.kind is SpanKind.SERVER
    assert task.status.status_code is StatusCode.UNSET
    assert task.attributes is not None
    said = ("faas.name", "faas.invocation_id", "faas.trigger", "faas.coldstart", "process.exit.code")
    assert [task.attributes[name] for name in said] == ["cat:1", "a-1", "http", True, 0]
    assert set(found) == {"accept", "slot_wait", "begin", "run", "record"}
    for phase in found.values():
        assert phase.parent == task.context
    run = found["run"]
    assert (run.start_time, run.end_time) == ((CREATED_US + 30) * 1000, (CREATED_US + 90) * 1000)


def test_a_task_continues_its_callers_trace() -> None:
    for span in written(ended(kind=Kind.ASYNC, trace=f"00-{TRACE}-{CALLER}-01")).values():
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACE
        if span.name == "cat:1":
            assert span.parent is not None
            assert f"{span.parent.span_id:016x}" == CALLER
            assert span.kind is SpanKind.CONSUMER


def test_a_caller_that_is_not_sampled_gets_no_spans() -> None:
    assert written(ended(trace=f"00-{TRACE}-{CALLER}-00")) == {}


def test_a_failure_is_the_spans_status() -> None:
    task = written(
        ended(state=State.FAILED, reason=Reason.EXIT, detail="it exited with status 3", exit_code=3)
    )["cat:1"]
    assert task.status.status_code is StatusCode.ERROR
    assert task.status.description == "it exited with status 3"
    assert task.attributes is not None
    assert (task.attributes["error.type"], task.attributes["process.exit.code"]) == ("exit", 3)


def test_a_cancelled_task_is_no_error() -> None:
    task = written(ended(state=State.CANCELLED, reason=Reason.CANCELLED))["cat:1"]
    assert task.status.status_code is StatusCode.UNSET
    assert task.attributes is not None
    assert task.attributes["gc.reason"] == "cancelled"


def test_a_lost_attempt_is_a_phase_that_says_why() -> None:
    lost = LostAttempt(CREATED_US + 1, CREATED_US + 5, "the slot was lost")
    earlier = written(ended(lost=(lost,)))["earlier_attempt"]
    assert earlier.status.status_code is StatusCode.ERROR
    assert earlier.status.description == "the slot was lost"


def test_a_task_that_never_ran_has_a_span() -> None:
    spec = TaskSpec("acme", "cat:1", "sha256:1")
    task = Task("a-1", spec, CREATED_US, State.CANCELLED, Reason.CANCELLED, ended_us=CREATED_US + 7)
    found = written(task)
    assert found["cat:1"].end_time == (CREATED_US + 7) * 1000
