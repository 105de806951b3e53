"""Header lines, read once: most lines of most heads were seen before, so what a line means is looked up.

llhttp has judged every head before its lines come here (heads without callbacks cost it half a microsecond);
this only takes apart what is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

MAX_INTERNED = 4096
MAX_INTERNED_LINE_BYTES = 256

PASS = 0
"""The kind of a header that is forwarded as it is."""
DROP = 1
"""… of one that is not forwarded and means nothing to us. All kinds above it mean something."""

Field = tuple[int, bytes, bytes, bytes]
"""Kind, lower-case name, value, and the line to forward with its CR LF (empty unless PASS)."""


class Interner:
    """Reads header lines by a table of kinds (lower-case name → kind; others are PASS), keeping the short
    ones.

    `check` may raise for a name that is not allowed. The store is emptied when full: no line can push others
    out for long.
    """

    __slots__ = ("_check", "_kinds", "_seen")

    def __init__(self, kinds: Mapping[bytes, int], check: Callable[[bytes], None] | None = None) -> None:
        self._kinds = kinds
        self._check = check
        self._seen: dict[bytes, Field] = {}

    def read(self, lines: list[bytes]) -> list[Field]:
        """The fields of a head's lines, without their CR LF."""
        known = self._seen.get
        return [known(line) or self._learn(line) for line in lines]

    def _learn(self, line: bytes) -> Field:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        low = name.lower()
        if self._check is not None:
            self._check(low)
        kind = self._kinds.get(low, PASS)
        field = (kind, low, value, b"%b: %b\r\n" % (name, value) if kind == PASS else b"")
        if len(line) <= MAX_INTERNED_LINE_BYTES:
            if len(self._seen) >= MAX_INTERNED:
                self._seen.clear()
            self._seen[line] = field
        return field


class SilentParser:
    """A protocol for httptools that wants no callbacks: the parser then only judges."""
