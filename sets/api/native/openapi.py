"""/openapi.json, generated from the definitions that the code itself uses."""

from __future__ import annotations

from typing import Any, Final

import falcon
import falcon.asgi
import msgspec

from scheduler.task import State
from sets.api.native.idempotency import HEADER as KEY_HEADER
from sets.api.native.openapi_batches import batch_schema, batches_paths
from sets.api.native.openapi_callbacks import callback_header, callback_paths, callback_schema
from sets.api.native.openapi_operators import operators_paths
from sets.api.native.operation import JSON, answer, header, operation, path, query
from sets.api.native.params import PARAMETERS
from sets.api.native.problem_kinds import KINDS
from sets.api.native.schemas import problem_schema, task_schema
from sets.api.native.tasks import DEAD

_BINARY: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
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
                "get": operation(
                    "getTask",
                    "The task; with wait, once it has ended",
                    {"200": answer("The task", _TASK)},
                    [
                        path("id"),
                        query("wait", {"type": "number", "minimum": 0, "maximum": 60}, "seconds to wait"),
                    ],
                    ("400", "404"),
                )
            },
            "/v1/tasks/{id}/timeline": {
                "get": operation(
                    "getTimeline",
                    "The task's moments and the phases between them; with Accept: text/html, a page with a picture",
                    {"200": answer("The timeline", JSON)},
                    [path("id")],
                    ("400", "404"),
                )
            },
            "/v1/tasks/{id}/stdout": _bytes("getStdout", "Standard output of an async task", followed=True),
            "/v1/tasks/{id}/stderr": _bytes("getStderr", "Standard error", followed=True),
            "/v1/tasks/{id}/files/{path}": _bytes(
                "getFile",
                "A file that the task was asked to keep, for as long as the task itself",
                path("path"),
            ),
            "/v1/tasks/{id}/cancel": {
                "post": operation(
                    "cancelTask",
                    "End a task now; one that has ended stays as it is",
                    {"200": answer("The task", _TASK)},
                    [path("id")],
                    ("404",),
                )
            },
            "/v1/tasks/{id}/replay": {
                "post": operation(
                    "replayTask",
                    "Run a dead letter again, as a new task; a repeated call returns the same new task",
                    {
                        "202": answer(
                            "The new task; its `replay_of` names the old one",
                            _TASK,
                            ("Location", "X-Task-Id"),
                        )
                    },
                    [path("id")],
                    ("400", "403", "404", "409", "422", "429", "503"),
                )
            },
            **batches_paths(),
            "/v1/idempotency": {
                "get": operation(
                    "findTaskByKey",
                    "The task or batch that the account's key made within 24 h",
                    {
                        "200": answer("The task or batch", _TASK),
                        "202": answer("A call under this key is being received, and has no task yet", JSON),
                    },
                    [header("Idempotency-Key", "the key to look for", required=True)],
                    ("400", "404"),
                )
            },
            **callback_paths(),
            **operators_paths(),
            "/livez": {
                "get": operation(
                    "isAlive", "The process answers", {"200": answer("Alive", JSON)}, [], (), guarded=False
                )
            },
            "/readyz": {
                "get": operation(
                    "isReady",
                    "The set can run tasks",
                    {"200": answer("Ready", JSON)},
                    [],
                    ("503",),
                    guarded=False,
                )
            },
            "/metrics": {
                "get": operation(
                    "getMetrics", "Prometheus metrics", {"200": answer("Metrics", _TEXT)}, [], ()
                )
            },
            "/problems": {
                "get": operation(
                    "listProblems",
                    "What each problem means",
                    {"200": answer("A page", _PAGE)},
                    [],
                    (),
                    guarded=False,
                )
            },
            "/problems/{name}": {
                "get": operation(
                    "explainProblem",
                    "What a problem means: NAME is the last part of its type",
                    {"200": answer("A page", _PAGE)},
                    [path("name", sorted(KINDS))],
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
            "schemas": {
                "Task": task_schema(),
                "Batch": batch_schema(),
                "Callback": callback_schema(),
                "Problem": problem_schema(),
            },
        },
    }


class OpenApiResource:
    def __init__(self, set_name: str) -> None:
        self._data = msgspec.json.format(msgspec.json.encode(document(set_name)), indent=1)

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.data = self._data
        resp.content_type = falcon.MEDIA_JSON


