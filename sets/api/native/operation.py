"""The parts of an operation in /openapi.json: its parameters, its answers and their headers."""

from __future__ import annotations

from typing import Any, Final

from sets.api.native.idempotency import HEADER as KEY_HEADER
from sets.api.native.idempotency import KEY_CHARS
from sets.api.native.problems import MEDIA_TYPE

JSON: Final = {"application/json": {"schema": {"type": "object"}}}


def operation(
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
        status: answer("A problem", problem, ("Link", *_OF_PROBLEMS.get(status, ())))
        for status in sorted({*problems, *(("401", "403", "429") if guarded else ())})
    }
    found = {
        "operationId": operation_id,
        "summary": summary,
        "parameters": parameters,
        "responses": responses,
    }
    return found if guarded else found | {"security": [{}]}


_OF_PROBLEMS: Final = {
    "401": ("WWW-Authenticate",),
    "416": ("Content-Range",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
}
_HEADERS: Final = {
    "Accept-Ranges": ("string", "bytes: ranges can be asked for"),
    "Content-Length": ("integer", "bytes of the body"),
    "Content-Range": ("string", "which part of how many bytes this is"),
    "Link": ("string", "the page that explains the problem, rel=help"),
    "Location": ("string", "where the task is"),
    "Retry-After": ("integer", "seconds until the request may be sent again"),
    "WWW-Authenticate": ("string", "the scheme: Bearer"),
    "X-Attempt": (
        "integer",
        "with follow: the number of the start whose output this is, from 1; each lost or repeated attempt adds one",
    ),
    "X-Cold-Start": ("integer", "1: the task waited for a slot to start"),
    "X-Cpu-Us": ("integer", "CPU time that the task used, microseconds"),
    "X-Detail": ("string", "the task's detail, where it has one"),
    "X-Duration-Us": ("integer", "run time, microseconds"),
    "X-Exit-Code": ("integer", "the program's exit code"),
    "X-First-Byte": ("integer", "with follow: the place of the first byte in the whole output, from 0"),
    "X-Missing-Bytes": ("integer", "bytes that the task wrote and the set does not keep"),
    "X-Reason": ("string", "why the task did not succeed, as `reason` of the problem"),
    "X-Queue-Us": ("integer", "time until a slot was free, microseconds"),
    "X-Set": ("string", "the set that answered"),
    "X-Task-Id": ("string", "the task's id"),
}


def answer(
    description: str, content: dict[str, Any] | None = None, headers: tuple[str, ...] = ()
) -> dict[str, Any]:
    told = {
        name: {"schema": {"type": _HEADERS[name][0]}, "description": _HEADERS[name][1]}
        for name in ("X-Set", *headers)
    }
    return {"description": description, "headers": told} | ({"content": content} if content else {})


def path(name: str, values: list[str] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"} | ({"enum": values} if values else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def header(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name == KEY_HEADER:
        schema |= {"minLength": 1, "maxLength": KEY_CHARS}
    where = {"name": name, "in": "header", "schema": schema, "description": description}
    return where | ({"required": True} if required else {})
