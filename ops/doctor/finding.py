"""Findings, and the checks that make them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

T = TypeVar("T")


class Level(StrEnum):
    """`UNKNOWN`: the check could not run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


class CannotTell(Exception):
    """A probe cannot gather its facts; the message says why."""


@dataclass(frozen=True)
class Finding:
    """The result of a check. `mend`: the command, or the change, that mends it; empty where nothing is wrong."""

    level: Level
    text: str
    mend: str = ""


def ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def warn(text: str, mend: str) -> Finding:
    return Finding(Level.WARN, text, mend)


def fail(text: str, mend: str) -> Finding:
    return Finding(Level.FAIL, text, mend)


@dataclass(frozen=True)
class Check:
    """A check, not yet made. `part`: what is examined, such as `set a`."""

    part: str
    name: str
    look: Callable[[], Finding | Iterable[Finding]]


@dataclass(frozen=True)
class Told:
    """A finding and the check that made it."""

    part: str
    check: str
    finding: Finding


def check(
    part: str, name: str, probe: Callable[[], T], judge: Callable[[T], Finding | Iterable[Finding]]
) -> Check:
    """Make the check that judges a probe's facts."""
    return Check(part, name, lambda: judge(probe()))


def examine(checks: Iterable[Check]) -> Iterator[Told]:
    """Make the checks, one after another. One that cannot run says so and why; the others go on."""
    for each in checks:
        try:
            made = each.look()
            found = [made] if isinstance(made, Finding) else list(made)
        except CannotTell as error:
            found = [_unknown(str(error))]
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            found = [_unknown(f"{where}{error.strerror or error}")]
        for finding in found:
            text, mend = without_secrets(finding.text), without_secrets(finding.mend)
            yield Told(without_secrets(each.part), each.name, Finding(finding.level, text, mend))


def _unknown(why: str) -> Finding:
    return Finding(Level.UNKNOWN, f"not checked: {why}")


_SECRETS: Final = (
    # User and password of a URL.
    re.compile(r"(?<=://)[^/@\s]+(?=@)"),
    # A token of ours, which somebody wrote where a name belongs.
    re.compile(r"\bgc_[a-z0-9-]+_[0-9A-Za-z]{8,}"),
)


def without_secrets(text: str) -> str:
    """Hide what messages may quote from files and addresses."""
    for pattern in _SECRETS:
        text = pattern.sub("…", text)
    return text
