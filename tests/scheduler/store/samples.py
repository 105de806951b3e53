"""Tasks to put into stores."""

from __future__ import annotations

from typing import Any

from scheduler.task import Kind, State, Task, TaskIds, TaskSpec

IDS = TaskIds("a")
T0_US = 1_800_000_000_000_000
HOUR_US = 3_600_000_000


def a_task(
    state: State = State.QUEUED,
    *,
    id: str | None = None,
    account: str = "acme",
    image: str = "cat:1",
    name: str | None = None,
    kind: Kind = Kind.ASYNC,
    created_us: int = T0_US,
    callback_url: str | None = None,
    **facts: Any,
) -> Task:
    spec = TaskSpec(
        account=account,
        image=image,
        image_digest="sha256:00",
        name=name,
        kind=kind,
        args=("-n", "ä"),
        callback_url=callback_url,
    )
    return Task(id or IDS.new(), spec, created_us=created_us, state=state, **facts)


def a_sync_task(**facts: Any) -> Task:
    """As a sync task is written: once, ended."""
    ended = {"exit_code": 0, "attempts": 1, "cpu_us": 700, "expires_us": T0_US + HOUR_US}
    return a_task(State.SUCCEEDED, kind=Kind.SYNC, **(ended | facts))
