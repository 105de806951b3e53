"""W3C Trace Context: a valid trace goes on untouched; anything else is replaced, and its state with it."""

from __future__ import annotations

import re

import pytest

from router.wire.limits import Limits
from router.wire.request_head import RequestHead, parse_request

IDS = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
MADE = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-00")


def head(*lines: bytes) -> RequestHead:
    return parse_request(b"\r\n".join((b"GET / HTTP/1.1", b"Host: h", *lines, b"", b"")), Limits())


def forwarded(asked: RequestHead) -> bytes:
    return asked.forward(b"\r\n\r\n", b"h")


@pytest.mark.parametrize(
    "trace",
    [
        b"00-" + IDS + b"-01",
        b"00-" + IDS + b"-ff",
        b"01-" + IDS + b"-00",
        b"cc-" + IDS + b"-01-what-comes-later",
    ],
)
def test_a_valid_trace_goes_on(trace: bytes) -> None:
    asked = head(b"Traceparent: " + trace, b"tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert asked.traceparent == trace
    assert asked.request_id == trace[3:35]
    sent = forwarded(asked)
    assert b"\r\ntraceparent: %b\r\n" % trace in sent
    assert sent.count(b"traceparent") == 1
    assert b"\r\ntracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\r\n" in sent


@pytest.mark.parametrize(
    "trace",
    [
        b"",
        b"00",
        b"00-" + IDS,
        b"00-" + IDS + b"-1",
        b"00-" + IDS + b"-01-more",  # Version 00 has no more.
        b"00-" + IDS + b"-01-",
        b"00-" + IDS.upper() + b"-01",
        b"00-" + bytes(b"0" * 32) + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"ff-" + IDS + b"-01",
        b"0-" + IDS + b"-01",
        b"01-" + IDS + b"-01more",
        b"00-" + IDS.replace(b"-", b"_") + b"-01",
        b"00-" + IDS + b"-zz",
        b"01-" + IDS + b'-01-"quoted"',
        b"cc-" + IDS + b"-01-" + b"x" * 400,
        b"00-" + IDS + b"-01,00-" + IDS + b"-01",
    ],
)
def test_anything_else_is_replaced(trace: bytes) -> None:
    asked = head(b"traceparent: " + trace, b"tracestate: a=1")
    assert MADE.fullmatch(asked.traceparent)
    assert asked.traceparent[3:] != trace[3:]
    assert b"tracestate" not in forwarded(asked)


@pytest.mark.parametrize("count", [2, 3])
def test_two_are_as_good_as_none(count: int) -> None:
    lines = [b"traceparent: 00-" + IDS + b"-01"] * count
    asked = head(*lines, b"tracestate: a=1")
    assert MADE.fullmatch(asked.traceparent)
    assert IDS not in forwarded(asked)


def test_a_request_repeated_word_for_word_is_a_trace_of_its_own() -> None:
    asked = head()
    first = asked.traceparent
    assert asked.again().traceparent != first
    kept = head(b"traceparent: 00-" + IDS + b"-01")
    assert kept.again().traceparent == b"00-" + IDS + b"-01"


@pytest.mark.parametrize(
    ("sent", "taken"), [(b"my-id", True), (b"a b", False), (b"x" * 128, True), (b"x" * 129, False)]
)
def test_a_request_id_goes_on_or_is_made(sent: bytes, taken: bool) -> None:
    asked = head(b"X-Request-Id: " + sent)
    assert (asked.request_id == sent) is taken
    if not taken:
        assert asked.request_id == asked.traceparent[3:35]
    assert forwarded(asked).count(b"X-Request-Id") == 1
