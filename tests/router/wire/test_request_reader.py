"""A client's bytes as requests: what a repeated head keeps, and what is its own each time."""

from __future__ import annotations

import pytest

from router.wire.framing import FramingError
from router.wire.limits import Limits
from router.wire.problems import Refusal
from router.wire.request_head import RequestHead, client_lines
from router.wire.request_reader import REMEMBERED_HEAD_BYTES, RequestReader

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def heads(data: bytes, count: int) -> list[tuple[bytes, bytes]]:
    """Request id and traceparent of the first requests in `data`."""
    reader = RequestReader(Limits())
    reader.take(data)
    names = []
    for _ in range(count):
        head = reader.head()
        assert head is not None
        names.append((head.request_id, head.traceparent))
    return names


def test_a_repeated_head_is_another_request() -> None:
    names = heads(GET * 3, 3)
    assert len(set(names)) == 3
    assert all(trace.split(b"-")[1] == request_id for request_id, trace in names)


def test_a_request_id_that_was_sent_stays_and_the_trace_is_new() -> None:
    first, second = heads(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n") * 2, 2)
    assert first[0] == second[0] == b"mine"
    assert first[1] != second[1]


def test_a_trace_that_was_sent_stays_and_names_the_request() -> None:
    first, second = heads(GET.replace(b"\r\n\r\n", b"\r\ntraceparent: %b\r\n\r\n" % TRACE) * 2, 2)
    assert first == second == (b"0af7651916cd43dd8448eb211c80319c", TRACE)


@pytest.mark.parametrize("length", [10, REMEMBERED_HEAD_BYTES + 10])
def test_heads_that_differ_late_are_told_apart(length: int) -> None:
    reader = RequestReader(Limits())
    for value in (b"a" * length, b"a" * length, b"b" * length, b"a" * (length - 1)):
        reader.take(b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % value)
        head = reader.head()
        assert head is not None
        assert head.get(b"x") == value


def forwarded(head: RequestHead | None, set_host: bytes) -> bytes:
    assert head is not None
    return head.forward(client_lines(b"c"), set_host)


def test_a_host_of_the_sets_own_is_not_kept_for_the_next_set() -> None:
    reader = RequestReader(Limits())
    reader.take(b"GET / HTTP/1.0\r\n\r\n")
    head = reader.head()
    assert b"\r\nHost: a\r\n" in forwarded(head, b"a")
    assert b"\r\nHost: b\r\n" in forwarded(head, b"b")


def test_what_was_refused_is_not_remembered() -> None:
    reader = RequestReader(Limits())
    for _ in range(2):
        reader.take(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(Refusal, match="Host"):
            reader.head()
        reader.drop()
    assert reader.unread == b""


def test_a_body_is_set_up_anew_for_each_request() -> None:
    reader = RequestReader(Limits())
    post = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
    reader.take(post + b"ab")
    head = reader.head()
    assert head is not None
    assert b"".join(reader.begin_body(head)) == b"ab"
    assert b"".join(reader.read_body(b"c" + post, memoryview(b"c" + post), len(post) + 1)) == b"c"
    assert reader.body is None
    reader.take(b"xyz")
    head = reader.head()
    assert head is not None
    assert reader.begin_body(head) == [b"xyz"]
    assert reader.unread == b""


def test_a_bad_chunk_behind_a_head_is_told() -> None:
    reader = RequestReader(Limits())
    reader.take(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    head = reader.head()
    assert head is not None
    with pytest.raises(FramingError):
        reader.begin_body(head)


def test_a_head_is_kept_once_it_came_twice_and_forgotten_on_demand() -> None:
    reader = RequestReader(Limits())
    raw = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    heads = []
    for _ in range(4):
        reader.take(raw)
        heads.append(reader.head())
    assert heads[0] is not heads[1]
    assert heads[1] is heads[2] is heads[3]
    reader.forget()
    reader.take(raw)
    again = reader.head()
    assert again is not heads[3]
    assert again is not None
    assert again.path == b"/x"


def test_a_body_that_nobody_waits_for_is_dropped_and_the_next_request_read() -> None:
    reader = RequestReader(Limits())
    reader.take(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    head = reader.head()
    assert head is not None
    assert reader.begin_body(head) == []
    assert reader.skip_body(b"hel")
    assert reader.unread == b""
    assert reader.skip_body(b"lo" + GET)
    assert reader.unread == GET
    assert reader.head() is not None


def test_a_dropped_body_whose_framing_is_broken_says_so() -> None:
    reader = RequestReader(Limits())
    reader.take(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    head = reader.head()
    assert head is not None
    reader.begin_body(head)
    assert not reader.skip_body(b"no number\r\n")
    assert reader.body is None
