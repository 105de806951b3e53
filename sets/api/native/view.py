"""A task as clients see it: the JSON of native-api, and its facts as headers."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.task import FailedAttempt, State, Task
from scheduler.timeline import moments_of

HEADER_CHARS: Final = 1000
"""Longest value of `X-Detail`: proxies on the way may bound all of an answer's headers to 4 KiB."""


def facts(task: Task) -> dict[str, str]:
    """The headers of a sync answer whose task has ended. A task that succeeds may have something to tell, too."""
    headers = {
        "X-Task-Id": task.id,
        "X-Cpu-Us": str(task.cpu_us),
        "X-Duration-Us": str(task.duration_us),
        "X-Queue-Us": str(task.queue_us),
        "X-Cold-Start": "1" if task.cold_start else "0",
    }
    if task.exit_code is not None:
        headers["X-Exit-Code"] = str(task.exit_code)
    if task.reason is not None:
        headers["X-Reason"] = task.reason
    if task.detail is not None and task.state is State.SUCCEEDED:
        headers["X-Detail"] = _header_text(task.detail)
    return headers


def _header_text(text: str) -> str:
    """Any text (it may name files) as a header's value: escaped as in Python, its end cut off where it is too long."""
    escaped = text.encode("unicode_escape").decode("ascii")
    return escaped if len(escaped) <= HEADER_CHARS else escaped[: HEADER_CHARS - 3] + "..."


def task_json(task: Task, set_name: str, waiting_for: str | None) -> dict[str, Any]:
    """The task as a JSON object; `waiting_for` as `Manager.waiting_for` says it."""
    spec = task.spec
    return {
        "id": task.id,
        "set": set_name,
        "image": spec.image,
        "image_digest": spec.image_digest,
        "args": spec.args,
        "env": [variable.partition("=")[0] for variable in spec.env],
        "name": spec.name,
        "kind": spec.kind,
        "state": task.state,
        "waiting_for": waiting_for,
        "reason": task.reason,
        "detail": task.detail,
        "exit_code": task.exit_code,
        "signal": task.signal,
        "attempts": task.attempts,
        "failed_attempts": [_failed(attempt) for attempt in task.failed_attempts],
        "retries": spec.retries,
        "retry_exit_codes": spec.retry_exit_codes,
        "dead": task.dead,
        "replay_of": task.replay_of,
        "replayed_as": task.replayed_as,
        "batch": task.batch,
        "created_at": timestamp(task.created_us),
        "started_at": timestamp(task.started_us),
        "ended_at": timestamp(task.ended_us),
        "timeout_s": spec.timeout_s,
        "cpu": spec.resources.cpu_percent / 100,
        "memory_mib": spec.resources.memory_mib,
        "isolation": spec.isolation,
        "priority": spec.priority,
        "queue_us": task.queue_us,
        "duration_us": task.duration_us,
        "cpu_us": task.cpu_us,
        "memory_peak_kib": task.memory_peak_kib or None,
        "max_rss_kib": task.max_rss_kib,
        "cold_start": task.cold_start,
        "prestarted": task.prestarted,
        "stdin_bytes": task.stdin_bytes,
        **outputs(task),
        "files": task.files,
        "expires_at": timestamp(task.expires_us),
        "timeline": {name: exact_timestamp(us) for name, us in moments_of(task).items()},
    }


def _failed(attempt: FailedAttempt) -> dict[str, Any]:
    return {
        "reason": attempt.reason,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "started_at": timestamp(attempt.started_us),
        "duration_us": attempt.duration_us,
        "cpu_us": attempt.cpu_us,
    }


def outputs(task: Task) -> dict[str, Any]:
    """Return a task's outputs, as shown in its JSON and its problem."""
    stdout, stderr = task.stdout.text(), task.stderr.text()
    return {
        "stdout_bytes": task.stdout_bytes,
        "stdout_head": stdout.head,
        "stdout_tail": stdout.tail,
        "stdout_cut_bytes": stdout.cut_bytes,
        "stderr_bytes": task.stderr_bytes,
        "stderr_head": stderr.head,
        "stderr_tail": stderr.tail,
        "stderr_cut_bytes": stderr.cut_bytes,
    }


def send_accepted(resp: falcon.asgi.Response, task: Task, set_name: str, waiting_for: str | None) -> None:
    """Answer 202: the task is on disk."""
    resp.status = 202
    resp.set_headers({"Location": f"/v1/tasks/{task.id}", "X-Task-Id": task.id})
    send_json(resp, task_json(task, set_name, waiting_for))


def send_json(resp: falcon.asgi.Response, answer: dict[str, Any]) -> None:
    resp.data = msgspec.json.encode(answer)
    resp.content_type = falcon.MEDIA_JSON


def exact_timestamp(us: int | None) -> str | None:
    """Microseconds since the epoch as RFC 3339 in UTC, to the microsecond."""
    if us is None:
        return None
    return f"{_second(us // 1_000_000)}.{us % 1_000_000:06d}Z"


def timestamp(us: int | None) -> str | None:
    """Microseconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    if us is None:
        return None
    return f"{_second(us // 1_000_000)}.{us % 1_000_000 // 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%dT%H:%M:%S}"
