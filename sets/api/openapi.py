"""/openapi.json, generated from the definitions that the code itself uses."""

from __future__ import annotations

from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.task import Reason, State
from sets.api.params import PARAMETERS
from sets.api.problems import MEDIA_TYPE

_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TASK: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/Task"}}}


def document(set_name: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the native API."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "General Compute",
            "version": "1",
            "description": f"Run a Docker image: standard input in, standard output out. Answered by set {set_name}.",
        },
        "security": [{}, {"bearer": []}, {"account": []}],
        "paths": {
            "/v1/run/{image}": {"post": _run()},
            "/v1/tasks": {"get": _list()},
            "/v1/tasks/{id}": {
                "get": _operation(
                    "The task; with wait, once it has ended",
                    {"200": _answer("The task", _TASK)},
                    [
                        _path("id"),
                        _query("wait", {"type": "number", "minimum": 0, "maximum": 60}, "seconds to wait"),
                    ],
                    ("400", "404"),
                )
            },
            "/v1/tasks/{id}/stdout": {"get": _bytes("Standard output of an async task")},
            "/v1/tasks/{id}/stderr": {"get": _bytes("Standard error")},
            "/v1/tasks/{id}/files/{path}": {
                "get": _bytes(
                    "A file that the task was asked to keep, for as long as the task itself", _path("path")
                )
            },
            "/v1/tasks/{id}/cancel": {
                "post": _operation(
                    "End a task now; one that has ended stays as it is",
                    {"200": _answer("The task", _TASK)},
                    [_path("id")],
                    ("404",),
                )
            },
            "/v1/idempotency": {
                "get": _operation(
                    "The task that the account's key made within 24 h",
                    {"200": _answer("The task", _TASK)},
                    [_header("Idempotency-Key", "the key to look for")],
                    ("400", "404"),
                )
            },
            "/livez": {"get": _operation("The process answers", {"200": _answer("Alive")}, [], ())},
            "/readyz": {"get": _operation("The set can run tasks", {"200": _answer("Ready")}, [], ("503",))},
            "/metrics": {"get": _operation("Prometheus metrics", {"200": _answer("Metrics")}, [], ())},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "gc_ACCOUNT_SECRET"},
                "account": {"type": "apiKey", "in": "header", "name": "X-Account"},
            },
            "schemas": {"Task": _task_schema(), "Problem": _problem_schema()},
        },
    }


class OpenApiResource:
    def __init__(self, set_name: str) -> None:
        self._data = msgspec.json.format(msgspec.json.encode(document(set_name)), indent=1)

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = self._data
        resp.content_type = falcon.MEDIA_JSON


def _run() -> dict[str, Any]:
    parameters = [_path("image")]
    for name, parameter in PARAMETERS.items():
        schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
        parameters.append(_query(name, schema, parameter.help))
    parameters += [
        _header("Prefer", "respond-async: answer 202 at once; without it the call is synchronous"),
        _header("Idempotency-Key", "async: the same key and request within 24 h answer the same task"),
    ]
    operation = _operation(
        "Run a task; the body is its standard input",
        {
            "200": _answer(
                "Standard output; the facts in headers, or at the task's URL where it was streamed. X-Detail: what "
                "the task's `detail` says, where a task that succeeded has one. "
                "Whoever has all of it can fetch the output files that were asked for",
                _BINARY,
            ),
            "202": _answer("The task and its input are on disk", _TASK),
        },
        parameters,
        ("400", "401", "404", "408", "413", "414", "422", "429", "503", "504"),
    )
    operation["requestBody"] = {"required": False, "content": _BINARY}
    return operation


def _list() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "tasks": {"type": "array", "items": {"$ref": "#/components/schemas/Task"}},
            "next": {"type": ["string", "null"]},
            "sets": {"type": "array", "items": {"type": "string"}},
            "partial": {"type": "boolean"},
            "missing": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "of the router's partial lists: why a set's tasks are not there, by its name",
            },
        },
    }
    parameters = [
        _query("state", {"type": "string", "enum": list(State)}, "only tasks in this state"),
        _query("image", {"type": "string"}, "only tasks of this image reference"),
        _query("name", {"type": "string"}, "only tasks of this name"),
        _query("before", {"type": "string"}, "the `next` of the page before"),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "tasks on a page"),
    ]
    answers = {"200": _answer("A page of tasks, newest first", {"application/json": {"schema": schema}})}
    return _operation("The account's tasks, newest first", answers, parameters, ("400",))


def _bytes(summary: str, *more: dict[str, Any]) -> dict[str, Any]:
    whole = "All that is kept. X-Missing-Bytes: how many more the task wrote, where the set does not keep them all"
    answers = {"200": _answer(whole, _BINARY), "206": _answer("The asked range", _BINARY)}
    return _operation(summary, answers, [_path("id"), *more], ("404", "409", "410", "416"))


def _operation(
    summary: str, answers: dict[str, Any], parameters: list[dict[str, Any]], problems: tuple[str, ...]
) -> dict[str, Any]:
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = answers | {status: _answer("A problem", problem) for status in problems}
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _answer(description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": description} | ({"content": content} if content else {})


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}


def _task_schema() -> dict[str, Any]:
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
    properties |= dict.fromkeys(("exit_code", "signal"), maybe_number)
    properties["memory_peak_kib"] = maybe_number | {
        "description": "the most that the task's memory cgroup held: its processes, its files in /tmp, the pages that "
        "it read; null: the kernel cannot tell (cgroup version 2 before Linux 6.12, unless it rose above all earlier "
        "tasks of its slot)"
    }
    properties["max_rss_kib"] = number | {"description": "resident memory of the largest process"}
    properties |= dict.fromkeys(("created_at", "started_at", "ended_at", "expires_at"), moment)
    properties |= dict.fromkeys(
        (
            "attempts",
            "queue_us",
            "duration_us",
            "cpu_us",
            "stdin_bytes",
        ),
        number,
    )
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _outputs() -> dict[str, Any]:
    """What is shown of a task's outputs, in its JSON and in the problem of one that failed."""
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


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "executed": {"type": "boolean"},
            # Of a task that failed:
            "task": {"type": "string"},
            "reason": {"enum": [*Reason, None]},
            "exit_code": {"type": ["integer", "null"]},
            "signal": {"type": ["integer", "null"]},
            **_outputs(),
        },
        "required": ["type", "title", "status", "detail", "executed"],
    }
