"""Parsers of the values of a run's parameters, for all dialects.

Each function takes a parameter's name and its text, and returns the value. All raise `BadRequest` with the name as its
field, saying what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from scheduler.errors import BadRequest
from scheduler.execution import TOKEN_VARIABLE
from scheduler.task import Isolation, Priority

NAME_CHARS: Final = 128
"""Longest name that a caller gives a task."""
PATH_BYTES: Final = 4095
"""Longest path of an output file: Linux takes no longer one."""

DECIMAL: Final = re.compile(r"\d{1,9}(\.\d{1,20})?([eE]-\d{1,3})?", re.ASCII)
"""How numbers are written: as programs print floats, so 1e-09 is one, too. Large numbers need no exponent."""
_VARIABLE: Final = re.compile(r"[^=]+=")
_FEATURE: Final = re.compile(r"[a-z0-9_.]{1,32}", re.ASCII)


def text(name: str, value: str) -> str:
    """Any text that can be passed to a program."""
    if "\0" in value:
        raise BadRequest(f"{name}: a NUL character cannot be passed to a program", field=name)
    return value


def variable(name: str, value: str) -> str:
    """An environment variable, NAME=value."""
    if not _VARIABLE.match(value):
        raise BadRequest(f"{name}: {value[:80]!r} is not NAME=value", field=name)
    if value.startswith(TOKEN_VARIABLE + "="):
        raise BadRequest(f"{name}: {TOKEN_VARIABLE} is the platform's own name; choose another", field=name)
    return text(name, value)


def label(name: str, value: str) -> str:
    """The caller's own name for a task."""
    if len(value) > NAME_CHARS:
        raise BadRequest(f"{name}: at most {NAME_CHARS} characters", field=name)
    return text(name, value)


def number(low: float, high: float) -> Callable[[str, str], float]:
    """The parser of a number from `low` to `high`."""

    def parse(name: str, value: str) -> float:
        parsed = float(value) if DECIMAL.fullmatch(value) else -1.0
        if not low <= parsed <= high:
            raise BadRequest(f"{name}: {value[:40]!r} is not a number from {low:g} to {high:g}", field=name)
        return parsed

    return parse


def whole_number(low: int, high: int) -> Callable[[str, str], int]:
    """The parser of a whole number from `low` to `high`."""

    def parse(name: str, value: str) -> int:
        parsed = int(value) if re.fullmatch(r"\d{1,9}", value, re.ASCII) else -1
        if not low <= parsed <= high:
            raise BadRequest(f"{name}: {value[:40]!r} is not a whole number from {low} to {high}", field=name)
        return parsed

    return parse


_cores: Final = number(0.01, 1024)


def cpu_percent(name: str, value: str) -> int:
    """Cores with two decimals at most, as hundredths of a core."""
    cores = _cores(name, value)
    # 1.1 * 100 is not 110 in binary.
    if abs(round(cores * 100) - cores * 100) > 1e-6:
        raise BadRequest(
            f"{name}: {value!r} has more than two decimals; cores are given in hundredths", field=name
        )
    return round(cores * 100)


def memory_mib(name: str, value: str) -> int:
    """Memory in whole MiB."""
    if not re.fullmatch(r"\d{1,8}", value, re.ASCII) or not 16 <= int(value) <= 16_777_216:
        raise BadRequest(f"{name}: {value[:40]!r} is not a whole number of MiB from 16 on", field=name)
    return int(value)


def flag(name: str, value: str) -> bool:
    """1 or 0."""
    if value not in ("0", "1"):
        raise BadRequest(f"{name}: {value[:40]!r} is neither 1 nor 0", field=name)
    return value == "1"


def isolation(name: str, value: str) -> Isolation:
    """`shared` or `fresh`."""
    try:
        return Isolation(value)
    except ValueError:
        raise BadRequest(f"{name}: {value[:40]!r} is neither shared nor fresh", field=name) from None


def priority(name: str, value: str) -> Priority:
    """`normal` or `spare`."""
    try:
        return Priority(value)
    except ValueError:
        raise BadRequest(f"{name}: {value[:40]!r} is neither normal nor spare", field=name) from None


def cpu_feature(name: str, value: str) -> str:
    """A CPU flag in the kernel's words, such as avx2."""
    if not _FEATURE.fullmatch(value):
        raise BadRequest(f"{name}: {value[:40]!r} is not a CPU flag such as avx2", field=name)
    return value


def path(name: str, value: str) -> str:
    """The plain absolute path of a file in the container."""
    parts = value.split("/")
    plain = value.startswith("/") and len(value) >= 2 and not {"", ".", ".."} & set(parts[1:])
    if not plain or len(value.encode()) > PATH_BYTES:
        raise BadRequest(
            f"{name}: {value[:80]!r} is not the plain absolute path of a file, {PATH_BYTES} bytes at most",
            field=name,
        )
    return text(name, value)
