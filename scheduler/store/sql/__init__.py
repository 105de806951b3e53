"""SQL in files: `queries.sql` holds named, described queries, `schema_N.sql` what brings a store to version N."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Final, TypeVar

ROWS_PER_STATEMENT: Final = 16
"""Rows in one statement: each number of rows is a statement of its own, which is prepared once and then kept."""

_NAME: Final = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_COMMENT: Final = re.compile(r"--[^\n]*")
_ROW: Final = re.compile(r"VALUES (\((?:\?, )*\?\))")
_SCHEMA_FILE: Final = re.compile(r"schema_(\d+)\.sql")

T = TypeVar("T")


def parse(text: str) -> dict[str, str]:
    """Queries by name, without their comments. Raises `ValueError` for a double name or a missing description."""
    pieces = _NAME.split(text)
    queries: dict[str, str] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in queries:
            raise ValueError(f"query {name} appears twice in queries.sql")
        if not body.lstrip().startswith("--"):
            raise ValueError(f"query {name} in queries.sql has no description")
        queries[name] = " ".join(_COMMENT.sub("", body).split()).removesuffix(";")
    return queries


@cache
def queries() -> dict[str, str]:
    """All queries of `queries.sql`, by name."""
    return parse((files(__package__) / "queries.sql").read_text())


@cache
def schemas() -> list[str]:
    """The scripts of versions 1, 2, …, in order. A store at version n still needs those from index n on."""
    found = {
        int(match[1]): entry.read_text()
        for entry in files(__package__).iterdir()
        if (match := _SCHEMA_FILE.fullmatch(entry.name))
    }
    return [found[version] for version in range(1, len(found) + 1)]


@cache
def for_rows(name: str, rows: int) -> str:
    """The query `name` with its row of `VALUES (?, …)` repeated `rows` times."""
    return _ROW.sub(lambda match: "VALUES " + ", ".join([match[1]] * rows), queries()[name])


def pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """The rows in parts, each of which fits one statement."""
    for at in range(0, len(rows), ROWS_PER_STATEMENT):
        yield rows[at : at + ROWS_PER_STATEMENT]
