"""Reads from the sets' own counts how asynchronous tasks end, because their answer was a 202 long before.

The router sees such an end only if the caller asks for it, which may be never, or many times. So while a rollout
compares, the leader asks the sets for what they count anyway, `gc_tasks_ended_total` of `/metrics`. That is no cohort
of keys: it is everything that ends at the canary beside everything that ends at the old sets in the same time,
including tasks of rules and of other routers. The test for rates does not need sides of one size.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from router.asking.credentials import Credentials
from router.counting.tally import Ended
from router.wire.addresses import Addresses
from router.wire.fetch import FetchError, fetch

ASK_EVERY_S: Final = 5.0
TIMEOUT_S: Final = 3.0
MAX_BODY_BYTES: Final = 512 * 1024
MAX_SETS: Final = 64
"""Most sets that are asked; further ones are left out."""
_COUNT: Final = re.compile(rb"^gc_tasks_ended_total\{([^}\n]*)\} ([0-9.]+(?:e\+?[0-9]+)?)\r?$", re.MULTILINE)
_LABEL: Final = re.compile(rb'([a-z_]+)="([a-z_]*)"')
_FAILED: Final = (b"failed", b"timed_out")
log = structlog.get_logger()


class Asked(Protocol):
    """The part of `table.SetEntry` that is needed here."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def authority(self) -> str: ...
    @property
    def operator_token_file(self) -> str | None: ...


def counted(metrics: bytes) -> Ended | None:
    """Read how many tasks a set's metrics count since it began; None: no such count."""
    found = False
    ok = failed = 0
    for labels, value in _COUNT.findall(metrics):
        labels = dict(_LABEL.findall(labels))
        if labels.get(b"kind") != b"async":
            continue
        found = True
        if labels.get(b"state") == b"succeeded":
            ok += int(float(value))
        elif labels.get(b"state") in _FAILED:
            failed += int(float(value))
    return Ended(ok, failed) if found else None


class Outcomes:
    """Turns counts since a set's start into what was new since it was asked last."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Ended] = {}
        self._credentials = Credentials()
        self._refused: set[str] = set()

    def forget(self) -> None:
        """Start over: tasks that end before the next look count for nobody."""
        self._known.clear()

    def gained(self, entry: Asked, now: Ended) -> Ended:
        """Return the tasks that ended since the last look; none at the first one. Smaller counts began again at 0."""
        key = entry.name, entry.authority
        before = self._known.get(key)
        self._known[key] = now
        if before is None:
            return Ended()
        if now.ok < before.ok or now.failed < before.failed:
            return now
        return Ended(now.ok - before.ok, now.failed - before.failed)

    async def read(self, entries: Iterable[Asked]) -> dict[str, Ended]:
        """Return the tasks that ended since the last look, by set. Sets without a usable answer are left out."""
        asked = list(entries)[:MAX_SETS]
        found = await asyncio.gather(*map(self._ask, asked))
        return {
            entry.name: self.gained(entry, now)
            for entry, now in zip(asked, found, strict=True)
            if now is not None
        }

    async def _ask(self, entry: Asked) -> Ended | None:
        host = entry.authority.encode()
        try:
            answer = await fetch(
                Addresses(asyncio.get_running_loop(), entry.host, entry.port),
                b"/metrics",
                (
                    b"Host: %b\r\nUser-Agent: general-compute-router\r\n" % host,
                    *self._credentials.lines(entry),
                ),
                timeout_s=TIMEOUT_S,
                max_bytes=MAX_BODY_BYTES,
            )
        except FetchError:
            return None
        if answer.head.status in (401, 403):
            if entry.name not in self._refused:
                self._refused.add(entry.name)
                log.warning(
                    "set refuses its metrics: a rollout does not judge asynchronous tasks",
                    set=entry.name,
                    status=answer.head.status,
                    next="give `operator_token_file`",
                )
            return None
        self._refused.discard(entry.name)
        return counted(answer.body) if answer.head.status == 200 else None
