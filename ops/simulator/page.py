"""The report as a page with plots: one file, which needs nothing else."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Final

from ops.simulator.report import Report

STATIC: Final = Path(__file__).with_name("static")


def page(report: Report) -> str:
    """Return the page's HTML."""
    document = {**report.document(), "good": report.good}
    parts = {
        "TITLE": html.escape(f"{report.name}: {report.scenario.about}"),
        "STYLE": _text("page.css"),
        # No text of a scenario can end the element that the data is in.
        "DATA": json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "SCRIPT": _text("plots.js"),
    }
    # In one go: a part's text is not searched for others.
    first, *rest = _text("page.html").split("{{")
    filled = [first]
    for piece in rest:
        name, _, after = piece.partition("}}")
        filled += [parts[name], after]
    return "".join(filled)


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
