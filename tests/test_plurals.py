"""No message of any package says `1 tasks`: where a number may be 1, the noun follows it or stands before it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

COUNTS = re.compile(
    r"\x00 (pause|gate|set|rule|task|slot|core|worker|connection|mistake|time|attempt|router|file)s\b(?!/)"
)
"""A count that is put before a noun that is always in the plural, in an f-string whose values were replaced by NUL."""

FIXED = {
    "MOST_WORKERS",
    "MAX_MISTAKES",
    "MAX_STEPS",
    "MAX_NODES",
    "parameter.repeatable",
    "state.crashes",
    "name",
}
"""Values that are never 1, and a set's name."""


def test_no_message_puts_any_number_before_a_plural() -> None:
    found = []
    for package in ("router", "scheduler", "sets", "ops"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "bench" not in str(path):
                found += [f"{path.relative_to(ROOT)}:{each}" for each in _doubtful(path)]
    assert found == []


@pytest.mark.parametrize(
    ("message", "doubtful"),
    [
        ("{n} tasks wait", True),
        ("{n} tasks/s", False),
        ("tasks waiting: {n}", False),
        ("{n} of 3 tasks", False),
    ],
)
def test_the_search_finds_what_it_is_for(tmp_path: Path, message: str, doubtful: bool) -> None:
    (tmp_path / "module.py").write_text(f"print(f'{message}')")
    assert bool(_doubtful(tmp_path / "module.py")) == doubtful


def _doubtful(path: Path) -> list[str]:
    """Line and text of f-strings that would say `1 tasks` for one of their numbers."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            values = [ast.unparse(each.value) for each in node.values if isinstance(each, ast.FormattedValue)]
            text = "".join(
                "\x00" if isinstance(each, ast.FormattedValue) else str(getattr(each, "value", ""))
                for each in node.values
            )
            for match in COUNTS.finditer(text):
                value = values[text[: match.start()].count("\x00")]
                if value not in FIXED:
                    found.append(f"{node.lineno}: {{{value}}}{match[0][1:]}")
    return found
