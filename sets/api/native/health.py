"""/livez, /readyz and /metrics of a set."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import falcon.asgi

from scheduler.errors import SchedulerError
from scheduler.manager import Manager
from sets.api.metrics import CONTENT_TYPE, SetMetrics
from sets.api.native.operators import Operators
from sets.api.native.problems import problem_of
from sets.api.native.view import send_json


class LiveResource:
    """The process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"status": "ok"}


class ReadyResource:
    """The set can run tasks; a 503 problem when it is draining or no slot can start. Both name the build;
    operators also see what the set has and how much of it is busy."""

    def __init__(self, manager: Manager, operators: Operators, set_name: str, build: str) -> None:
        self._manager = manager
        self._operators = operators
        self._who: dict[str, Any] = {"set": set_name, "build": build}

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        told = self._who | (self._manager.facts() if self._operators.admits(req) else {})
        try:
            await self._manager.check()
        except SchedulerError as error:
            problem = problem_of(error)
            problem.members |= told
            raise problem from error
        send_json(resp, {"status": "ready", **told})


class MetricsResource:
    def __init__(self, manager: Manager, metrics: SetMetrics, operators: Operators) -> None:
        self._manager = manager
        self._metrics = metrics
        self._operators = operators

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._operators.check(req)
        # A set is not ready while its launcher cannot start slots.
        launcher_up = await _passes(self._manager.check_launcher())
        ready = launcher_up and await _passes(self._manager.check())
        try:
            dead = await self._manager.dead_letters()
        except SchedulerError:
            dead = None
        resp.data = self._metrics.text(ready=ready, launcher_up=launcher_up, dead=dead)
        resp.content_type = CONTENT_TYPE


async def _passes(check: Awaitable[None]) -> bool:
    try:
        await check
    except SchedulerError:
        return False
    return True
