"""A set as an ASGI application, around the application of its dialect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from scheduler.manager import Manager
from sets.api.body import SCOPE_KEY, Event, Receive, RequestBody
from sets.api.errors import AnswerBrokenOff

log = structlog.get_logger()

Send = Callable[[Event], Awaitable[None]]
AsgiApp = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class SetApp:
    """Gives each request its body, and breaks answers off. The set's server (`sets.http`) adds `X-Set` to them."""

    def __init__(self, dialect: AsgiApp, manager: Manager) -> None:
        self._dialect = dialect
        self._manager = manager

    def drain(self) -> None:
        """Take no new tasks, as the process ends; those that run go on."""
        self._manager.stopping = True
        self._manager.followers.stop()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._dialect(scope, receive, send)
            return
        body = scope[SCOPE_KEY] = RequestBody(receive)
        try:
            await self._dialect(scope, body.receive, send)
        except AnswerBrokenOff as error:
            # Returning in the middle of an answer makes the server close the connection without the last chunk.
            log.info("answer broken off", reason=str(error))
