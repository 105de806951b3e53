"""The router's corpus of requests, sent to a set as well: a client that reaches a set past its router finds the same
framing there. Each difference is written down with its reason.

corpus.txt holds the differences, grouped under their reasons: `NAME: what the set does`. A difference that is not
there fails, and so does one that is there and no longer is one. Compared are the requests (method, path and query,
body) and whether a refusal follows; the fields that a router drops are its own matter.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.router.wire.cases import REQUESTS, RequestCase, forwarded_requests, request_case
from tests.sets.http.wire import Talk

DIFFERENCES = Path(__file__).with_name("corpus.txt")


def in_words(method: bytes, target: bytes, body: bytes) -> str:
    text = " | ".join(
        part.decode("latin-1").encode("unicode_escape").decode() for part in (method, target, body)
    )
    return re.sub(r"(.)\1{99,}", r"\1\1…", text.rstrip(" |"))


def by_router(case: RequestCase) -> list[str]:
    """What the router forwards, as the corpus says and another parser reads it."""
    outcome = [in_words(head.method, head.target, body) for head, body in forwarded_requests(case)]
    return outcome + (["refused"] if case.status is not None else [])


async def by_set(case: RequestCase, *pieces: bytes) -> list[str]:
    talk = Talk()
    await talk.say(*(pieces or [case.sent]))
    outcome = []
    for scope, body in talk.requests:
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        outcome.append(in_words(scope["method"].encode(), scope["raw_path"] + query, body))
    statuses = [status for status in talk.statuses() if status != 100]
    assert statuses[: len(outcome)] == [204] * len(outcome)
    refusals = statuses[len(outcome) :]
    assert len(refusals) <= 1
    assert all(400 <= status < 600 and status != 500 for status in refusals)
    if refusals:
        assert talk.wire.ended
    await talk.end()
    return outcome + (["refused"] if refusals else [])


def difference(router: list[str], found: list[str]) -> str | None:
    """What the set does otherwise; None: the same."""
    return None if router == found else "; ".join(found) or "nothing yet"


def known_differences() -> dict[str, str]:
    known: dict[str, str] = {}
    reason = ""
    for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            reason = line
        elif line:
            name, _, does = line.partition(": ")
            assert reason, f"{name} stands under no reason"
            assert name not in known, f"{name} is there twice"
            known[name] = does
    return known


async def test_every_difference_from_the_router_is_written_down() -> None:
    found = {}
    for path in REQUESTS:
        case = request_case(path)
        does = difference(by_router(case), await by_set(case))
        if does is not None:
            found[path.stem] = does
    assert found == known_differences()


@pytest.mark.parametrize("size", [1, 3, 64])
async def test_pieces_change_nothing(size: int) -> None:
    for path in REQUESTS:
        case = request_case(path)
        if len(case.sent) > 20_000:
            continue
        pieces = [case.sent[at : at + size] for at in range(0, len(case.sent), size)]
        assert await by_set(case, *pieces) == await by_set(case), path.stem
