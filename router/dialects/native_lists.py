"""`GET /v1/tasks`, `/v1/batches`, `/v1/callbacks` and `/v1/usage` over all sets. Pure.

A task's id is its set's name, a dash, and a part that sorts by time; so is a batch's; a callback
has its task's id. So a page of all
sets is the newest of their pages, and one id is a cursor for all of them: `before=a-01jd…` asks set b for what is
before `b-01jd…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from router.dialects.contract import BadQuery, Merging
from router.dialects.merging import merge_pages, merge_usage
from router.wire.problems import Problem
from router.wire.request_head import RequestHead

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1000
MAX_FIELDS: Final = 100
_PAGES: Final = {b"/v1/tasks": "tasks", b"/v1/batches": "batches", b"/v1/callbacks": "callbacks"}
"""Lists that come in pages, and the field that has their entries."""
MERGED: Final = frozenset({*_PAGES, b"/v1/usage"})


class NativeList(Merging):
    """One request for such a list. Raises `BadQuery` when it has more than `MAX_FIELDS` parameters."""

    content_type = "application/json"

    def __init__(self, head: RequestHead) -> None:
        self._path = head.path
        try:
            # In and out as Latin-1: each byte stays what it was, whatever text the client meant by it.
            self._query = parse_qsl(
                head.query.decode("latin-1"),
                keep_blank_values=True,
                max_num_fields=MAX_FIELDS,
                encoding="latin-1",
            )
        except ValueError:
            raise BadQuery(
                Problem(
                    400,
                    "bad-query",
                    "The query has too many parameters",
                    f"it may have {MAX_FIELDS}; leave some out",
                )
            ) from None

    def target(self, set_name: str) -> bytes:
        """As it was asked for, with that set's cursor, and never more than a page."""
        fields = list(self._query)
        if self._path in _PAGES:
            fields = [
                (name, cursor_for(set_name, value) if name == "before" else value) for name, value in fields
            ]
            if all(name != "limit" for name, _ in fields):
                fields.append(("limit", str(DEFAULT_LIMIT)))
        return self._path + (b"?" + urlencode(fields, encoding="latin-1").encode() if fields else b"")

    def merge(self, bodies: Mapping[str, bytes], missing: Mapping[str, str]) -> bytes:
        if (entries := _PAGES.get(self._path)) is not None:
            return merge_pages(entries, bodies, missing, _limit(self._query))
        return merge_usage(bodies, missing)


def _limit(query: list[tuple[str, str]]) -> int:
    """Return how many entries a page has; the sets refuse a `limit` that is no such number."""
    for name, value in query:
        if name == "limit" and re.fullmatch(r"[0-9]{1,9}", value):
            return min(MAX_LIMIT, int(value))
    return DEFAULT_LIMIT


def cursor_for(set_name: str, before: str) -> str:
    """One set's cursor from the merged list's: the same moment, under that set's name."""
    name, dash, rest = before.partition("-")
    return f"{set_name}-{rest}" if dash and name else before
