"""Mistakes in a configuration, in words for operators: which setting, what is wrong, and which values it may have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import inspect

_PLACED: Final = re.compile(r"(?P<said>.*) - at (?P<key>`key` in )?`\$\.?(?P<where>.*)`", re.DOTALL)
"""How msgspec writes a mistake and its place, such as `$.accounts[...].token_hashes[0]`."""
_STEP: Final = re.compile(r"(\w+)|\[[^]]*\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_CHOICE: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)


def in_words(error: msgspec.ValidationError, record: type[msgspec.Struct]) -> str:
    """Return what is wrong with the settings of a `record`, in one line."""
    placed = _PLACED.fullmatch(str(error))
    said, where = (placed["said"], placed["where"]) if placed else (str(error), "")
    kind = _kind_at(inspect.type_info(record), where)
    said = said.replace("Expected", "expected", 1)
    if placed and placed["key"]:
        said = f"a name in it: {said}" if where else f"the name of a setting: {said}"
    elif missing := _MISSING.fullmatch(said):
        said = f"the setting {missing[1]!r} is missing"
    elif isinstance(kind, inspect.StructType) and (unknown := _UNKNOWN.fullmatch(said)):
        close = difflib.get_close_matches(unknown[1], [each.encode_name for each in kind.fields], n=1)
        advice = f"; did you mean {close[0]!r}?" if close else ""
        said = f"there is no setting {unknown[1]!r}{advice}"
    elif choices := ", ".join(_choices(kind)):
        wrong = _CHOICE.fullmatch(said)
        said = f"{wrong[1]} is none of {choices}" if wrong else f"{said}: one of {choices}"
    return f"{where}: {said}" if where else said


def _kind_at(kind: inspect.Type, where: str) -> inspect.Type | None:
    """Return the type of the place that msgspec names; None where that leads nowhere. `X | None` counts as X."""
    for name in _STEP.findall(where):
        match _only(kind):
            case inspect.StructType(fields=fields) if name:
                found = [each.type for each in fields if each.encode_name == name]
            case inspect.DictType(value_type=value) if not name:
                found = [value]
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item) if not name:
                found = [item]
            case _:
                found = []
        if not found:
            return None
        kind = found[0]
    return _only(kind)


def _only(kind: inspect.Type) -> inspect.Type:
    if not isinstance(kind, inspect.UnionType):
        return kind
    others = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
    return others[0] if len(others) == 1 else kind


def _choices(kind: inspect.Type | None) -> Iterator[str]:
    """Yield the values that a setting may have, where they can be counted."""
    if isinstance(kind, inspect.LiteralType):
        yield from map(str, kind.values)
    elif isinstance(kind, inspect.EnumType):
        yield from (str(member.value) for member in kind.cls)
