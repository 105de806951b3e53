"""Turns configuration records into Markdown tables: one row a field, with type, unit, default and docstring."""

from __future__ import annotations

import ast
import inspect
import textwrap
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

UNITS: Final = {"_per_s": "1/s", "_s": "s", "_ms": "ms", "_mib": "MiB", "_bytes": "bytes"}
"""Units by the ending of a setting's name."""


NOT_A_BOUND: Final = 1_000_000_000
"""Upper bounds from here on only catch slips of the keyboard; the table leaves them out."""


def table(record: type[msgspec.Struct]) -> str:
    """Return the table of a record's fields. Raises `ValueError` for a field without a docstring."""
    meanings = _docstrings(record)
    hints = get_type_hints(record, include_extras=True)
    rows = ["| setting | type | unit | default | meaning |", "|---|---|---|---|---|"]
    for field in msgspec.structs.fields(record):
        if field.name not in meanings:
            raise ValueError(f"{record.__name__}.{field.name} needs a docstring")
        cells = (f"`{field.name}`", _kind(hints[field.name]), _unit(field.name), _default(field))
        rows.append(f"| {' | '.join(cells)} | {meanings[field.name]} |")
    return "\n".join(rows) + "\n"


def _docstrings(record: type) -> dict[str, str]:
    """Return the text after each field, in one line."""
    found: dict[str, str] = {}
    body = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    assert isinstance(body, ast.ClassDef)
    for field, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[field.target.id] = " ".join(text.split())
    return found


def _kind(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        hint, *metas = get_args(hint)
        bounds = " and ".join(filter(None, map(_bounds, metas)))
        return f"{_kind(hint)} {bounds}".strip()
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_kind(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(hint))
    if get_origin(hint) is tuple:
        return f"list of {_kind(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"map of name to {_kind(get_args(hint)[1])}"
    if issubclass(hint, msgspec.Struct):
        return f"`{hint.__name__}`"
    return {str: "text", int: "whole number", float: "number", bool: "yes or no"}[hint]


def _bounds(meta: msgspec.Meta) -> str:
    if meta.pattern is not None:
        return f"like `{meta.pattern}`"
    lower = f"above {meta.gt}" if meta.gt is not None else f"from {meta.ge}" if meta.ge is not None else ""
    upper = f"to {meta.le:,.0f}" if meta.le is not None and meta.le < NOT_A_BOUND else ""
    return f"{lower} {upper}".strip()


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "see meaning"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value == {} else f"`{value}`"
