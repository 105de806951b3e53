"""The first and the last bytes of an output, which a task's row shows."""

from __future__ import annotations

from typing import Final, NamedTuple

HEAD_BYTES: Final = 4096
TAIL_BYTES: Final = 4096
_CONTINUATIONS_MAX: Final = 3
"""Maximum number of bytes after the first of a UTF-8 character."""


class Excerpt(NamedTuple):
    """The first `HEAD_BYTES` of an output, and the last `TAIL_BYTES` of the rest; together all of a short output."""

    head: bytes = b""
    tail: bytes = b""
    size_bytes: int = 0

    @classmethod
    def of(cls, data: bytes) -> Excerpt:
        """Return the excerpt of a whole output."""
        return cls(data[:HEAD_BYTES], data[max(HEAD_BYTES, len(data) - TAIL_BYTES) :], len(data))

    def then(self, data: bytes) -> Excerpt:
        """Return the excerpt after `data` was appended to the output."""
        size_bytes = self.size_bytes + len(data)
        room = HEAD_BYTES - len(self.head)
        if room > 0:
            return Excerpt(self.head + data[:room], data[max(room, len(data) - TAIL_BYTES) :], size_bytes)
        if len(data) >= TAIL_BYTES:
            return Excerpt(self.head, data[-TAIL_BYTES:], size_bytes)
        return Excerpt(self.head, (self.tail + data)[-TAIL_BYTES:], size_bytes)

    def text(self) -> Shown:
        """Return the excerpt as text: the cuts break no UTF-8 character, and invalid bytes become U+FFFD."""
        head, tail = self.head, self.tail
        begun = _begun(head) if self.size_bytes > len(head) else 0
        if self.size_bytes > len(head) + len(tail):
            head = head[: len(head) - begun]
            tail = tail[_continuations(tail) :]
        else:
            head, tail = head[: len(head) - begun], head[len(head) - begun :] + tail
        cut_bytes = self.size_bytes - len(head) - len(tail)
        return Shown(head.decode(errors="replace"), tail.decode(errors="replace"), cut_bytes)


class Shown(NamedTuple):
    """An excerpt as text; `cut_bytes` of the output, between head and tail or after the head, are left out."""

    head: str
    tail: str
    cut_bytes: int


def _begun(data: bytes) -> int:
    """Return the number of bytes at the end of `data` that begin an incomplete character."""
    for back in range(1, min(_CONTINUATIONS_MAX, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if back < wanted else 0
    return 0


def _continuations(data: bytes) -> int:
    """Return the number of bytes at the start of `data` that end a character begun before it."""
    count = 0
    while count < min(_CONTINUATIONS_MAX, len(data)) and data[count] & 0xC0 == 0x80:
        count += 1
    return count
