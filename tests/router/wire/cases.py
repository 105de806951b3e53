"""The corpus of raw requests and answers: one case is a few files of one name; the first line of `.expect` gives
the verdict and, after a dash, why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h11

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


def forwarded_requests(case: RequestCase) -> Iterator[tuple[h11.Request, bytes]]:
    """The requests that reach the set, as another parser reads them: head and body."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(case.forwarded.replace(b"Host: SET\r\n", b"Host: set\r\n"))
    for _ in range(case.count):
        head = parser.next_event()
        assert isinstance(head, h11.Request)
        body = b""
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            body += bytes(event.data)
        yield head, body
        parser.send(h11.Response(status_code=204, headers=[]))
        parser.send(h11.EndOfMessage())
        parser.start_next_cycle()


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
