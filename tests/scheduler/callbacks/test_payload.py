"""The body of a callback: the task's JSON, never too large."""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from scheduler.callbacks.payload import BODY_BYTES, body_of
from scheduler.task import FailedAttempt, Reason, State, Task
from sets.api.native.view import task_json
from tests.scheduler.store.samples import T0_US, a_task


def ended(**facts: Any) -> Task:
    return a_task(State.FAILED, ended_us=T0_US, reason=Reason.EXIT, exit_code=1, **facts)


def test_it_is_the_task_with_its_type_time_and_link() -> None:
    task = ended(stderr_head=b"no delegate\n")
    facts = task_json(task, "a", None)
    document = json.loads(body_of(facts, "https://compute.example"))
    assert document == json.loads(json.dumps(facts)) | {
        "type": "task.ended",
        "timestamp": facts["ended_at"],
        "url": f"https://compute.example/v1/tasks/{task.id}",
        "left_out": [],
    }


def test_without_an_address_the_link_is_a_path() -> None:
    task = ended()
    assert json.loads(body_of(task_json(task, "a", None), ""))["url"] == f"/v1/tasks/{task.id}"


def test_a_large_task_leaves_out_its_excerpts_first() -> None:
    # Each byte becomes six: \\u0001.
    task = ended(
        stderr_head=b"\x01" * 4096, stderr_tail=b"\x01" * 4096, stderr_bytes=9000, stdout_head=b"short"
    )
    body = body_of(task_json(task, "a", None), "")
    document = json.loads(body)
    assert len(body) <= BODY_BYTES
    assert document["left_out"] == ["stderr_tail", "stdout_head", "stderr_head"]
    assert (document["state"], document["exit_code"], document["stderr_bytes"]) == ("failed", 1, 9000)
    assert "stderr_head" not in document


def test_the_largest_task_fits() -> None:
    task = ended(
        detail="\x01" * 4000,
        files={f"/tmp/{number}" + "x" * 4000: 1 for number in range(64)},
        failed_attempts=tuple(FailedAttempt(Reason.EXIT, 1, None, T0_US, 1, 1) for _ in range(20)),
        **dict.fromkeys(("stdout_head", "stdout_tail", "stderr_head", "stderr_tail"), b"\x01" * 4096),
    )
    task.spec = replace(
        task.spec,
        args=("x" * 60_000,),
        env=tuple(f"N{n}=x" for n in range(1024)),
        image="x" * 255,
        name="\x01" * 128,
    )
    body = body_of(task_json(task, "a", None), "https://compute.example")
    assert len(body) <= BODY_BYTES
    assert json.loads(body)["id"] == task.id
