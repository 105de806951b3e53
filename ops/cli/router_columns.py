"""Prints tables and figures for operators: drawn on a terminal; in a pipe, columns separated by tabs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ops.cli import report

if TYPE_CHECKING:
    from rich.table import Table as Drawn


def percent(value: float) -> str:
    """Return a percentage with two decimals at most; a small one is shown as <0.01, not as 0."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    if text == "0" and value > 0:
        text = "<0.01"
    return f"{text} %"


def milliseconds(value: float | None) -> str:
    return "" if value is None else report.duration(round(value * 1000))


def columns(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print a table: drawn on a terminal; in a pipe with tabs between columns, and nothing cut off."""
    plain = [[report.plain(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(heading), *plain]:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.text import Text

    drawn = drawing(heading, right)
    for row in plain:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def drawing(heading: Sequence[str], right: Sequence[str] = ()) -> Drawn:
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=name in ("SET", "SINCE"))
    return drawn
