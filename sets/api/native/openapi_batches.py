"""The calls about batches in /openapi.json."""

from __future__ import annotations

from typing import Any, Final

from scheduler.batch import BatchState
from scheduler.batches.item import NAME_CHARS
from scheduler.batches.lines import LINE_BYTES
from scheduler.task import State
from sets.api.native.operation import answer, header, operation, path, query
from sets.api.native.params import PARAMETERS
from sets.api.native.tasks import PAGE_DEFAULT, PAGE_MAX

_BATCH: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/Batch"}}}
_TAR: Final = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
_LINES: Final = {
    "schema": {
        "type": "string",
        # Not JSON as a whole, so clients must not encode it.
        "format": "binary",
        "description": f"JSON lines, each {LINE_BYTES} bytes at most, with args, env (an object), name "
        f"({NAME_CHARS} characters at most), and input or input_base64; all may be left out",
    },
}


def batches_paths() -> dict[str, Any]:
    """The paths below /v1/batches."""
    page = {
        "type": "object",
        "properties": {
            "batches": {"type": "array", "items": {"$ref": "#/components/schemas/Batch"}},
            "next": {"type": ["string", "null"]},
            "sets": {"type": "array", "items": {"type": "string"}},
            "partial": {"type": "boolean"},
            "missing": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "of the router's partial lists: why a set's batches are not there, by its name",
            },
        },
    }
    return {
        "/v1/batches": {
            "get": operation(
                "listBatches",
                "The account's batches, newest first",
                {"200": answer("A page of batches", {"application/json": {"schema": page}})},
                [
                    query("before", {"type": "string"}, "the `next` of the page before"),
                    query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
                        "batches on a page",
                    ),
                ],
                ("400",),
            )
        },
        "/v1/batches/{id}": {
            "post": _submit(),
            "get": operation(
                "getBatch",
                "The batch; with wait, once it is over",
                {"200": answer("The batch", _BATCH)},
                [
                    path("id"),
                    query("wait", {"type": "number", "minimum": 0, "maximum": 60}, "seconds to wait"),
                ],
                ("400", "404"),
            ),
        },
        "/v1/batches/{id}/results": {
            "get": operation(
                "getBatchResults",
                "The results so far, in the order in which the tasks ended: NAME is a task's standard output, "
                "NAME.files/PATH an output file of it, NAME.error.json the task's JSON if it did not succeed",
                {"200": answer("A tar archive", _TAR)},
                [
                    path("id"),
                    query(
                        "after",
                        {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                        "only tasks behind this place: the comment `after=PLACE` of the last entry that was received",
                    ),
                ],
                ("400", "404"),
            )
        },
        "/v1/batches/{id}/cancel": {
            "post": operation(
                "cancelBatch",
                "End a batch and its tasks; one that is over stays as it is",
                {"200": answer("The batch", _BATCH)},
                [path("id")],
                ("400", "404"),
            )
        },
        "/v1/batches/{id}/retry": {
            "post": operation(
                "retryBatch",
                "Run again what failed, timed out or was cancelled",
                {"200": answer("The batch", _BATCH)},
                [path("id")],
                ("400", "404", "503"),
            )
        },
    }


def batch_schema() -> dict[str, Any]:
    """Return the schema of a batch's JSON."""
    text, number = {"type": "string"}, {"type": "integer"}
    maybe_text = {"type": ["string", "null"]}
    properties: dict[str, Any] = dict.fromkeys(("id", "set", "image", "image_digest"), text)
    properties |= dict.fromkeys(("name", "detail"), maybe_text)
    properties |= dict.fromkeys(("inputs", "input_bytes", "retried"), number)
    properties["waiting_for"] = maybe_text | {"description": "why no further tasks are made now, in words"}
    properties["state"] = {"type": "string", "enum": list(BatchState)}
    properties["counts"] = {
        "type": "object",
        "description": "inputs by the state of their task; waiting: their task is not made yet",
        "properties": dict.fromkeys(("waiting", *State), number),
        "required": sorted(("waiting", *State)),
    }
    moment = {"type": ["string", "null"], "format": "date-time"}
    properties |= dict.fromkeys(("created_at", "ended_at", "expires_at"), moment)
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _submit() -> dict[str, Any]:
    # Paths that differ only in the names of their parameters are one path.
    image = {"description": "the image", "examples": {"sample": {"value": "cat:1"}}}
    parameters = [path("id") | image]
    for name, parameter in PARAMETERS.items():
        schema = {"type": "array", "items": parameter.schema} if parameter.repeatable else parameter.schema
        parameters.append(query(name, schema, parameter.help))
    parameters.append(
        query(
            "inputs_of",
            {"type": "string"},
            "with ids of tasks: one of them, or their batch, so that a router finds the set that has them",
        )
    )
    parameters.append(header("Idempotency-Key", "the same key and request within 24 h answer the same batch"))
    found = operation(
        "submitBatch",
        "Run a task for each input in the body",
        {"202": answer("The batch and its inputs are on disk", _BATCH, ("Location",))},
        parameters,
        ("400", "401", "403", "404", "408", "413", "414", "415", "422", "429", "503"),
    )
    found["requestBody"] = {
        "required": True,
        "content": {
            "application/jsonl": _LINES,
            "application/x-ndjson": _LINES,
            **_TAR,
            "text/plain": {
                "schema": {
                    "type": "string",
                    "description": "ids of tasks that succeeded, one in each line; their outputs are the inputs",
                }
            },
        },
    }
    return found
