"""The calls about callbacks in /openapi.json, and the header that asks for one."""

from __future__ import annotations

from typing import Any, Final

from scheduler.callback import CallbackState
from scheduler.callbacks.deliveries import HEADER
from scheduler.callbacks.target import URL_CHARS
from sets.api.native.operation import answer, header, operation, path, query

_CALLBACK: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/Callback"}}}


def callback_header() -> dict[str, Any]:
    """The parameter of a run that asks for a callback."""
    found = header(
        HEADER,
        "async: POST the task's JSON there when it has ended, signed by Standard Webhooks, tried for three days; "
        "needs a secret, which the set's operator gives the account",
    )
    found["schema"] |= {
        "format": "uri",
        "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[A-Za-z0-9\-._~:/?\[\]!$&'()*+,;=%]+$",
        "maxLength": URL_CHARS,
    }
    return found


def callback_paths() -> dict[str, Any]:
    """The calls, by path."""
    page = {
        "type": "object",
        "properties": {
            "callbacks": {"type": "array", "items": {"$ref": "#/components/schemas/Callback"}},
            "next": {"type": ["string", "null"]},
            "sets": {"type": "array", "items": {"type": "string"}},
            "partial": {"type": "boolean"},
            "missing": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "of the router's partial lists: why a set's callbacks are not there, by its name",
            },
        },
    }
    return {
        "/v1/callbacks": {
            "get": operation(
                "listCallbacks",
                "The account's callbacks, those of the newest tasks first",
                {"200": answer("A page of callbacks", {"application/json": {"schema": page}})},
                [
                    query(
                        "state",
                        {"type": "string", "enum": list(CallbackState)},
                        "only callbacks in this state",
                    ),
                    query("before", {"type": "string"}, "the `next` of the page before"),
                    query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50},
                        "callbacks on a page",
                    ),
                ],
                ("400",),
            )
        },
        "/v1/callbacks/{id}/retry": {
            "post": operation(
                "retryCallback",
                "Try a failed callback again, for three more days; one that waits stays as it is",
                {"200": answer("The callback", _CALLBACK)},
                [path("id")],
                ("404", "409", "429"),
            )
        },
    }


def callback_schema() -> dict[str, Any]:
    """The schema of a callback."""
    text, number = {"type": "string"}, {"type": "integer"}
    moment = {"type": ["string", "null"], "format": "date-time"}
    properties = {
        "id": text | {"description": "the id of its task"},
        "set": text,
        "url": text | {"format": "uri"},
        "state": {"type": "string", "enum": list(CallbackState)},
        "tries": number,
        "status": {
            "type": ["integer", "null"],
            "description": "the receiver's last answer; null: it gave none",
        },
        "error": {"type": ["string", "null"], "description": "what was wrong with the last try"},
        "created_at": moment,
        "last_at": moment | {"description": "the time of the last try"},
        "due_at": moment | {"description": "the time of the next try; null: there is none"},
        "ended_at": moment,
        "expires_at": moment,
    }
    return {"type": "object", "properties": properties, "required": sorted(properties)}
