"""/openapi.json, generated from the definitions that the code itself uses."""

from __future__ import annotations

from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.task import State
from sets.api.native.idempotency import HEADER as KEY_HEADER
from sets.api.native.idempotency import KEY_CHARS
from sets.api.native.params import PARAMETERS
from sets.api.native.problem_kinds import KINDS
from sets.api.native.problems import MEDIA_TYPE
from sets.api.native.schemas import problem_schema, task_schema
from sets.api.native.tasks import DEAD

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
            "/v1/tasks/{id}/replay": {
                "post": _operation(
                    "replayTask",
                    "Run a dead letter again, as a new task; a repeated call returns the same new task",
                    {
                        "202": _answer(
                            "The new task; its `replay_of` names the old one",
                            _TASK,
                            ("Location", "X-Task-Id"),
                        )
                    },
                    [_path("id")],
                    ("400", "403", "404", "409", "422", "429", "503"),
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
            "/v1/admin/pools": {
                "get": _operation(
                    "listPools",
                    "The set's pools, for operators: slots by state, slots wanted, why slots do not start",
                    {"200": _answer("A page of pools, those with most waiting tasks first", _JSON)},
                    [
                        _query("account", {"type": "string"}, "only the pools of this account"),
                        _query("after", {"type": "string"}, "the `next` of the page before"),
                        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "pools at most"),
                    ],
                    ("400",),
                )
            },
            "/v1/admin/queue": {
                "get": _operation(
                    "showQueue",
                    "The set's queue by account, for operators: what waits, what runs and holds what, who floods",
                    {"200": _answer("A page of accounts, those with most waiting tasks first", _JSON)},
                    [
                        _query("after", {"type": "string"}, "the `next` of the page before"),
                        _query(
                            "limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "accounts at most"
                        ),
                    ],
                    ("400",),
                )
            },
            "/v1/admin/drain": {
                "get": _operation(
                    "isDraining",
                    "Whether the set drains, and how many tasks run and wait, for operators",
                    {"200": _answer("Whether it drains", _JSON)},
                    [],
                    ("400",),
                ),
                "put": _operation(
                    "drain",
                    "Take no new tasks and begin none that waits; what runs goes on",
                    {"200": _answer("It drains", _JSON)},
                    [],
                    ("400",),
                ),
                "delete": _operation(
                    "resume",
                    "Take and begin tasks again",
                    {"200": _answer("It takes tasks", _JSON)},
                    [],
                    ("400",),
                ),
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
            "schemas": {"Task": task_schema(), "Problem": problem_schema()},
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
        _query(
            "state",
            {"type": "string", "enum": [*State, DEAD]},
            "only tasks in this state; dead: those that can be replayed",
        ),
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
