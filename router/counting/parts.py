"""Parts of a cohort: the requests of one image, or of one account, told apart. Pure, bounded.

A fault that hits one image disappears in the errors of all. Names are hashed into a fixed number of *places*, so both
cohorts and all workers have the same ones, and nobody can crowd out the others with made-up names.

A part counts callers, not requests: each place remembers, in as many bits as it has *slots*, which sticky keys it has
seen, and how the first request of each ended. So one user whose every task fails is one of many, however busy he is and
through however many workers he comes.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

import msgspec

NAME_CHARS: Final = 60


class Shape(NamedTuple):
    """Size of the sketch: `places` for names, `slots` for callers in each. A full place takes no more evidence."""

    places: int
    slots: int


IMAGES: Final = Shape(64, 256)
"""Few names, each with many callers."""
ACCOUNTS: Final = Shape(512, 64)
"""Many names, each with few callers."""


class Part(msgspec.Struct, array_like=True):
    """One place: bits of callers, and the name that most of them asked for."""

    name: str
    seen: bytes
    error: bytes
    """Callers whose first request failed at the set."""
    failed: bytes
    """Callers whose first task failed."""


class Parts:
    """The places of one cohort in one worker, while it counts."""

    __slots__ = ("_error", "_failed", "_names", "_seen", "_shape")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._names: list[tuple[str, int]] = [("", 0)] * shape.places
        self._seen = [0] * shape.places
        self._error = [0] * shape.places
        self._failed = [0] * shape.places

    def note(self, name: str, key: int, *, error: bool, failed: bool) -> None:
        """Count a caller by the first of his requests for this name: the set failed it, its task failed, or neither."""
        place = crc32(name.encode("utf-8", "surrogateescape")) % self._shape.places
        bit = 1 << key % self._shape.slots
        if self._seen[place] & bit:
            return
        self._seen[place] |= bit
        if error:
            self._error[place] |= bit
        elif failed:
            self._failed[place] |= bit
        most, votes = self._names[place]
        # The majority's name survives the others' (Boyer and Moore).
        if most == name:
            self._names[place] = most, votes + 1
        elif votes:
            self._names[place] = most, votes - 1
        else:
            self._names[place] = name, 1

    def table(self) -> dict[int, Part]:
        """The places that saw anybody."""
        size = self._shape.slots // 8
        return {
            place: Part(
                self._names[place][0].encode("utf-8", "replace").decode()[:NAME_CHARS],
                seen.to_bytes(size, "little"),
                self._error[place].to_bytes(size, "little"),
                self._failed[place].to_bytes(size, "little"),
            )
            for place, seen in enumerate(self._seen)
            if seen
        }


def together(one: dict[int, Part], other: dict[int, Part]) -> dict[int, Part]:
    """Two workers' parts: a caller of both is one."""
    both = dict(one)
    for place, part in other.items():
        mine = both.get(place)
        both[place] = (
            part
            if mine is None
            else Part(
                mine.name,
                _either(mine.seen, part.seen),
                _either(mine.error, part.error),
                _either(mine.failed, part.failed),
            )
        )
    return both


def count(bits: bytes) -> int:
    """How many callers these are."""
    return int.from_bytes(bits, "little").bit_count()


def _either(one: bytes, other: bytes) -> bytes:
    size = max(len(one), len(other))
    return (int.from_bytes(one, "little") | int.from_bytes(other, "little")).to_bytes(size, "little")
