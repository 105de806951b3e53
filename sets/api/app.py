"""All routes of a set on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi
import structlog

from scheduler.manager import Manager
from scheduler.store.contract import Blobs
from sets.api.accounts import Accounts
from sets.api.body import SCOPE_KEY, Event, Receive, RequestBody
from sets.api.health import LiveResource, MetricsResource, ReadyResource, SetMetrics
from sets.api.idempotency import IdempotencyResource
from sets.api.openapi import OpenApiResource
from sets.api.operators import ADMIN, AdminSink, Operators
from sets.api.problem_kinds import ProblemsResource
from sets.api.problems import ProblemHandlers
from sets.api.run import AnswerBrokenOff, RunResource
from sets.api.tasks import ResultResource, TaskResource, TasksResource

log = structlog.get_logger()

Send = Callable[[Event], Awaitable[None]]


class SetApp:
    """A set as an ASGI application; its server (`sets.http`) adds `X-Set` to every answer."""

    def __init__(self, app: falcon.asgi.App[Any, Any], manager: Manager) -> None:
        self._app = app
        self._manager = manager

    def drain(self) -> None:
        """Take no more tasks; what runs goes on."""
        self._manager.draining = True

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = scope[SCOPE_KEY] = RequestBody(receive)
        try:
            await self._app(scope, body.receive, send)
        except AnswerBrokenOff as error:
            # Returning in the middle of an answer makes the server close the connection without the last chunk.
            log.info("answer broken off", reason=str(error))


def build(
    manager: Manager,
    accounts: Accounts,
    operators: Operators,
    blobs: Blobs,
    metrics: SetMetrics,
    set_name: str,
    build_name: str,
    cpu_features: frozenset[str],
    life: Any,
) -> SetApp:
    """The set's ASGI application. `life` is a Falcon middleware with the start and the end."""
    app = falcon.asgi.App(middleware=[life])
    app.req_options.auto_parse_form_urlencoded = False
    app.req_options.keep_blank_qs_values = True
    ProblemHandlers().add_to(app)
    run = RunResource(manager, accounts, blobs, set_name, cpu_features)
    task = TaskResource(manager, accounts, set_name)
    result = ResultResource(manager, accounts)
    _add(app, "/v1/run/{image:path}", run)
    _add(app, "/v1/tasks", TasksResource(manager, accounts, set_name))
    _add(app, "/v1/tasks/{task_id}", task)
    _add(app, "/v1/tasks/{task_id}/cancel", task, suffix="cancel")
    _add(app, "/v1/tasks/{task_id}/stdout", result, suffix="stdout")
    _add(app, "/v1/tasks/{task_id}/stderr", result, suffix="stderr")
    _add(app, "/v1/tasks/{task_id}/files/{path:path}", result, suffix="file")
    _add(app, "/v1/idempotency", IdempotencyResource(manager, accounts, set_name))
    _add(app, "/livez", LiveResource())
    _add(app, "/readyz", ReadyResource(manager, operators, set_name, build_name))
    _add(app, "/metrics", MetricsResource(metrics, operators))
    _add(app, "/openapi.json", OpenApiResource(set_name))
    problems = ProblemsResource()
    _add(app, "/problems", problems)
    _add(app, "/problems/{name}", problems, suffix="one")
    app.add_sink(AdminSink(operators), ADMIN)
    return SetApp(app, manager)


def _add(app: falcon.asgi.App[Any, Any], path: str, resource: object, suffix: str | None = None) -> None:
    """Add a route. It answers HEAD wherever it answers GET: the server leaves the body away."""
    end = f"_{suffix}" if suffix else ""
    getter = getattr(resource, f"on_get{end}", None)
    if getter is not None:
        setattr(resource, f"on_head{end}", getter)
    app.add_route(path, resource, suffix=suffix)
