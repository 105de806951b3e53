"""Regular expressions of rules, run by RE2: time and memory are bounded whatever a client sends.

Python's `re` goes back and tries again: `(a*)*b` against thirty letters stops a process for minutes, and texts come
from clients. RE2 reads each character once; it has no back references and no lookaround for that reason. All
expressions over one text are one automaton, so that a thousand of them cost about what one costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from router.errors import RouterError

MAX_TEXT: Final = 4096
"""Longer texts match no expression: an account, image, path or cookie is shorter."""
MAX_INSTRUCTIONS: Final = 1000
"""Most instructions of one expression. A character costs about a nanosecond for each, at the worst."""
MAX_INSTRUCTIONS_TOGETHER: Final = 40_000
"""Most instructions of all expressions over one text: at worst a third of a second, usually two microseconds."""
MAX_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Memory in bytes for the automaton of all expressions over one text. Expressions that do not fit are refused; an
automaton that grows beyond this while it runs starts over."""
CACHED: Final = 64

_ADVICE: Final = (
    (
        ("(?=", "(?!", "(?<=", "(?<!"),
        "lookaround is not supported; write a rule before this one for the requests that should go elsewhere",
    ),
    (
        ("(?P=", "(?(", "\\1", "\\2", "\\3", "\\4", "\\5", "\\6", "\\7", "\\8", "\\9"),
        "back references and conditions are not supported; write the alternatives out, as in (aa|bb)",
    ),
    (("\\Z",), "the whole text is matched anyhow; leave \\Z out"),
    (("(?>", "++", "*+", "?+", "}+"), "there is no backtracking here; write (?:…) for (?>…), and + for ++"),
    (
        ("(?#", "(?x", "(?a", "(?L", "(?u"),
        "comments and this flag are not supported; write (?i) or (?s)",
    ),
)
"""RE2's complaints, and what to write instead."""


class BadExpression(RouterError):
    """The text is no regular expression that can be used; the message says what to write."""


class Expressions:
    """Expressions that are all asked about the same text. Raises `BadExpression` where they need too much memory."""

    __slots__ = ("_match",)

    def __init__(self, patterns: Sequence[str]) -> None:
        self._match = _automaton(tuple(patterns))

    def matching(self, text: str) -> list[int]:
        """The numbers of those that match the whole text, in any order."""
        if len(text) > MAX_TEXT:
            return []
        # A path that is no UTF-8 comes with lone surrogates; `.` takes them as it takes any other character.
        numbers: list[int] = self._match(text.encode("utf-8", "surrogatepass"))
        return numbers or []


def check(pattern: str) -> None:
    """Raises `BadExpression` for a text that is no regular expression, or one that is too large."""
    instructions = _instructions(pattern)
    if instructions > MAX_INSTRUCTIONS:
        raise BadExpression(
            f"is too large ({instructions} steps, {MAX_INSTRUCTIONS} at most); repeat less, as in .{{0,50}} or .*"
        )


@lru_cache(maxsize=4096)
def _instructions(pattern: str) -> int:
    """How large the expression's program is."""
    re2, options = _engine()
    try:
        return int(re2.compile(pattern.encode("utf-8", "surrogatepass"), options).programsize)
    except re2.error as error:
        said = error.args[0].decode("utf-8", "replace") if error.args else "unknown"
        raise BadExpression(f"is no regular expression: {said}{_advice(pattern, said)}") from None


def _advice(pattern: str, said: str) -> str:
    """Advice for the part that RE2 complains about."""
    culprit = said.rpartition(": ")[2]
    if said.startswith("invalid repetition size"):
        return "; repeat 1000 times at most, or write * or +"
    for begins, words in _ADVICE:
        for word in begins:
            # RE2 may name only a part of the expression, such as "(?P".
            if word in culprit or (word.startswith(culprit) and len(culprit) > 2 and word in pattern):
                return f"; {words}"
    return ""


@lru_cache(maxsize=CACHED)
def _automaton(patterns: tuple[str, ...]) -> Any:
    """Shared by tables that have the same expressions: what it has learnt about texts stays over a reload."""
    re2, options = _engine()
    automaton = re2.Set.FullMatchSet(options)
    try:
        for pattern in patterns:
            automaton.Add(pattern.encode("utf-8", "surrogatepass"))
        automaton.Compile()
    except re2.error:
        fits = False
    else:
        fits = sum(map(_instructions, patterns)) <= MAX_INSTRUCTIONS_TOGETHER
    if not fits:
        raise BadExpression(
            "are too large together; write `prefix` or `in` where they suffice, and repeat less"
        )
    return automaton.Match


@lru_cache(maxsize=1)
def _engine() -> tuple[Any, Any]:
    """The library and its options; only a file with expressions needs it."""
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.max_mem = MAX_MEMORY_BYTES
    options.log_errors = False
    return re2, options
