"""/openapi.json, generated from the definitions that the code itself uses."""

from __future__ import annotations

from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.task import Reason, State
from sets.api.native.idempotency import HEADER as KEY_HEADER
from sets.api.native.idempotency import KEY_CHARS
from sets.api.native.params import PARAMETERS
from sets.api.native.problem_kinds import KINDS
from sets.api.native.problems import BASE, MEDIA_TYPE

_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_JSON: Final = {"application/json": {"schema": {"type": "object"}}}
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
_PAGE: Final = {"text/html": {"schema": {"type": "string"}}}
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
                    "getTask",
                    "The task; with wait, once it has ended",
                    {"200": _answer("The task", _TASK)},
                    [
                        _path("id"),
                        _query("wait", {"type": "number", "minimum": 0, "maximum": 60}, "seconds to wait"),
                    ],
                    ("400", "404"),
                )
            },
            "/v1/tasks/{id}/stdout": _bytes("getStdout", "Standard output of an async task"),
            "/v1/tasks/{id}/stderr": _bytes("getStderr", "Standard error"),
            "/v1/tasks/{id}/files/{path}": _bytes(
                "getFile",
                "A file that the task was asked to keep, for as long as the task itself",
                _path("path"),
            ),
            "/v1/tasks/{id}/cancel": {
                "post": _operation(
                    "cancelTask",
                    "End a task now; one that has ended stays as it is",
                    {"200": _answer("The task", _TASK)},
                    [_path("id")],
                    ("404",),
                )
            },
            "/v1/idempotency": {
                "get": _operation(
                    "findTaskByKey",
                    "The task that the account's key made within 24 h",
                    {"200": _answer("The task", _TASK)},
                    [_header("Idempotency-Key", "the key to look for", required=True)],
                    ("400", "404"),
                )
            },
            "/v1/admin/nodes": {
                "get": _operation(
                    "listNodes",
                    "The set's machines, for operators: capacity, use, slots by state, tenancy",
                    {"200": _answer("A page of nodes, by name", _JSON)},
                    [
                        _query("after", {"type": "string"}, "the `next` of the page before"),
                        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "nodes at most"),
                    ],
                    ("400",),
                )
            },
            "/livez": {
                "get": _operation(
                    "isAlive", "The process answers", {"200": _answer("Alive", _JSON)}, [], (), guarded=False
                )
            },
            "/readyz": {
                "get": _operation(
                    "isReady",
                    "The set can run tasks",
                    {"200": _answer("Ready", _JSON)},
                    [],
                    ("503",),
                    guarded=False,
                )
            },
            "/metrics": {
                "get": _operation(
                    "getMetrics", "Prometheus metrics", {"200": _answer("Metrics", _TEXT)}, [], ()
                )
            },
            "/problems": {
                "get": _operation(
                    "listProblems",
                    "What each problem means",
                    {"200": _answer("A page", _PAGE)},
                    [],
                    (),
                    guarded=False,
                )
            },
            "/problems/{name}": {
                "get": _operation(
                    "explainProblem",
                    "What a problem means: NAME is the last part of its type",
                    {"200": _answer("A page", _PAGE)},
                    [_path("name", sorted(KINDS))],
                    ("404",),
                    guarded=False,
                )
            },
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
    parameters = [_path("image") | {"examples": {"sample": {"value": "cat:1"}}}]
    for name, parameter in PARAMETERS.items():
        schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
        parameters.append(_query(name, schema, parameter.help))
    parameters += [
        _header("Prefer", "respond-async: answer 202 at once; without it the call is synchronous")
        | {"examples": {"async": {"value": "respond-async"}}},
        _header("Idempotency-Key", "async: the same key and request within 24 h answer the same task"),
    ]
    operation = _operation(
        "runTask",
        "Run a task; the body is its standard input",
        {
            "200": _answer(
                "Standard output; the facts in headers, or at the task's URL where it was streamed. X-Detail: what "
                "the task's `detail` says, if a task that succeeded has one. "
                "After the whole answer, the requested output files can be fetched",
                _BINARY,
                ("X-Task-Id", "X-Detail", *_TASK_FACTS),
            ),
            "202": _answer("The task and its input are on disk", _TASK, ("Location", "X-Task-Id"))
            | {"links": _LINKS},
        },
        parameters,
        ("400", "401", "403", "404", "408", "413", "414", "422", "429", "503", "504"),
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
    return _operation("listTasks", "The account's tasks, newest first", answers, parameters, ("400",))


def _bytes(operation_id: str, summary: str, *more: dict[str, Any]) -> dict[str, Any]:
    """GET, with Range, and HEAD of what a task left."""
    whole = "All that is kept. X-Missing-Bytes: how many more the task wrote, where the set does not keep them all"
    answers = {
        "200": _answer(whole, _BINARY, ("Accept-Ranges", "Content-Length", "X-Missing-Bytes")),
        "206": _answer("The asked range", _BINARY, ("Content-Range", "Content-Length")),
    }
    parameters = [_path("id"), *more, _header("Range", "bytes=FIRST-LAST, of one range")]
    get = _operation(operation_id, summary, answers, parameters, ("404", "409", "410", "416"))
    head = {
        **get,
        "operationId": operation_id.replace("get", "head"),
        "summary": f"{summary}: its size alone",
    }
    head["responses"] = {
        status: {part: told for part, told in answer.items() if part != "content"}
        for status, answer in get["responses"].items()
    }
    return {"get": get, "head": head}


def _operation(
    operation_id: str,
    summary: str,
    answers: dict[str, Any],
    parameters: list[dict[str, Any]],
    problems: tuple[str, ...],
    *,
    guarded: bool = True,
) -> dict[str, Any]:
    """`guarded`: it needs a token where authentication is on, else it answers everybody."""
    problem = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses = answers | {
        status: _answer("A problem", problem, ("Link", *_OF_PROBLEMS.get(status, ())))
        for status in sorted({*problems, *(("401", "403") if guarded else ())})
    }
    operation = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    }
    return operation if guarded else operation | {"security": [{}]}


