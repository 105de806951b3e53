"""The router's own problems: what each one means, what a client does about it, and the page that says so. Pure.

The type of such a problem ends in `router-NAME`. The router answers the page itself, at `/problems/router-NAME` of the
address that clients know, so that it is there when no set is.
"""

from __future__ import annotations

from html import escape
from typing import Final, NamedTuple

from router.wire.problems import OwnAnswer

PREFIX: Final = "/problems/router-"


class Kind(NamedTuple):
    """`status`: HTTP status; `remedy`: what a client does about it."""

    status: int
    meaning: str
    remedy: str


_HTTP: Final = "Use a common HTTP client."
_LATER: Final = "Nothing ran. Send the request again after Retry-After seconds."
_CHECK: Final = (
    "`executed` says whether a program may have run. If it is false, send the request again. If it is true, look at "
    "the account's tasks first; an asynchronous call with an Idempotency-Key can simply be repeated."
)
KINDS: Final[dict[str, Kind]] = {
    "answer-timeout": Kind(504, "The set did not answer in time.", _CHECK),
    "bad-body": Kind(400, "The request's body is not valid HTTP/1.1.", _HTTP),
    "bad-query": Kind(400, "The query of a list has too many parameters.", "Leave some out."),
    "bad-request": Kind(400, "The bytes are not HTTP/1.1 as RFC 9112 describes it.", _HTTP),
    "body-stalled": Kind(408, "The request's body stopped arriving.", "Send it again, faster."),
    "expectation": Kind(417, "The header Expect is not `100-continue`.", "Leave it out."),
    "headers-stalled": Kind(408, "The request's head did not arrive in time.", "Send it in one piece."),
    "headers-too-long": Kind(
        431, "The request has too many or too long headers.", "Send fewer or shorter ones."
    ),
    "list-failed": Kind(
        500, "The router could not merge the lists; its log has the details.", "Tell the operator."
    ),
    "list-unreadable": Kind(502, "A set answered a list that the router cannot read.", "Tell the operator."),
    "lists-busy": Kind(
        503, "The router is merging as many lists as it may.", "Ask again, or with a smaller `limit`."
    ),
    "no-set": Kind(503, "Every set that may run this is draining or in maintenance.", _LATER),
    "no-set-answers": Kind(503, "No set gave its part of a list; the tasks are not lost.", "Ask again."),
    "not-relayed": Kind(
        404, "Each set, and the router's admin address, answers this to its operators only.", "Ask there."
    ),
    "request-line-too-long": Kind(414, "The request line is too long.", "Send large arguments as the body."),
    "set-in-maintenance": Kind(503, "The set that owns the task is in maintenance.", "Ask again later."),
    "set-lost": Kind(502, "The connection to the set broke before the answer was complete.", _CHECK),
    "set-unavailable": Kind(503, "The set cannot be reached.", _LATER),
    "sets-full": Kind(503, "Every set that may run this has as many requests as it may.", _LATER),
    "unknown-method": Kind(501, "The method is unknown.", "Use one that /openapi.json lists."),
    "unknown-task": Kind(404, "The task's id does not begin with the name of a set.", "Check the id."),
}


def help_link(name: str) -> str:
    """The value of the `Link` header of a problem of this name."""
    return f'<{PREFIX}{name}>; rel="help"'


def page_of(name: str) -> OwnAnswer:
    """The page about a problem. Raises `KeyError` for a name that is not in `KINDS`."""
    kind = KINDS[name]
    others = " ".join(f'<a href="{PREFIX}{other}">{other}</a>' for other in KINDS)
    page = (
        f"<!DOCTYPE html>\n<html lang=en><title>router-{name}: General Compute</title>\n"
        f"<h2>router-{name} ({kind.status})</h2>\n<p>{escape(kind.meaning)}</p>\n<p>{escape(kind.remedy)}</p>\n"
        f"<p>All problems of the router: {others}</p>\n</html>\n"
    )
    return OwnAnswer(200, "text/html; charset=utf-8", page.encode())
