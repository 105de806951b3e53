"""Shapes of answers: what fits one is read as the long way reads it, to the byte; all else is left to that way."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.wire.answer_head import AnswerHead, parse_answer
from router.wire.answer_shape import LEARN_AFTER, MAX_LEARN_AFTER, MAX_SHAPES, Shapes
from router.wire.fields import BadHead
from tests.router.wire.cases import ANSWERS

RUN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nx-task-id: a-01m83g688r46mh39zmsw7kf6zm\r\n"
    b"x-cpu-us: 227\r\nx-exit-code: 0\r\ncontent-length: 5\r\nx-set: a\r\ndate: Mon, 23 Nov 2026 06:06:15 GMT\r\n\r\n"
)
ANOTHER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\nx-task-id: a-2\r\nx-cpu-us: 1234567\r\n"
    b"x-exit-code: 17\r\ncontent-length: 0012\r\nx-set: other_set\r\ndate: Tue, 24 Nov 2026 16:16:25 GMT\r\n\r\n"
)
CORPUS = [
    head
    for path in ANSWERS
    if b"\r\n\r\n" in (head := path.read_bytes().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
]


def long_way(raw: bytes) -> AnswerHead | None:
    try:
        return parse_answer(raw)
    except BadHead:
        return None


def shapes_of(*heads: bytes) -> Shapes:
    """That have seen each head as often as it takes."""
    shapes = Shapes()
    for number, raw in enumerate(heads):
        head = long_way(raw)
        if head is not None:
            for _ in range(LEARN_AFTER << number):
                shapes.learn(raw, head)
    return shapes


def same(shapes: Shapes, raw: bytes, stale: bytes = b"") -> bool:
    """Whether `raw` fits a shape; then everything that the router asks of a head is as the long way has it."""
    found = shapes.read(bytearray(raw + stale), len(raw))
    if found is None:
        return False
    head, stop = found
    assert stop == raw.index(b"\r\n\r\n") + 4
    raw = raw[:stop]
    whole = parse_answer(raw)
    assert (head.status, head.status_line, head.minor) == (whole.status, whole.status_line, whole.minor)
    assert (head.content_length, head.chunked, head.keep_alive) == (
        whole.content_length,
        whole.chunked,
        whole.keep_alive,
    )
    assert head.opening == whole.opening
    assert head.bodiless == whole.bodiless
    for line in raw.split(b"\r\n")[1:-2]:
        name = line.partition(b":")[0].lower()
        assert head.get(name) == whole.get(name)
        # Not a part of a name, nor of a value.
        assert head.get(name[1:]) == whole.get(name[1:])
    assert head.get(b"x-other") is whole.get(b"x-other") is None
    assert (head.lines, head.fields) == (whole.lines, whole.fields)
    assert head.relayed(b"") == whole.relayed(b"")
    return True


def test_a_head_with_other_values_fits() -> None:
    shapes = shapes_of(RUN)
    assert same(shapes, RUN)
    assert same(shapes, ANOTHER)
    assert same(shapes, ANOTHER + b"the body\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        RUN.replace(b"200 OK", b"201 OK"),
        RUN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        RUN.replace(b"x-set: a\r\n", b""),
        RUN.replace(b"x-set: a", b"x-set: a\r\nconnection: close"),
        RUN.replace(b"x-set: a", b"x-set: a\r\ncontent-length: 6"),
        RUN.replace(b"x-set: a", b"x-set: a\r\ntransfer-encoding: chunked"),
        RUN.replace(b"x-set: a", b"x-set: a\r\n folded"),
        RUN.replace(b"x-set: a", b"x-set: a\nx: y"),
        RUN.replace(b"x-set: a", b"x-set: a\rx: y"),
        RUN.replace(b"x-set: a", b"x-set: a "),
        RUN.replace(b"x-set: a", b"x-set:  a"),
        RUN.replace(b"x-set: a", b"x-set: "),
        RUN.replace(b"x-set: a", b"x-set: \x00"),
        RUN.replace(b"x-set: a", b"x-set: \xe4"),
        RUN.replace(b"length: 5", b"length: +5"),
        RUN.replace(b"length: 5", b"length: 5, 5"),
        RUN.replace(b"length: 5", b"length: " + b"1" * 19),
        RUN[:-2],
        RUN[:-1],
        b"",
    ],
)
def test_what_differs_in_more_than_values_does_not_fit(raw: bytes) -> None:
    assert not same(shapes_of(RUN), raw, stale=b"\r\n\r\n" + RUN)


@pytest.mark.parametrize(
    "raw",
    [
        RUN.replace(b"200 OK", b"204 No Content"),
        RUN.replace(b"200 OK", b"304 Not Modified"),
        RUN.replace(b"200 OK", b"103 Early Hints"),
        RUN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        RUN.replace(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
        RUN.replace(b"x-set: a", b"connection: keep-alive"),
        RUN.replace(b"x-set: a", b"x-request-id: theirs"),
        RUN.replace(b"x-set: a", b"x-set: " + b"a" * 1000),
    ],
)
def test_what_is_not_passed_on_as_it_is_has_no_shape(raw: bytes) -> None:
    assert not same(shapes_of(raw), raw)


def test_shapes_are_few_and_made_ever_more_rarely() -> None:
    heads = [RUN.replace(b"x-set", b"x-set-%d" % number) for number in range(MAX_SHAPES + 3)]
    shapes = shapes_of(*heads[: MAX_SHAPES + 1])
    assert [same(shapes, raw) for raw in heads] == [False] + [True] * MAX_SHAPES + [False] * 2
    for number in (-2, -1):
        for _ in range(MAX_LEARN_AFTER - 1):
            shapes.learn(heads[number], parse_answer(heads[number]))
        assert not same(shapes, heads[number])
        shapes.learn(heads[number], parse_answer(heads[number]))
        assert same(shapes, heads[number])


def test_the_corpus_is_read_the_same_by_shapes() -> None:
    fitted = sum(same(shapes_of(raw), raw) for raw in CORPUS)
    assert fitted > 10


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, len(RUN)),
        st.integers(0, 3),
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from([b"\r\n", b": ", b" ", b"\r\n\r\n", b"close", b"content-length: 7\r\n"]),
        ),
    ),
    max_size=4,
)


@settings(max_examples=600)
@given(MUTATIONS, st.binary(max_size=8))
@example([], b"\r\n\r\n")
def test_whatever_fits_is_read_as_the_long_way_reads_it(
    mutations: list[tuple[int, int, bytes]], stale: bytes
) -> None:
    raw = RUN
    for at, taken, put in mutations:
        raw = raw[:at] + put + raw[at + taken :]
    shapes = shapes_of(RUN, raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    same(shapes, raw, stale)
    same(shapes, ANOTHER, stale)