_OF_PROBLEMS: Final = {
    "401": ("WWW-Authenticate",),
    "416": ("Content-Range",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
_LINKS: Final = {
    operation: {"operationId": operation, "parameters": {"path.id": "$response.body#/id"}}
    for operation in ("getTask", "getStdout", "getStderr", "headStdout", "headStderr", "cancelTask")
} | {
    "findTaskByKey": {
        "operationId": "findTaskByKey",
        "parameters": {f"header.{KEY_HEADER}": f"$request.header.{KEY_HEADER}"},
    }
}
"""Where a task that was answered with 202 is found, for clients that are generated from the document."""
_TASK_FACTS: Final = ("X-Exit-Code", "X-Cpu-Us", "X-Duration-Us", "X-Queue-Us", "X-Cold-Start")
_HEADERS: Final = {
    "Accept-Ranges": ("string", "bytes: ranges can be asked for"),
    "Content-Length": ("integer", "bytes of the body"),
    "Content-Range": ("string", "which part of how many bytes this is"),
    "Link": ("string", "the page that explains the problem, rel=help"),
    "Location": ("string", "where the task is"),
    "Retry-After": ("integer", "seconds until the request may be sent again"),
    "WWW-Authenticate": ("string", "the scheme: Bearer"),
    "X-Cold-Start": ("integer", "1: the task waited for a slot to start"),
    "X-Cpu-Us": ("integer", "CPU time that the task used, microseconds"),
    "X-Detail": ("string", "the task's detail, where it has one"),
    "X-Duration-Us": ("integer", "run time, microseconds"),
    "X-Exit-Code": ("integer", "the program's exit code"),
    "X-Missing-Bytes": ("integer", "bytes that the task wrote and the set does not keep"),
    "X-Reason": ("string", "why the task did not succeed, as `reason` of the problem"),
    "X-Queue-Us": ("integer", "time until a slot was free, microseconds"),
    "X-Set": ("string", "the set that answered"),
    "X-Task-Id": ("string", "the task's id"),
}


def _answer(
    description: str, content: dict[str, Any] | None = None, headers: tuple[str, ...] = ()
) -> dict[str, Any]:
    told = {
        name: {"schema": {"type": _HEADERS[name][0]}, "description": _HEADERS[name][1]}
        for name in ("X-Set", *headers)
    }
    return {"description": description, "headers": told} | ({"content": content} if content else {})


def _path(name: str, values: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"} | ({"enum": values} if values else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name == KEY_HEADER:
        schema |= {"minLength": 1, "maxLength": KEY_CHARS}
    where = {"name": name, "in": "header", "schema": schema, "description": description}
    return where | ({"required": True} if required else {})


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


def _problem_schema() -> dict[str, Any]:
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
