"""Requests of the canary that tell an operator most: the last that failed, the slowest, those that wait longest.

Bounded. They hold no query, no header and no more of a path than its first two segments: the rest may be a secret.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from itertools import zip_longest
from typing import Any, Final

import msgspec

MOST: Final = 3
"""Requests of each kind that are kept, and requests that are shown."""
OPEN_FROM_S: Final = 2.0
"""Seconds from which on a request that waits for its answer is worth a look."""
TEXT_CHARS: Final = 60


class Kind(StrEnum):
    """ERROR: the set failed it. TASK: its task failed. SLOW: it took longest. OPEN: it has waited longest."""

    ERROR = "error"
    TASK = "task"
    SLOW = "slow"
    OPEN = "open"


class Witness(msgspec.Struct, frozen=True):
    """One request. `status`: the answer's, or how it failed; `request`: its method and path, cut off."""

    kind: Kind
    id: str
    set: str
    status: str
    duration_s: float
    request: str
    image: str | None = None


def witness(kind: Kind, head: Any, set_name: str, status: str, duration_s: float) -> Witness:
    """A witness, from a request's head (`wire.request_head.RequestHead`)."""
    image = head.facts.image
    return Witness(
        kind,
        _text(head.request_id.decode("latin-1")),
        set_name,
        status,
        round(duration_s, 6),
        f"{_text(head.method.decode('latin-1'))} {path_of(head.path.decode('latin-1'))}",
        None if image is None else _text(image),
    )


def path_of(path: str) -> str:
    """The first two segments of a path; … for the rest."""
    first = path.split("/")[1:3]
    return _text("/" + "/".join(first)) + ("/…" if path.count("/") > 2 else "")


def _text(text: str) -> str:
    """Printable, and not long."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: TEXT_CHARS + 1])
    return shown if len(shown) <= TEXT_CHARS else shown[: TEXT_CHARS - 1] + "…"


class Witnesses:
    """The witnesses of one cohort in one worker, while it counts."""

    __slots__ = ("_errors", "_slowest", "_tasks", "slow_s")

    def __init__(self) -> None:
        self._errors: deque[Witness] = deque(maxlen=MOST)
        self._tasks: deque[Witness] = deque(maxlen=MOST)
        self._slowest: list[Witness] = []
        self.slow_s = 0.0
        """Quicker answers are not among the slowest."""

    def note(self, kind: Kind, head: Any, set_name: str, status: str, duration_s: float) -> None:
        """Remember a request that ended: an error, or a failed task."""
        (self._errors if kind is Kind.ERROR else self._tasks).append(
            witness(kind, head, set_name, status, duration_s)
        )

    def note_slow(self, head: Any, set_name: str, status: str, duration_s: float) -> None:
        """Remember an answer if it is among the slowest."""
        if duration_s <= self.slow_s:
            return
        self._slowest.append(witness(Kind.SLOW, head, set_name, status, duration_s))
        self._slowest.sort(key=lambda each: -each.duration_s)
        del self._slowest[MOST:]
        if len(self._slowest) == MOST:
            self.slow_s = self._slowest[-1].duration_s

    def chosen(self) -> tuple[Witness, ...]:
        """All of them, the newest and the slowest first."""
        return (*reversed(self._errors), *reversed(self._tasks), *self._slowest)


def telling(found: Iterable[Witness], kinds: tuple[Kind, ...]) -> tuple[Witness, ...]:
    """The few that tell most, of these kinds by turns; of one kind, the longest first where that says something."""
    by_kind: dict[Kind, list[Witness]] = {kind: [] for kind in kinds}
    for each in found:
        if each.kind in by_kind:
            by_kind[each.kind].append(each)
    for kind in (Kind.SLOW, Kind.OPEN):
        by_kind.get(kind, []).sort(key=lambda each: -each.duration_s)
    turns = (each for turn in zip_longest(*by_kind.values()) for each in turn if each is not None)
    return tuple(turns)[:MOST]
