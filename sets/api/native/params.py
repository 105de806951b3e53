"""The query parameters of `run`: one table says what each may be, for the parser and for openapi.json alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from scheduler.errors import BadRequest
from scheduler.execution import TOKEN_VARIABLE
from sets.api import values
from sets.api.call import ASYNC_TIMEOUT_MAX_S, RETRIES_MAX, RunCall
from sets.api.query import decode_pairs

OUTPUTS: Final = 64
"""Most output files of one task."""
EXIT_CODES: Final = 255
"""Most exit codes that one task names: all of them."""
QUEUE_TIMEOUT_MAX_S: Final = 300.0
_CACHED_BYTES: Final = 512
"""Longer query strings are not remembered."""


class Parameter(msgspec.Struct, frozen=True):
    """How one parameter is read into which field of a `RunCall`, and what openapi.json says of it."""

    field: str
    parse: Callable[[str, str], Any]
    schema: dict[str, Any]
    help: str
    repeatable: int = 0
    """How often it may be given; 0: once."""


STRING: Final = {"type": "string"}
PARAMETERS: Final[dict[str, Parameter]] = {
    "arg": Parameter(
        "args",
        values.text,
        STRING,
        "an argument after the image's entrypoint; none: the image's own CMD",
        8192,
    ),
    "env": Parameter(
        "env",
        values.variable,
        {"type": "string", "pattern": "^[^=]+="},
        f"NAME=value, added to the environment; any name but {TOKEN_VARIABLE}",
        1024,
    ),
    "name": Parameter(
        "name", values.label, {"type": "string", "maxLength": values.NAME_CHARS}, "the caller's own label"
    ),
    "timeout_s": Parameter(
        "timeout_s",
        values.number(0.001, 999_999_999),
        {"type": "number", "minimum": 0.001, "maximum": ASYNC_TIMEOUT_MAX_S},
        "run-time limit; 60 (at most 300) for sync, 3600 (at most 86400) for async tasks",
    ),
    "queue_timeout_s": Parameter(
        "queue_timeout_s",
        values.number(0, QUEUE_TIMEOUT_MAX_S),
        {"type": "number", "minimum": 0, "maximum": QUEUE_TIMEOUT_MAX_S, "default": 10},
        "sync: how long to wait for a slot before 503",
    ),
    "stream": Parameter(
        "stream",
        values.flag,
        {"type": "string", "enum": ["0", "1"], "default": "0"},
        "1: output is sent as it comes, from its first byte",
    ),
    "cpu": Parameter(
        "cpu_percent",
        values.cpu_percent,
        {"type": "number", "minimum": 0.01, "default": 1},
        "cores, in hundredths",
    ),
    "memory_mib": Parameter(
        "memory_mib", values.memory_mib, {"type": "integer", "minimum": 16, "default": 512}, "memory, MiB"
    ),
    "isolation": Parameter(
        "isolation",
        values.isolation,
        {"type": "string", "enum": ["shared", "fresh"]},
        "shared or fresh; the image's label by default, else shared",
    ),
    "cpu_feature": Parameter(
        "cpu_features",
        values.cpu_feature,
        {"type": "string", "pattern": "^[a-z0-9_.]{1,32}$"},
        "a CPU flag that is needed, such as avx2",
        64,
    ),
    "output": Parameter(
        "outputs",
        values.path,
        {"type": "string", "pattern": r"^(/(?!\.{1,2}(/|$))[^/\x00]+)+$", "maxLength": values.PATH_BYTES},
        "absolute path of a regular file to keep besides stdout; afterwards it is at /v1/tasks/{id}/files/{path}",
        OUTPUTS,
    ),
    "prestart": Parameter(
        "prestart",
        values.flag,
        {"type": "string", "enum": ["0", "1"]},
        "1: keep a process started for the next task with the same arguments; the image's label by default",
    ),
    "priority": Parameter(
        "priority",
        values.priority,
        {"type": "string", "enum": ["normal", "spare"], "default": "normal"},
        "spare: run on what normal tasks leave, and give way to them at once",
    ),
    "retries": Parameter(
        "retries",
        values.whole_number(0, RETRIES_MAX),
        {"type": "integer", "minimum": 0, "maximum": RETRIES_MAX, "default": 0},
        "async: how often a task that failed by itself is run again: by exit code, by a signal, out of memory. Each "
        "attempt that ran is billed. Attempts that the platform lost are made again in any case",
    ),
    "retry_exit_code": Parameter(
        "retry_exit_codes",
        values.whole_number(1, 255),
        {"type": "integer", "minimum": 1, "maximum": 255},
        "async, with retries: run the task again only after this exit code; none: after any failure of its own",
        EXIT_CODES,
    ),
}


def parse_run(query: bytes) -> RunCall:
    """Parse the parameters of a run. Raises `BadRequest` that names the parameter."""
    # Clients repeat themselves: the same few query strings, over and over.
    return _parse_cached(query) if len(query) <= _CACHED_BYTES else _parse(query)


def _parse(query: bytes) -> RunCall:
    found: dict[str, Any] = {}
    for name, value in decode_pairs(query):
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise BadRequest(
                f"{name[:80]}: there is no such parameter; there are {', '.join(PARAMETERS)}", field=name
            )
        parsed = parameter.parse(name, value)
        if parameter.repeatable:
            listed = found.setdefault(parameter.field, [])
            listed.append(parsed)
            if len(listed) > parameter.repeatable:
                raise BadRequest(f"{name}: at most {parameter.repeatable} times", field=name)
        elif parameter.field in found:
            raise BadRequest(f"{name}: given twice; give it once", field=name)
        else:
            found[parameter.field] = parsed
    fields: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in found.items()
    }
    return RunCall(**fields)


_parse_cached = lru_cache(maxsize=4096)(_parse)
