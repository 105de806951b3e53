"""The meaning and the remedy of each type of problem: the pages at /problems that a problem's type leads to.

A type is `https://general-compute.invalid/problems/NAME`, a name that resolves nowhere; the set that answered has the
page at `/problems/NAME`, and each problem's `Link` header leads there.
"""

from __future__ import annotations

from html import escape
from typing import Final, NamedTuple

import falcon
import falcon.asgi

PATH: Final = "/problems"


class Kind(NamedTuple):
    """`status`: usual HTTP status; `remedy`: what a client does about it."""

    status: int
    meaning: str
    remedy: str


_LATER: Final = "Nothing ran. Send the request again after Retry-After seconds, or to another set."
KINDS: Final[dict[str, Kind]] = {
    "account-limit": Kind(
        429, "The account's own limit is reached.", "Send again after Retry-After seconds."
    ),
    "account-suspended": Kind(
        403,
        "The account may begin nothing new; `detail` says why. It may look at its tasks, results and bills.",
        "Settle the reason with those who run the service.",
    ),
    "bad-parameter": Kind(
        400, "A parameter or header is unknown, or has a wrong value: `field` names it.", "Correct it."
    ),
    "bad-request": Kind(
        400, "The bytes are not HTTP/1.1 as RFC 9112 describes it.", "Use a common HTTP client."
    ),
    "batch-unknown": Kind(
        404,
        "The account has no batch of this id, or it is no longer kept.",
        "Check the id; fetch results before `expires_at`.",
    ),
    "body-stalled": Kind(
        408,
        "The request's body stood still for too long, ended too early, or came too slowly while others waited.",
        "Send it again, faster, or with `Prefer: respond-async`.",
    ),
    "callback-not-failed": Kind(
        409, "Only a failed callback can be tried again; this one was made.", "Look at GET /v1/callbacks."
    ),
    "callback-unknown": Kind(
        404,
        "This account has no such callback, or it is no longer kept.",
        "Its id is that of its task; look at GET /v1/callbacks.",
    ),
    "disk-full": Kind(503, "The set's disk is full.", _LATER),
    "engine-refused": Kind(503, "The container engine refused to start a slot.", _LATER),
    "engine-unavailable": Kind(
        503,
        "No slot can start now: the container engine or the cluster does not answer, or lacks what slots need; "
        "`detail` says what.",
        _LATER,
    ),
    "expectation-unknown": Kind(417, "The header Expect is not `100-continue`.", "Leave it out."),
    "file-unknown": Kind(
        404, "The task left no file of this path.", "Ask for it with `output=` when the task is sent."
    ),
    "files-not-kept": Kind(
        503, "The task ran, but its output files could not be kept; it is not billed.", "Send it again."
    ),
    "forbidden": Kind(
        403,
        "The token is valid and does not allow this, or this is answered to the set's own machine only.",
        "Use a token with the right scope: an account's to run tasks, an operator's for metrics and /v1/admin.",
    ),
    "gave-way": Kind(
        503,
        "The spare task gave way to normal tasks while it ran; it is not billed.",
        "Send it again later, or with `Prefer: respond-async`: then the set runs it again by itself.",
    ),
    "header-too-large": Kind(
        431, "The request has too many or too large headers.", "Send fewer or smaller ones."
    ),
    "http-error": Kind(400, "HTTP itself refuses the request; `detail` says why.", "Follow `detail`."),
    "idempotency-conflict": Kind(
        422,
        "The Idempotency-Key was used for another request within 24 h.",
        "Use a new key for a new request.",
    ),
    "image-denied": Kind(
        403,
        "The image's registry does not let this set have the image, or the set's login there is wrong.",
        "Push the image where the set may read it, or ask the operator to correct the set's login.",
    ),
    "image-pulling": Kind(503, "The image is being pulled from its registry.", _LATER),
    "image-unknown": Kind(404, "No image has this reference.", "Check its name; push or build it."),
    "image-unusable": Kind(422, "The image cannot be run here; `detail` says why.", "Change the image."),
    "input-too-large": Kind(413, "The input is larger than this account may send.", "Send less."),
    "internal": Kind(500, "The platform failed; its log has the details.", "Send again; tell the operator."),
    "method-not-allowed": Kind(405, "The path does not have this method.", "Use one that `Allow` lists."),
    "not-found": Kind(404, "Nothing lies at this path.", "Look at /openapi.json."),
    "not-implemented": Kind(
        501, "The method or the body's coding is unknown.", "Use what /openapi.json lists."
    ),
    "no-node": Kind(503, "No machine of the set answers, so it runs no tasks now.", _LATER),
    "not-recorded": Kind(
        503, "The task ran, but its usage could not be recorded; it is not billed.", "Send it again."
    ),
    "queue-timeout": Kind(503, "No slot became free within `queue_timeout_s`.", _LATER),
    "range-not-satisfiable": Kind(416, "The range lies outside of the body.", "Ask for one within its size."),
    "registry-not-allowed": Kind(
        403,
        "The set may not contact the registry that the image's name begins with; it contacted nothing.",
        "Push the image to a registry that the set's setting `registries` lists.",
    ),
    "result-gone": Kind(
        410, "The result is no longer kept, or never was.", "Fetch results before `expires_at`."
    ),
    "set-draining": Kind(503, "The set drains or stops, and takes no new tasks.", _LATER),
    "set-full": Kind(503, "Too many tasks wait in the set.", _LATER),
    "slot-lost": Kind(503, "The platform lost the task's slot; it is not billed.", "Send it again."),
    "store-unavailable": Kind(
        503, "The set's store does not answer.", "Send again after Retry-After seconds."
    ),
    "task-cancelled": Kind(422, "The task was cancelled.", "Send it again where that was not meant."),
    "task-failed": Kind(
        422,
        "The program failed: `reason`, `exit_code` or `signal`, and what it wrote to stderr say how.",
        "Correct the input, the arguments or the image.",
    ),
    "task-not-dead": Kind(
        409,
        "Only a task that the platform gave up can be replayed, while its input is kept.",
        "Look at GET /v1/tasks?state=dead; submit the task again.",
    ),
    "task-not-finished": Kind(409, "The task has not ended.", "Ask with GET /v1/tasks/{id}?wait=30."),
    "task-timed-out": Kind(504, "The task ran longer than `timeout_s`.", "Give it more time, or less to do."),
    "task-unknown": Kind(404, "This account has no such task, or it is no longer kept.", "Check its id."),
    "unauthorized": Kind(
        401, "The request has no valid token.", "Send `Authorization: Bearer gc_ACCOUNT_SECRET`."
    ),
    "unsupported-media-type": Kind(415, "The body's type is not understood.", "Look at /openapi.json."),
    "upgrade-required": Kind(426, "Another protocol would be needed.", "Send HTTP/1.1."),
    "uri-too-long": Kind(414, "The request line is longer than 64 KiB.", "Send large arguments as the body."),
}


def help_link(name: str) -> str:
    """The value of the `Link` header of a problem of this name."""
    return f'<{PATH}/{name}>; rel="help"'


class ProblemsResource:
    """All types of problems, and each on a page of its own."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        _send(resp, "Problems", "".join(_entry(name, kind) for name, kind in KINDS.items()))

    async def on_get_one(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        kind = KINDS.get(name)
        if kind is None:
            raise falcon.HTTPNotFound
        _send(resp, name, _entry(name, kind))


def _entry(name: str, kind: Kind) -> str:
    return (
        f'<h2><a href="{PATH}/{name}">{name}</a> ({kind.status})</h2>\n'
        f"<p>{escape(kind.meaning)}</p>\n<p>{escape(kind.remedy)}</p>\n"
    )


def _send(resp: falcon.asgi.Response, title: str, body: str) -> None:
    resp.content_type = "text/html; charset=utf-8"
    resp.text = f"<!DOCTYPE html>\n<html lang=en><title>{title}: General Compute</title>\n{body}</html>\n"
