"""/v1/batches: one image over many inputs, as one thing."""

from __future__ import annotations

from typing import Any, Final

import falcon
import falcon.asgi

from scheduler.batch import Format
from scheduler.batches.batches import Progress
from scheduler.errors import BadRequest
from sets.api.batches import BatchCalls
from sets.api.body import SCOPE_KEY, RequestBody
from sets.api.native.batch_archive import BatchArchive
from sets.api.native.batch_view import batch_json
from sets.api.native.callers import Callers
from sets.api.native.idempotency import key_of
from sets.api.native.params import parse_run
from sets.api.native.problems import Problem
from sets.api.native.querying import one_of_each, whole_number
from sets.api.native.run import content_length
from sets.api.native.tasks import PAGE_DEFAULT, PAGE_MAX, WAIT_MAX_S
from sets.api.native.view import send_json
from sets.api.values import DECIMAL

FORMATS: Final[dict[str, Format | None]] = {
    "application/jsonl": Format.LINES,
    "application/x-ndjson": Format.LINES,
    "application/x-tar": Format.TAR,
    "text/plain": None,
}
"""The formats of a batch's body, by its media type; None: ids of earlier tasks."""
INPUTS_OF: Final = b"inputs_of="
"""Query parameter that names an earlier task or batch, so that a router sends the call to the set that has it."""
PLACE_MAX: Final = 999_999_999
"""Largest value of the parameter `after`."""
_CANCEL: Final = "cancel"
_ORDERS: Final = (_CANCEL, "retry")
_RESULTS: Final = "/results"


class BatchesResource:
    """All calls about batches. The path begins with an image, which may have slashes, or with a batch's id."""

    def __init__(self, calls: BatchCalls, archive: BatchArchive, callers: Callers, set_name: str) -> None:
        self._calls = calls
        self._batches = calls.batches
        self._archive = archive
        self._callers = callers
        self._set_name = set_name

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, rest: str) -> None:
        batch_id, slash, order = rest.rpartition("/")
        cancels = bool(slash) and order == _CANCEL
        account = self._callers.account_of(req) if cancels else self._callers.starter_of(req)
        if not slash or order not in _ORDERS:
            await self._submit(req, resp, account, rest)
            return
        if _submits(req):
            raise BadRequest(
                f"{rest}: this path is the order to {order} a batch; name an image of this name with its tag or "
                f"digest, such as {rest}:latest",
                field="image",
            )
        one_of_each(req, ())
        call = self._batches.cancel if cancels else self._batches.retry
        send_json(resp, self._json(await call(account, batch_id)))

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, rest: str) -> None:
        account = self._callers.account_of(req)
        if rest.endswith(_RESULTS):
            await self._send_results(req, resp, account, rest.removesuffix(_RESULTS))
            return
        wait = one_of_each(req, ("wait",)).get("wait", "0")
        if not DECIMAL.fullmatch(wait) or float(wait) > WAIT_MAX_S:
            raise BadRequest(f"wait: a number of seconds, {WAIT_MAX_S:g} at most", field="wait")
        progress = await self._batches.wait(account, rest, float(wait))
        send_json(resp, self._json(progress))

    async def on_get_list(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = self._callers.account_of(req)
        asked = one_of_each(req, ("before", "limit"))
        limit = whole_number(asked, "limit", PAGE_DEFAULT, PAGE_MAX)
        found = await self._batches.page(account, asked.get("before"), limit + 1)
        page = found[:limit]
        answer = {
            "batches": [self._json(progress) for progress in page],
            "next": page[-1].batch.id if len(found) > limit else None,
            "sets": [self._set_name],
            "partial": False,
        }
        send_json(resp, answer)

    async def on_options(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, rest: str) -> None:
        _, slash, last = rest.rpartition("/")
        orders = slash and last in _ORDERS
        allowed = "POST" if orders else "GET, HEAD" if rest.endswith(_RESULTS) else "GET, HEAD, POST"
        resp.set_header("Allow", allowed)
        resp.content_length = 0

    async def _submit(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, account: str, image: str
    ) -> None:
        pieces = req.scope["query_string"].split(b"&")
        call = parse_run(b"&".join(piece for piece in pieces if not piece.startswith(INPUTS_OF)))
        media_type = _media_type(req)
        if media_type not in FORMATS:
            raise Problem(
                415,
                "unsupported-media-type",
                "The body's format is unknown",
                f"Content-Type: it says how the inputs are sent: {', '.join(FORMATS)}",
            )
        if req.get_header("X-Callback-Url") is not None:
            raise BadRequest(
                "X-Callback-Url: a batch has no callback; ask with `wait`", field="X-Callback-Url"
            )
        body: RequestBody = req.scope[SCOPE_KEY]
        form = FORMATS[media_type]
        batch = await self._calls.submit(account, image, call, form, content_length(req), body, key_of(req))
        resp.status = 202
        resp.set_header("Location", f"/v1/batches/{batch.id}")
        send_json(resp, self._json(await self._batches.get(account, batch.id)))

    async def _send_results(
        self, req: falcon.asgi.Request, resp: falcon.asgi.Response, account: str, batch_id: str
    ) -> None:
        asked = one_of_each(req, ("after",))
        after = 0 if asked.get("after") == "0" else whole_number(asked, "after", 0, PLACE_MAX)
        page = await self._archive.first(account, batch_id, after)
        resp.content_type = "application/x-tar"
        resp.stream = self._archive.write(account, batch_id, page)

    def _json(self, progress: Progress) -> dict[str, Any]:
        return batch_json(progress, self._set_name)


def _media_type(req: falcon.asgi.Request) -> str:
    return (req.content_type or "").partition(";")[0].strip().lower()


def _submits(req: falcon.asgi.Request) -> bool:
    """Return True if the call has inputs: an order has no body."""
    return _media_type(req) in FORMATS and req.content_length != 0
