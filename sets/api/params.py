"""The query parameters of `run`: one table says what each may be, for the parser and for openapi.json alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from scheduler.errors import BadRequest
from scheduler.execution import TOKEN_VARIABLE
from scheduler.task import Isolation, Priority

SYNC_TIMEOUT_MAX_S: Final = 300.0
ASYNC_TIMEOUT_MAX_S: Final = 86_400.0
SYNC_TIMEOUT_S: Final = 60.0
ASYNC_TIMEOUT_S: Final = 3600.0
NAME_CHARS: Final = 128
OUTPUTS: Final = 64
PATH_BYTES: Final = 4095
QUEUE_TIMEOUT_MAX_S: Final = 300.0

DECIMAL: Final = re.compile(r"\d{1,9}(\.\d{1,20})?", re.ASCII)
"""How numbers are written; as many decimals as a program prints of a float."""
_VARIABLE: Final = re.compile(r"[^=]+=")
_FEATURE: Final = re.compile(r"[a-z0-9_.]{1,32}", re.ASCII)


class RunParams(msgspec.Struct, frozen=True):
    """The parameters as given; None where one was not."""

    arg: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    name: str | None = None
    timeout_s: float | None = None
    queue_timeout_s: float = 10.0
    stream: bool = False
    cpu: float = 1.0
    memory_mib: int = 512
    isolation: Isolation | None = None
    cpu_feature: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    prestart: bool | None = None
    priority: Priority = Priority.NORMAL

    def timeout(self, *, sync: bool) -> float:
        """The run-time limit in seconds. Raises `BadRequest` above the kind's limit."""
        limit = SYNC_TIMEOUT_MAX_S if sync else ASYNC_TIMEOUT_MAX_S
        if self.timeout_s is None:
            return SYNC_TIMEOUT_S if sync else ASYNC_TIMEOUT_S
        if self.timeout_s > limit:
            kind = "a synchronous task; send `Prefer: respond-async` for longer ones" if sync else "a task"
            raise BadRequest(f"timeout_s: at most {limit:g} for {kind}", field="timeout_s")
        return self.timeout_s


def _text(name: str, value: str) -> str:
    if "\0" in value:
        raise BadRequest(f"{name}: a NUL character cannot be passed to a program", field=name)
    return value


def _variable(name: str, value: str) -> str:
    if not _VARIABLE.match(value):
        raise BadRequest(f"{name}: {value[:80]!r} is not NAME=value", field=name)
    if value.startswith(TOKEN_VARIABLE + "="):
        raise BadRequest(f"{name}: {TOKEN_VARIABLE} is the platform's own name; choose another", field=name)
    return _text(name, value)


def _label(name: str, value: str) -> str:
    if len(value) > NAME_CHARS:
        raise BadRequest(f"{name}: at most {NAME_CHARS} characters", field=name)
    return _text(name, value)


def _number(low: float, high: float) -> Callable[[str, str], float]:
    def parse(name: str, value: str) -> float:
        number = float(value) if DECIMAL.fullmatch(value) else -1.0
        if not low <= number <= high:
            raise BadRequest(f"{name}: {value[:40]!r} is not a number from {low:g} to {high:g}", field=name)
        return number

    return parse


def _cpu(name: str, value: str) -> float:
    cores = _number(0.01, 1024)(name, value)
    # 1.1 * 100 is not 110 in binary.
    if abs(round(cores * 100) - cores * 100) > 1e-6:
        raise BadRequest(
            f"{name}: {value!r} has more than two decimals; cores are given in hundredths", field=name
        )
    return cores


def _memory(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,8}", value, re.ASCII) or not 16 <= int(value) <= 16_777_216:
        raise BadRequest(f"{name}: {value[:40]!r} is not a whole number of MiB from 16 on", field=name)
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise BadRequest(f"{name}: {value[:40]!r} is neither 1 nor 0", field=name)
    return value == "1"


def _isolation(name: str, value: str) -> Isolation:
    try:
        return Isolation(value)
    except ValueError:
        raise BadRequest(f"{name}: {value[:40]!r} is neither shared nor fresh", field=name) from None


def _priority(name: str, value: str) -> Priority:
    if value != Priority.NORMAL:
        raise BadRequest(
            f"{name}: {value[:40]!r} is not normal, the only one that this set knows", field=name
        )
    return Priority.NORMAL


def _feature(name: str, value: str) -> str:
    if not _FEATURE.fullmatch(value):
        raise BadRequest(f"{name}: {value[:40]!r} is not a CPU flag such as avx2", field=name)
    return value


