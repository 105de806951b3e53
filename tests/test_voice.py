"""Plain English (CONTRIBUTING.md): no docstring opens with a riddle, no text makes readers stumble."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PRODUCT = ("router", "scheduler", "sets", "ops")

RIDDLE = re.compile(r"(What|Whether|Who|Whoever|Of|So|Than|…) ")
"""Openings of a first line that say neither what the thing does nor what it is."""

STUMBLES = re.compile(
    r"stands? (twice|there)\b|\banew\b|\b(to )?be had\b|hardly meant|has all of it|such as it is"
    r"|(is|are|was|were) \w+ no more\b|\b(read|write|lead|say)s? (it |them )?no more\b(?! (of|than))"
    r"|\bfor want of\b|\blest\b|\bhangs? on\b|\bcomes? to nothing\b|\b[Ww]hoever\b"
)
"""Phrases that are correct and yet have to be read twice. Write: appears twice, again, available, is no longer …,
depends on, fails, anybody who, because … is missing."""


def breaches(source: str, path: str) -> Iterator[str]:
    """Yield each place of the source at `path` that breaks a rule."""
    tree = ast.parse(source, path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str) and RIDDLE.match(text.strip()):
                yield f"{path}:{node.lineno}: say first what it does or is: {text.strip().splitlines()[0]!r}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _stumbles(path, node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _stumbles(path, token.start[0], token.string)


COMMENT = re.compile(
    r"\s*(//|/\*|--|#)(?!(include|define|if|ifdef|ifndef|elif|else|endif|error|pragma|undef)\b) ?"
)
NOTED = (".sql", ".yaml", ".c", ".h")
"""Files of other languages whose comments are read."""


def breaches_of_comments(text: str, path: str) -> Iterator[str]:
    """Yield each place of a file in SQL, YAML or C where a comment breaks a rule: how it opens, or its phrases."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        mark = COMMENT.match(line)
        if mark and not inside and RIDDLE.match(line[mark.end() :]):
            yield f"{path}:{number}: say first what it does or is: {line.strip()!r}"
        inside = mark is not None and not line.startswith("-- name: ")
        yield from _stumbles(path, number, line)


def _stumbles(path: str, line: int, text: str) -> Iterator[str]:
    for match in STUMBLES.finditer(" ".join(text.split())):
        yield f"{path}:{line}: rewrite {match[0]!r}"


def pages() -> list[Path]:
    """The Markdown pages of the repository."""
    return sorted(
        [*ROOT.glob("*.md"), *(page for package in PRODUCT for page in (ROOT / package).rglob("*.md"))]
    )


def test_the_pages_speak_plainly() -> None:
    found: list[str] = []
    for page in pages():
        path = page.relative_to(ROOT).as_posix()
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            found += _stumbles(path, number, line)
    assert not found, "\n".join(found)


def test_the_comments_of_other_languages_speak_plainly() -> None:
    found: list[str] = []
    read: set[str] = set()
    for package in PRODUCT:
        for file in sorted((ROOT / package).rglob("*")):
            if file.suffix in NOTED:
                read.add(file.suffix)
                found += breaches_of_comments(
                    file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix()
                )
    assert read == set(NOTED)
    assert not found, "\n".join(found)


def test_the_tests_make_nobody_stumble() -> None:
    found: list[str] = []
    for file in sorted((ROOT / "tests").rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if path != "tests/test_voice.py":
            found += [each for each in breaches(file.read_text(encoding="utf-8"), path) if "rewrite" in each]
    assert not found, "\n".join(found)


def test_the_product_speaks_plainly() -> None:
    found: list[str] = []
    for package in PRODUCT:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            found += breaches(file.read_text(encoding="utf-8"), path)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        '"""What fails five times in a row is ejected."""',
        'LIMIT_S = 1\n"""What it may take."""',
        "x = 1  # read anew",
        'f"the key {x} stands twice"',
        'raise ValueError("the image is prestarted no more")',
        "x = 1  # the worker reads no more",
        "x = 1  # whoever asks learns it",
        "x = 1  # refused for want of memory",
    ],
)
def test_each_breach_is_found(source: str) -> None:
    assert len(list(breaches(source, "a.py"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""The router ejects a set after five failures in a row."""',
        'LIMIT_S = 1\n"""Longest wait, in seconds."""',
        'f"the key {x} appears twice"',
        'print("What a day")',
    ],
)
def test_plain_text_passes(source: str) -> None:
    assert list(breaches(source, "a.py")) == []


@pytest.mark.parametrize(
    "text",
    [
        "-- name: x\n-- What a task left.\nSELECT 1;",
        "-- The write that starts the log anew.",
        "# Whoever edits this reads it.",
        "x: 1\n# What it may take.\ny: 2",
        "// Whether it waits.\nint a;",
        "/* Who may enter. */",
        "int a; // read anew",
    ],
)
def test_each_breach_of_a_comment_is_found(text: str) -> None:
    assert len(list(breaches_of_comments(text, "a.c"))) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "-- The results of a task,\n-- So many bytes at most.",
        "#include <stdio.h>\n// True if it waits.",
        "key: What a day",
    ],
)
def test_a_plain_comment_passes(text: str) -> None:
    assert list(breaches_of_comments(text, "a.c")) == []
