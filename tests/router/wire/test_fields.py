"""Header lines: judged by themselves, remembered within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.wire.fields import DROP, MAX_INTERNED, MAX_NAMES, MAX_VALUES, PASS, BadHead, Field, Interner

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


NAMES = st.sampled_from([b"A", b"TE", b"X-Task-Id", b"x-task-id", b"A ", b" A", b"", b"\xe4", b"A:", b"X_1"])
VALUES = st.one_of(
    st.binary(max_size=12),
    st.text("09azAZ-", max_size=12).map(str.encode),
    st.text("a-: \t\r\n\0\x7f;,", max_size=6).map(lambda text: text.encode("latin-1")),
)
LINES = st.tuples(NAMES, st.sampled_from([b":", b": ", b":  ", b" : ", b""]), VALUES).map(b"".join)


def judged(interner: Interner, line: bytes) -> list[Field] | str:
    try:
        return interner.read([line])
    except BadHead as error:
        return str(error)


@given(st.lists(LINES, max_size=20))
@settings(max_examples=300)
def test_what_was_read_before_changes_no_verdict(lines: list[bytes]) -> None:
    used = Interner(KINDS)
    used.read([b"A: 1", b"TE: 1", b"X-Task-Id: a-1", b"x-task-id: a-1", b"X_1: 1"])
    for line in lines:
        assert judged(used, line) == judged(Interner(KINDS), line)


def test_values_that_never_come_again_push_out_nothing() -> None:
    interner = Interner(KINDS)
    interner.read([b"Common: x"])
    for number in range(MAX_INTERNED * 2):
        line = b"X-Task-Id: a-%d" % number
        assert interner.read([b"Common: x", line])[1] == (
            PASS,
            b"x-task-id",
            b"a-%d" % number,
            line + b"\r\n",
        )
    assert len(interner._seen) <= MAX_VALUES + 1
    assert b"Common: x" in interner._seen
    for number in range(MAX_NAMES * 2):
        assert interner.read([b"N%d: x" % number])[0][1] == b"n%d" % number
    assert len(interner._names) <= MAX_NAMES
