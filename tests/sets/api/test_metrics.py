"""The metrics of a set, without a set: what is counted, and what is told of the disk and of health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from scheduler.store.contract import DeadLetters
from scheduler.task import FailedAttempt, Kind, Reason, State, Task, TaskSpec
from sets.api.metrics import SetMetrics


def told(
    metrics: SetMetrics, *, ready: bool = True, launcher_up: bool = True, dead: DeadLetters | None = None
) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels."""
    text = metrics.text(ready=ready, launcher_up=launcher_up, dead=dead).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ended(state: State, reason: Reason | None = None, **facts: Any) -> Task:
    spec = TaskSpec(account="acme", image="cat:1", image_digest="sha256:1", kind=Kind.ASYNC)
    return Task(id="a-1", spec=spec, created_us=1, state=state, reason=reason, **facts)


def test_tasks_that_the_platform_gave_up_are_counted_apart() -> None:
    metrics = SetMetrics()
    metrics.task_ended(ended(State.SUCCEEDED))
    metrics.task_ended(ended(State.FAILED, Reason.EXIT))
    metrics.task_ended(ended(State.FAILED, Reason.PLATFORM))
    found = told(metrics)
    assert found["gc_tasks_ended_total", "async", "failed"] == 2
    assert found["gc_tasks_given_up_total", "async"] == 1
    assert found["gc_tasks_given_up_total", "sync"] == 0


def test_attempts_that_decided_nothing_are_counted_by_cause() -> None:
    metrics = SetMetrics()
    failed = FailedAttempt(Reason.EXIT, 1, None, 1, 1, 1)
    # Four starts: one failed, two were lost, the last one succeeded.
    metrics.task_ended(ended(State.SUCCEEDED, started_us=1, attempts=4, failed_attempts=(failed,)))
    metrics.task_ended(ended(State.FAILED, Reason.PLATFORM, started_us=1, attempts=3))
    # It was cancelled while it waited for its third attempt.
    metrics.task_ended(ended(State.CANCELLED, Reason.CANCELLED, attempts=2, failed_attempts=(failed,)))
    # And these after their first, which had failed or was lost.
    metrics.task_ended(ended(State.CANCELLED, Reason.CANCELLED, attempts=1, failed_attempts=(failed,)))
    metrics.task_ended(ended(State.CANCELLED, Reason.CANCELLED, attempts=1))
    metrics.task_ended(ended(State.CANCELLED, Reason.CANCELLED))
    metrics.task_ended(ended(State.SUCCEEDED, started_us=1, attempts=1))
    found = told(metrics)
    assert found["gc_attempts_repeated_total", "platform"] == 2 + 3 + 1 + 1
    assert found["gc_attempts_repeated_total", "task"] == 1 + 1 + 1


def test_dead_letters_are_told_where_they_could_be_read() -> None:
    found = told(SetMetrics(), dead=DeadLetters(3, 70_000))
    assert (found["gc_dead_letters",], found["gc_dead_letters_bytes",]) == (3, 70_000)
    assert ("gc_dead_letters",) not in told(SetMetrics())


def test_health_is_told_as_it_was_just_checked() -> None:
    found = told(SetMetrics(), ready=False, launcher_up=True)
    assert (found["gc_ready",], found["gc_launcher_up",]) == (0, 1)


def test_the_room_on_the_disk_is_told_beside_the_reserve(tmp_path: Path) -> None:
    metrics = SetMetrics()
    metrics.watch_disk(tmp_path / "state", 256 << 20)
    assert told(metrics)["gc_disk_reserve_bytes",] == 256 << 20
    assert ("gc_disk_free_bytes",) not in told(metrics), "a folder that is gone has no room to tell"
    (tmp_path / "state").mkdir()
    assert told(metrics)["gc_disk_free_bytes",] > 0
