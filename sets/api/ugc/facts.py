"""A task as UGC's clients see it. Pure."""

from __future__ import annotations

from typing import Any, Final

from scheduler.task import Kind, Reason, State, Task
from sets.api.ugc.codes import RetCode

TYPES: Final = {Kind.SYNC: "Sync", Kind.ASYNC: "Async"}
_STATES: Final = {
    State.QUEUED: "Running",
    State.RUNNING: "Running",
    State.SUCCEEDED: "Success",
    State.FAILED: "Fail",
    State.TIMED_OUT: "Fail",
    State.CANCELLED: "Fail",
}


def state_of(task: Task) -> str:
    """UGC knows three states; a task that waits is running, too."""
    return _STATES[task.state]


def summary(task: Task) -> dict[str, Any]:
    """A task in a list."""
    return {
        "TaskId": task.id,
        "TaskName": task.spec.name or "",
        "TaskType": TYPES[task.spec.kind],
        "Owner": task.spec.account,
        "State": state_of(task),
        "CreateTime": task.created_us // 1_000_000,
        "StartTime": (task.started_us or 0) // 1_000_000,
        "EndTime": (task.ended_us or 0) // 1_000_000,
        # Milliseconds, as UCloud's own demonstration shows it.
        "CPUUsage": task.cpu_us // 1000,
    }


def detail(task: Task) -> dict[str, Any]:
    """All of a task."""
    return {
        **summary(task),
        "ImageName": task.spec.image,
        "Cmd": " ".join(task.spec.args),
        "OutputDir": "",
        "OutputFileName": ",".join(task.spec.outputs),
        "Timeout": round(task.spec.timeout_s),
        "StdoutBrief": task.stdout.text().head,
        "StderrBrief": task.stderr.text().head,
    }


def failure(task: Task) -> tuple[RetCode, str]:
    """The code of a task that ended badly, and why in words."""
    said = task.detail or str(task.reason or task.state)
    if task.reason is Reason.PLATFORM:
        return RetCode.SUBMIT_TASK_FAIL, said
    return RetCode.CONTAINER_FAILED, said
