"""Header lines: judged by themselves, remembered within bounds."""

from __future__ import annotations

import pytest

from router.wire.fields import DROP, MAX_INTERNED, PASS, BadHead, Interner

KINDS = {b"te": DROP}


def test_a_line_is_read_the_same_at_first_and_again() -> None:
    interner = Interner(KINDS)
    for _ in range(2):
        assert interner.read([b"A-b:\t c d \t", b"TE: x"]) == [
            (PASS, b"a-b", b"c d", b"A-b: c d\r\n"),
            (DROP, b"te", b"x", b""),
        ]


@pytest.mark.parametrize(
    "line",
    [b"", b"A", b": b", b"A : b", b" A: b", b"A: b\r", b"A: b\nC: d", b"A: \0", b"A: \x7f", b"\xe4: b"],
)
def test_what_is_no_field_is_refused_each_time(line: bytes) -> None:
    interner = Interner(KINDS)
    for _ in range(2):
        with pytest.raises(BadHead, match="header line"):
            interner.read([b"A: b", line])


def test_a_name_that_is_not_allowed_is_refused_each_time() -> None:
    def check(name: bytes) -> None:
        if name == b"x":
            raise BadHead("no x here")

    interner = Interner(KINDS, check)
    for _ in range(2):
        with pytest.raises(BadHead, match="no x"):
            interner.read([b"X: 1"])


def test_memory_is_bounded_however_many_lines_come() -> None:
    interner = Interner(KINDS)
    for number in range(MAX_INTERNED * 2 + 10):
        assert interner.read([b"A: %d" % number])[0][2] == b"%d" % number
    assert interner.read([b"A: " + b"x" * 100_000])[0][2] == b"x" * 100_000
    assert len(interner._seen) <= MAX_INTERNED
    assert max(map(len, interner._seen)) < 300
