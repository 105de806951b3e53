"""The body of a callback: the task's JSON, made small enough for every receiver. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

BODY_BYTES: Final = 20_000
"""Largest body, in bytes: Standard Webhooks asks senders to stay below 20 kB."""
TYPE: Final = "task.ended"
"""The type of the event, as Standard Webhooks wants one."""
_LARGE: Final = (
    "stdout_tail",
    "stderr_tail",
    "stdout_head",
    "stderr_head",
    "failed_attempts",
    "files",
    "env",
    "args",
    "detail",
)
"""Fields that may be large, in the order in which they are left out."""


def body_of(task: dict[str, Any], base_url: str) -> bytes:
    """Return a task's JSON object with `type`, `timestamp`, `url` and `left_out`, the fields that had no room.

    `base_url` is the address before `/v1`, as clients reach it; where it is empty, `url` is the path alone.
    """
    document = {
        "type": TYPE,
        "timestamp": task["ended_at"],
        **task,
        "url": f"{base_url}/v1/tasks/{task['id']}",
        "left_out": [],
    }
    body = msgspec.json.encode(document)
    for name in _LARGE:
        if len(body) <= BODY_BYTES:
            break
        if document.pop(name, None):
            document["left_out"].append(name)
            body = msgspec.json.encode(document)
    return body