def _run() -> dict[str, Any]:
    parameters = [path("image") | {"examples": {"sample": {"value": "cat:1"}}}]
    for name, parameter in PARAMETERS.items():
        schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
        parameters.append(query(name, schema, parameter.help))
    parameters += [
        header("Prefer", "respond-async: answer 202 at once; without it the call is synchronous")
        | {"examples": {"async": {"value": "respond-async"}}},
        header("Idempotency-Key", "async: the same key and request within 24 h answer the same task"),
        callback_header(),
    ]
    run = operation(
        "runTask",
        "Run a task; the body is its standard input",
        {
            "200": answer(
                "Standard output; the facts in headers, or at the task's URL where it was streamed. X-Detail: what "
                "the task's `detail` says, if a task that succeeded has one. "
                "After the whole answer, the requested output files can be fetched",
                _BINARY,
                ("X-Task-Id", "X-Detail", *_TASK_FACTS),
            ),
            "202": answer("The task and its input are on disk", _TASK, ("Location", "X-Task-Id"))
            | {"links": _LINKS},
        },
        parameters,
        ("400", "401", "403", "404", "408", "413", "414", "422", "429", "503", "504"),
    )
    run["requestBody"] = {"required": False, "content": _BINARY}
    return run


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
        query(
            "state",
            {"type": "string", "enum": [*State, DEAD]},
            "only tasks in this state; dead: those that can be replayed",
        ),
        query("image", {"type": "string"}, "only tasks of this image reference"),
        query("name", {"type": "string"}, "only tasks of this name"),
        query("before", {"type": "string"}, "the `next` of the page before"),
        query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "tasks on a page"),
    ]
    answers = {"200": answer("A page of tasks, newest first", {"application/json": {"schema": schema}})}
    return operation("listTasks", "The account's tasks, newest first", answers, parameters, ("400",))


def _bytes(operation_id: str, summary: str, *more: dict[str, Any], followed: bool = False) -> dict[str, Any]:
    """GET, with Range, and HEAD of what a task left; where it can be `followed`, GET of what it writes, too."""
    whole = "All that is kept. X-Missing-Bytes: how many more the task wrote, where the set does not keep them all"
    headers: tuple[str, ...] = ("Accept-Ranges", "Content-Length", "X-Missing-Bytes")
    answers = {"206": answer("The asked range", _BINARY, ("Content-Range", "Content-Length"))}
    parameters = [path("id"), *more, header("Range", "bytes=FIRST-LAST, of one range")]
    errors: tuple[str, ...] = ("400", "404", "409", "410", "416")
    head = operation(
        operation_id.replace("get", "head"),
        f"{summary}: its size alone",
        {"200": answer(whole, _BINARY, headers), **answers},
        parameters,
        errors,
    )
    if followed:
        whole += ". With follow, of a task that waits or runs: chunked, with X-Attempt and X-First-Byte"
        headers += ("X-Attempt", "X-First-Byte")
        parameters = [*parameters, query("follow", {"enum": ["0", "1"]}, _FOLLOW)]
        errors += ("429", "503")
    get = operation(
        operation_id, summary, {"200": answer(whole, _BINARY, headers), **answers}, parameters, errors
    )
    head["responses"] = {
        status: {part: told for part, told in whole_answer.items() if part != "content"}
        for status, whole_answer in head["responses"].items()
    }
    return {"get": get, "head": head}


_FOLLOW: Final = (
    "1: what the task has written so far, then what it writes, until it ends; the answer is broken off where the task "
    "does not succeed, where its attempt is lost, or a follower of a sync task falls too far behind. 0: what it has "
    "written so far. Not together with Range"
)
_LINKS: Final = {
    name: {"operationId": name, "parameters": {"path.id": "$response.body#/id"}}
    for name in ("getTask", "getStdout", "getStderr", "headStdout", "headStderr", "cancelTask")
} | {
    "findTaskByKey": {
        "operationId": "findTaskByKey",
        "parameters": {f"header.{KEY_HEADER}": f"$request.header.{KEY_HEADER}"},
    }
}
"""Where a task that was answered with 202 is found, for clients that are generated from the document."""
_TASK_FACTS: Final = ("X-Exit-Code", "X-Cpu-Us", "X-Duration-Us", "X-Queue-Us", "X-Cold-Start")
