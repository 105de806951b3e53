"""The corpus of raw requests and answers: one case is a few files of one name; the first line of `.expect` gives
the verdict and, after a dash, why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
REQUESTS = sorted((CORPUS / "requests").glob("*.request"))
ANSWERS = sorted((CORPUS / "answers").glob("*.answer"))
CONVERSATIONS = sorted((CORPUS / "conversations").glob("*.conversation"))

_VERDICT = re.compile(
    r"(?:forwarded (?P<count>\d+))?(?:, )?(?:(?P<closed>closed)|refused (?P<status>\d{3}) (?P<problem>[a-z0-9-]+))?"
)


@dataclass(frozen=True, slots=True)
class RequestCase:
    """What a client sends, and what must come of it: `count` requests reach the set as `forwarded` (without the
    lines that the router adds to each); then `status` and `problem` refuse the next, or the connection is
    `closed`, or else stays open."""

    sent: bytes
    count: int
    forwarded: bytes
    closed: bool
    status: int | None
    problem: str


def verdict_of(path: Path) -> tuple[str, str, bytes]:
    """Verdict, reason and expected bytes of the case at `path`."""
    first, _, expected = path.with_suffix(".expect").read_bytes().partition(b"\n")
    verdict, _, why = first.decode().partition(" — ")
    return verdict, why, expected


def request_case(path: Path) -> RequestCase:
    verdict, _, expected = verdict_of(path)
    match = _VERDICT.fullmatch(verdict)
    assert match is not None, f"{path.name}: {verdict!r}"
    return RequestCase(
        sent=path.read_bytes(),
        count=int(match["count"] or 0),
        forwarded=expected,
        closed=match["closed"] is not None,
        status=int(match["status"]) if match["status"] else None,
        problem=match["problem"] or "",
    )
