"""The schemas of a task and of a problem, for /openapi.json."""

from __future__ import annotations

from typing import Any

from scheduler.task import Reason, State
from scheduler.timeline import MOMENTS
from sets.api.native.problem_kinds import KINDS
from sets.api.native.problems import BASE


def task_schema() -> dict[str, Any]:
    """Return the schema of a task's JSON."""
    text, number, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    maybe_text, maybe_number = {"type": ["string", "null"]}, {"type": ["integer", "null"]}
    moment = {"type": ["string", "null"], "format": "date-time"}
    properties: dict[str, Any] = dict.fromkeys(
        ("id", "set", "image", "image_digest", "kind", "isolation", "priority"), text
    )
    properties |= dict.fromkeys(("name", "detail"), maybe_text)
    properties |= _outputs()
    properties |= {name: {"type": "array", "items": text} for name in ("args", "env")}
    properties |= {
        "state": {"type": "string", "enum": list(State)},
        "reason": {"enum": [*Reason, None]},
        "cold_start": flag,
        "prestarted": flag,
        "timeout_s": {"type": "number"},
        "cpu": {"type": "number"},
        "memory_mib": number,
        "files": {"type": "object", "additionalProperties": number},
    }
    properties["waiting_for"] = maybe_text | {
        "description": "what a queued task waits for, in words; null: it is not queued"
    }
    properties |= dict.fromkeys(("exit_code", "signal"), maybe_number)
    properties["memory_peak_kib"] = maybe_number | {
        "description": "the most that the task's memory cgroup held: its processes, its files in /tmp, the pages that "
        "it read; null: the kernel cannot tell (cgroup version 2 before Linux 6.12, unless it rose above all earlier "
        "tasks of its slot)"
    }
    properties["max_rss_kib"] = number | {"description": "resident memory of the largest process"}
    properties |= {
        "attempts": number
        | {"description": "how often it was started, without the attempts that gave way to other tasks"},
        "failed_attempts": {
            "type": "array",
            "description": "attempts that failed by themselves, after which the task was run again; `cpu_us` and "
            "`duration_us` of the task include theirs",
            "items": {
                "type": "object",
                "properties": {
                    "reason": {"enum": list(Reason)},
                    "exit_code": maybe_number,
                    "signal": maybe_number,
                    "started_at": moment,
                    "duration_us": number,
                    "cpu_us": number,
                },
            },
        },
        "retries": number,
        "retry_exit_codes": {"type": "array", "items": number},
        "dead": flag
        | {"description": "the platform gave the task up, and keeps its input: POST /v1/tasks/{id}/replay"},
        "replay_of": maybe_text | {"description": "the id of the dead letter that this task runs again"},
        "batch": maybe_text | {"description": "the id of the batch that the task belongs to"},
        "replayed_as": maybe_text | {"description": "the id of the task that runs this dead letter again"},
    }
    properties["timeline"] = {
        "type": "object",
        "description": "the task's moments to the microsecond, those of its newest attempt; null: not reached",
        "properties": dict.fromkeys(MOMENTS, moment),
    }
    properties |= dict.fromkeys(("created_at", "started_at", "ended_at", "expires_at"), moment)
    properties |= dict.fromkeys(
        (
            "queue_us",
            "duration_us",
            "cpu_us",
            "stdin_bytes",
        ),
        number,
    )
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _outputs() -> dict[str, Any]:
    """Fields about a task's outputs, in its JSON and in the problem of one that failed."""
    found: dict[str, Any] = {}
    for name in ("stdout", "stderr"):
        only = ", of tasks that did not succeed" if name == "stdout" else ""
        found |= {
            f"{name}_bytes": {"type": "integer", "description": "how many the task wrote"},
            f"{name}_head": {"type": "string", "description": "the first 4 KiB"},
            f"{name}_tail": {
                "type": "string",
                "description": f"the last 4 KiB of what follows the head{only}; empty where the head is all",
            },
            f"{name}_cut_bytes": {
                "type": "integer",
                "description": "how many bytes lie between head and tail, or behind the head, and are not shown",
            },
        }
    return found


def problem_schema() -> dict[str, Any]:
    """Return the schema of a problem (RFC 9457)."""
    return {
        "type": "object",
        "properties": {
            "type": {
                "type": "string",
                "format": "uri",
                "enum": [BASE + name for name in KINDS],
                "description": "its last part is NAME of /problems/NAME, where a page explains it",
            },
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "executed": {
                "type": "boolean",
                "description": "false: no program ran, so the request can be sent elsewhere",
            },
            # Of a parameter or header that is wrong:
            "field": {"type": "string"},
            # Of /readyz:
            "set": {"type": "string"},
            "build": {"type": "string"},
            # Of a task that failed:
            "task": {"type": "string"},
            "reason": {"enum": [*Reason, None]},
            "exit_code": {"type": ["integer", "null"]},
            "signal": {"type": ["integer", "null"]},
            **_outputs(),
        },
        "required": ["type", "title", "status", "detail", "executed"],
    }
