"""What a task's row shows of one of its outputs: the first and the last bytes of it."""

from __future__ import annotations

from typing import Final, NamedTuple

HEAD_BYTES: Final = 4096
TAIL_BYTES: Final = 4096
_CONTINUATIONS_MAX: Final = 3
"""A character of UTF-8 has at most so many bytes after its first."""


class Excerpt(NamedTuple):
    """The first `HEAD_BYTES`, and the last `TAIL_BYTES` of what follows them: of a short output both hold all."""

    head: bytes = b""
    tail: bytes = b""
    size_bytes: int = 0

    @classmethod
    def of(cls, data: bytes) -> Excerpt:
        """Of a whole output."""
        return cls(data[:HEAD_BYTES], data[max(HEAD_BYTES, len(data) - TAIL_BYTES) :], len(data))

    def then(self, data: bytes) -> Excerpt:
        """The excerpt once `data` has followed."""
        size_bytes = self.size_bytes + len(data)
        room = HEAD_BYTES - len(self.head)
        if room > 0:
            return Excerpt(self.head + data[:room], data[max(room, len(data) - TAIL_BYTES) :], size_bytes)
        if len(data) >= TAIL_BYTES:
            return Excerpt(self.head, data[-TAIL_BYTES:], size_bytes)
        return Excerpt(self.head, (self.tail + data)[-TAIL_BYTES:], size_bytes)

    def text(self) -> Shown:
        """As text, no character of UTF-8 broken by the cuts; bytes that are none become U+FFFD."""
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
    """An excerpt as text; `cut_bytes` of the output, between head and tail or behind the head, are not shown."""

    head: str
    tail: str
    cut_bytes: int


def _begun(data: bytes) -> int:
    """How many bytes at the end of `data` begin a character that goes on behind it."""
    for back in range(1, min(_CONTINUATIONS_MAX, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return back if back < wanted else 0
    return 0


def _continuations(data: bytes) -> int:
    """How many bytes at the start of `data` end a character that began before it."""
    count = 0
    while count < min(_CONTINUATIONS_MAX, len(data)) and data[count] & 0xC0 == 0x80:
        count += 1
    return count
