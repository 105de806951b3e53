"""Reads header lines, and remembers them: most lines of most heads were seen before, so their meaning is looked up. Of
other lines, such as a task's id, at least the name was usually seen.

A line is judged here, by itself and strictly: a token, a colon, and a value without control characters. Anything else
(folded, with a bare CR or LF, a space before the colon) is refused, whatever it may be meant to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

MAX_INTERNED: Final = 4096
MAX_INTERNED_LINE_BYTES: Final = 256
MAX_NAMES: Final = 1024
MAX_VALUES: Final = 256
"""A name that came with more values than this will probably come with yet another: its lines are not remembered."""

PASS: Final = 0
"""The kind of a header that is forwarded as it is."""
DROP: Final = 1
"""The kind of a header that is neither forwarded nor interpreted. All kinds above it are interpreted."""

Field = tuple[int, bytes, bytes, bytes]
"""Kind, lower-case name, value, and the line to forward with its CR LF (empty unless PASS)."""

_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")


class BadHead(Exception):
    """A head is not valid HTTP/1.1; the message says what is wrong."""


class Interner:
    """Reads header lines by a table of kinds (lower-case name → kind; others are PASS), and remembers the short ones.

    `check` may raise for a name that is not allowed. The store is emptied when it is full: no line can push others out
    for long.
    """

    __slots__ = ("_check", "_kinds", "_names", "_seen")

    def __init__(self, kinds: Mapping[bytes, int], check: Callable[[bytes], None] | None = None) -> None:
        self._kinds = kinds
        self._check = check
        self._seen: dict[bytes, Field] = {}
        self._names: dict[bytes, _Name] = {}

    def read(self, lines: list[bytes]) -> list[Field]:
        """The fields of a head's lines, without their CR LF. Raises `BadHead`."""
        fields = list(map(self._seen.get, lines))
        if not all(fields):
            for place, field in enumerate(fields):
                if field is None:
                    fields[place] = self._learn(lines[place])
        return fields  # type: ignore[return-value]

    def _learn(self, line: bytes) -> Field:
        spelled, _, value = line.partition(b": ")
        name = self._names.get(spelled)
        if name is not None and value.replace(b"-", b"").isalnum():
            # Only letters, digits and dashes: the long way below would give the same.
            forward = line + b"\r\n"
        else:
            match = _LINE.fullmatch(line)
            if match is None:
                raise BadHead(f"a header line must be a name, a colon and a value: {line[:60]!r}")
            spelled, value = match.groups()
            value = value.rstrip(b" \t")
            forward = b"%b: %b\r\n" % (spelled, value)
            name = self._names.get(spelled) or self._learn_name(spelled)
        field = (name.kind, name.low, value, forward if name.kind == PASS else b"")
        if name.values < MAX_VALUES and len(line) <= MAX_INTERNED_LINE_BYTES:
            name.values += 1
            if len(self._seen) >= MAX_INTERNED:
                self._seen.clear()
            self._seen[line] = field
        return field

    def _learn_name(self, spelled: bytes) -> _Name:
        low = spelled.lower()
        if self._check is not None:
            self._check(low)
        name = _Name(self._kinds.get(low, PASS), low)
        if len(spelled) <= MAX_INTERNED_LINE_BYTES:
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[spelled] = name
        return name


class _Name:
    """A header's name as it was spelled, and the number of values that it was remembered with."""

    __slots__ = ("kind", "low", "values")

    def __init__(self, kind: int, low: bytes) -> None:
        self.kind = kind
        self.low = low
        self.values = 0
