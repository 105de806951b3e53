"""/v1/callbacks: the messages to callers whose tasks have ended; and the header that asks for one."""

from __future__ import annotations

from typing import Any, Final

import falcon.asgi

from scheduler.callback import Callback, CallbackFilter, CallbackState
from scheduler.callbacks.deliveries import HEADER, Deliveries
from scheduler.errors import BadRequest
from scheduler.task import Kind
from sets.api.native.callers import Callers
from sets.api.native.querying import one_of_each, whole_number
from sets.api.native.view import send_json, timestamp

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 1000


def callback_url_of(req: falcon.asgi.Request, kind: Kind) -> str | None:
    """The address to which the request wants a callback; None for none. Raises `BadRequest`."""
    url = req.get_header(HEADER)
    if url is None:
        return None
    if kind is Kind.SYNC:
        raise BadRequest(
            f"{HEADER}: a synchronous call has its answer and gets no callback; leave it out, or send "
            "`Prefer: respond-async`",
            field=HEADER,
        )
    return url


class CallbacksResource:
    """The account's callbacks, those of the newest tasks first."""

    def __init__(self, deliveries: Deliveries, callers: Callers, set_name: str) -> None:
        self._deliveries = deliveries
        self._callers = callers
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = self._callers.account_of(req)
        query = one_of_each(req, ("state", "before", "limit"))
        limit = whole_number(query, "limit", PAGE_DEFAULT, PAGE_MAX)
        state = query.get("state")
        if state is not None and state not in list(CallbackState):
            raise BadRequest(f"state: {state[:40]!r} is none of {', '.join(CallbackState)}", field="state")
        found = await self._deliveries.page(
            CallbackFilter(
                account, None if state is None else CallbackState(state), query.get("before"), limit + 1
            )
        )
        page = found[:limit]
        answer = {
            "callbacks": [callback_json(callback, self._set_name) for callback in page],
            "next": page[-1].task_id if len(found) > limit else None,
            "sets": [self._set_name],
            "partial": False,
        }
        send_json(resp, answer)

    async def on_post_retry(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        """Try a failed callback again; one that waits stays as it is."""
        callback = await self._deliveries.retry(self._callers.account_of(req), task_id)
        send_json(resp, callback_json(callback, self._set_name))


def callback_json(callback: Callback, set_name: str) -> dict[str, Any]:
    """A callback as its account sees it. Its `id` is its task's."""
    return {
        "id": callback.task_id,
        "set": set_name,
        "url": callback.url,
        "state": callback.state,
        "tries": callback.tries,
        "status": callback.status,
        "error": callback.error,
        "created_at": timestamp(callback.created_us),
        "last_at": timestamp(callback.last_us),
        "due_at": timestamp(callback.due_us),
        "ended_at": timestamp(callback.ended_us),
        "expires_at": timestamp(callback.expires_us),
    }
