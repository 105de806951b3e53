"""The router's own answers: problem details (RFC 9457) of type `router-…`."""

from __future__ import annotations

import json
from dataclasses import dataclass

TYPE_BASE = "https://general-compute.invalid/problems/"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong at the router, and what to do. `executed` is False only where surely no algorithm ran;
    True means that one may have."""

    status: int
    name: str
    """Without the `router-` that every type begins with."""
    title: str
    detail: str
    executed: bool = False
    retry_after_s: int | None = None

    def body(self, request_id: str | None = None) -> bytes:
        fields: dict[str, object] = {
            "type": f"{TYPE_BASE}router-{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "executed": self.executed,
        }
        if request_id:
            fields["request_id"] = request_id
        return json.dumps(fields).encode()


def reason(status: int) -> str:
    """The reason phrase of a status that the router sends itself."""
    return _REASONS.get(status, "Unknown")


def own_answer(
    router_name: str,
    status: int,
    body: bytes,
    *,
    content_type: str,
    close: bool,
    head_only: bool = False,
    request_id: str | None = None,
    extra: tuple[tuple[str, str], ...] = (),
) -> bytes:
    """The bytes of a whole answer that the router made itself; `X-Router` names it."""
    lines = [
        f"HTTP/1.1 {status} {reason(status)}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        f"X-Router: {router_name}",
    ]
    if request_id:
        lines.append(f"X-Request-Id: {request_id}")
    lines.extend(f"{name}: {value}" for name, value in extra)
    if close:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + body


def problem_answer(
    router_name: str, problem: Problem, *, close: bool, head_only: bool = False, request_id: str | None = None
) -> bytes:
    """The bytes of a problem's answer."""
    extra: tuple[tuple[str, str], ...] = (("Cache-Control", "no-store"),)
    if problem.retry_after_s is not None:
        extra += (("Retry-After", str(problem.retry_after_s)),)
    return own_answer(
        router_name,
        problem.status,
        problem.body(request_id),
        content_type="application/problem+json",
        close=close,
        head_only=head_only,
        request_id=request_id,
        extra=extra,
    )


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