def _path(name: str, value: str) -> str:
    parts = value.split("/")
    plain = value.startswith("/") and len(value) >= 2 and not {"", ".", ".."} & set(parts[1:])
    if not plain or len(value.encode()) > PATH_BYTES:
        raise BadRequest(
            f"{name}: {value[:80]!r} is not the plain absolute path of a file, {PATH_BYTES} bytes at most",
            field=name,
        )
    return _text(name, value)


class Parameter(msgspec.Struct, frozen=True):
    """How one parameter is read, and what openapi.json says of it."""

    parse: Callable[[str, str], Any]
    schema: dict[str, Any]
    help: str
    repeatable: int = 0
    """How often it may stand; 0: once."""


STRING: Final = {"type": "string"}
PARAMETERS: Final[dict[str, Parameter]] = {
    "arg": Parameter(
        _text, STRING, "an argument after the image's entrypoint; none: the image's own CMD", 8192
    ),
    "env": Parameter(
        _variable,
        {"type": "string", "pattern": "^[^=]+="},
        f"NAME=value, added to the environment; any name but {TOKEN_VARIABLE}",
        1024,
    ),
    "name": Parameter(_label, {"type": "string", "maxLength": NAME_CHARS}, "the caller's own label"),
    "timeout_s": Parameter(
        _number(0.001, 999_999_999),
        {"type": "number", "minimum": 0.001, "maximum": ASYNC_TIMEOUT_MAX_S},
        "run-time limit; 60 (at most 300) for sync, 3600 (at most 86400) for async tasks",
    ),
    "queue_timeout_s": Parameter(
        _number(0, QUEUE_TIMEOUT_MAX_S),
        {"type": "number", "minimum": 0, "maximum": QUEUE_TIMEOUT_MAX_S, "default": 10},
        "sync: how long to wait for a slot before 503",
    ),
    "stream": Parameter(
        _flag,
        {"type": "string", "enum": ["0", "1"], "default": "0"},
        "1: output is sent as it comes, from its first byte",
    ),
    "cpu": Parameter(_cpu, {"type": "number", "minimum": 0.01, "default": 1}, "cores, in hundredths"),
    "memory_mib": Parameter(_memory, {"type": "integer", "minimum": 16, "default": 512}, "memory, MiB"),
    "isolation": Parameter(
        _isolation,
        {"type": "string", "enum": ["shared", "fresh"]},
        "shared or fresh; the image's label by default, else shared",
    ),
    "cpu_feature": Parameter(
        _feature,
        {"type": "string", "pattern": "^[a-z0-9_.]{1,32}$"},
        "a CPU flag that is needed, such as avx2",
        64,
    ),
    "output": Parameter(
        _path,
        {"type": "string", "pattern": r"^(/(?!\.{1,2}(/|$))[^/\x00]+)+$", "maxLength": PATH_BYTES},
        "absolute path of a file to keep beside stdout, a regular file: /v1/tasks/{id}/files/{path} has it afterwards",
        OUTPUTS,
    ),
    "prestart": Parameter(
        _flag,
        {"type": "string", "enum": ["0", "1"]},
        "1: keep a process started for the next task with the same arguments; the image's label by default",
    ),
    "priority": Parameter(
        _priority,
        {"type": "string", "enum": ["normal"], "default": "normal"},
        "normal",
    ),
}


def decode_pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query string. Raises `BadRequest` for what is not UTF-8."""
    pairs: list[tuple[str, str]] = []
    for piece in query.split(b"&"):
        if not piece:
            continue
        raw_name, _, raw_value = piece.replace(b"+", b" ").partition(b"=")
        name = unquote_to_bytes(raw_name).decode(errors="replace")
        try:
            pairs.append((name, unquote_to_bytes(raw_value).decode()))
        except UnicodeDecodeError:
            raise BadRequest(
                f"{name}: the value is not UTF-8; send binary data as the body", field=name
            ) from None
    return pairs


def parse_run(query: bytes) -> RunParams:
    """The parameters of a run. Raises `BadRequest` that names the parameter."""
    # Clients repeat themselves: the same few query strings, over and over.
    return _parse_cached(query) if len(query) <= 512 else _parse(query)


def _parse(query: bytes) -> RunParams:
    values: dict[str, Any] = {}
    for name, value in decode_pairs(query):
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise BadRequest(
                f"{name[:80]}: there is no such parameter; there are {', '.join(PARAMETERS)}", field=name
            )
        parsed = parameter.parse(name, value)
        if parameter.repeatable:
            listed = values.setdefault(name, [])
            listed.append(parsed)
            if len(listed) > parameter.repeatable:
                raise BadRequest(f"{name}: at most {parameter.repeatable} times", field=name)
        elif name in values:
            raise BadRequest(f"{name}: stands twice", field=name)
        else:
            values[name] = parsed
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return RunParams(**arguments)


_parse_cached = lru_cache(maxsize=4096)(_parse)
