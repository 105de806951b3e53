"""/v1/idempotency: what a key has made, for a router whose weights have changed since."""

from __future__ import annotations

from typing import Final

import falcon.asgi

from scheduler.batches.batches import Batches
from scheduler.errors import BadRequest, BatchUnknown, TaskUnknown
from scheduler.manager import Manager
from sets.api.idempotency import KeysInUse
from sets.api.native.batch_view import batch_json
from sets.api.native.callers import Callers
from sets.api.native.view import send_json, task_json

HEADER: Final = "Idempotency-Key"
KEY_CHARS: Final = 255


def key_of(req: falcon.asgi.Request) -> str | None:
    """The request's key; None where it has none. Raises `BadRequest` for an empty or a long one."""
    key = req.get_header(HEADER)
    if key is not None and not 0 < len(key) <= KEY_CHARS:
        raise BadRequest(f"{HEADER}: from 1 to {KEY_CHARS} characters", field=HEADER)
    return key


class IdempotencyResource:
    def __init__(
        self, manager: Manager, batches: Batches, keys: KeysInUse, callers: Callers, set_name: str
    ) -> None:
        self._manager = manager
        self._keys = keys
        self._batches = batches
        self._callers = callers
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        account = self._callers.account_of(req)
        key = key_of(req)
        if key is None:
            raise BadRequest(f"{HEADER}: send the key to look for in this header", field=HEADER)
        # Before the question: a call may end meanwhile, and then its task is found.
        in_use = (account, key) in self._keys
        try:
            task = await self._manager.keyed(account, key)
        except TaskUnknown:
            try:
                progress = await self._batches.keyed(account, key)
            except BatchUnknown:
                if in_use:
                    resp.status = 202
                    send_json(resp, {"set": self._set_name, "state": "arriving"})
                    return
                raise TaskUnknown(
                    "neither a task nor a batch was made under this key here within 24 h"
                ) from None
            send_json(resp, batch_json(progress, self._set_name))
            return
        send_json(resp, task_json(task, self._set_name, self._manager.waiting_for(task)))
