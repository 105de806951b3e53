"""The router's own answers, and its problems: a dialect gives each problem its form for clients."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

Lines = tuple[tuple[str, str], ...]
"""Header names and values."""

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class Problem(msgspec.Struct, frozen=True):
    """An error of the router's own, and what to do about it. `executed` is False only where surely no algorithm ran;
    True means that one may have."""

    status: int
    name: str
    """One of `dialects/problem_kinds.py`."""
    title: str
    detail: str
    executed: bool = False
    retry_after_s: int | None = None

    @property
    def lines(self) -> Lines:
        """Headers of the answer that this problem is."""
        lines: Lines = (("Cache-Control", "no-store"),)
        if self.retry_after_s is not None:
            lines += (("Retry-After", str(self.retry_after_s)),)
        return lines


class OwnAnswer(NamedTuple):
    """An answer that the router makes itself; `lines` are further header names and values."""

    status: int
    content_type: str
    body: bytes
    lines: Lines = ()


def reason(status: int) -> str:
    """The reason phrase of a status that the router sends itself."""
    return _REASONS.get(status, "Unknown")


def own_head(
    router_name: str, status: int, length: int, *, content_type: str, close: bool, lines: Lines = ()
) -> bytes:
    """The head of an answer that the router made itself, with `length` bytes of body; `X-Router` names it."""
    head = [
        f"HTTP/1.1 {status} {reason(status)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
        f"X-Router: {router_name}",
    ]
    head.extend(f"{name}: {value}" for name, value in lines)
    if close:
        head.append("Connection: close")
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


class Refusal(Exception):
    """A request that cannot be understood or is not allowed; it is answered by `problem`, and the connection
    closed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def refuse(status: int, name: str, title: str, detail: str) -> Refusal:
    return Refusal(Problem(status, name, title, detail))


def bad_request(detail: str) -> Refusal:
    return refuse(400, "bad-request", "The request is not valid HTTP/1.1", detail)


def bad_body(detail: str) -> Problem:
    return Problem(
        400,
        "bad-body",
        "The request's body is not valid HTTP/1.1",
        f"{detail}; see RFC 9112, section 7.1",
        executed=True,
    )


def slow_head(limit_s: float) -> Problem:
    return Problem(
        408,
        "headers-stalled",
        "The request's head did not arrive in time",
        f"send it whole within {limit_s:g} s",
    )


def slow_body(limit_s: float) -> Problem:
    return Problem(
        408,
        "body-stalled",
        "The request's body stalled",
        f"no byte of it came for {limit_s:g} s; send it faster, or its length right",
        executed=True,
    )
