"""All routes of a set on one screen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi

from scheduler.manager import Manager
from scheduler.store.contract import Blobs
from sets.api.accounts import Accounts
from sets.api.body import SCOPE_KEY, Event, Receive, RequestBody
from sets.api.health import LiveResource, MetricsResource, ReadyResource, SetMetrics
from sets.api.openapi import OpenApiResource
from sets.api.problems import ProblemHandlers
from sets.api.run import RunResource
from sets.api.tasks import ResultResource, TaskResource, TasksResource

Send = Callable[[Event], Awaitable[None]]
Asgi = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


def build(
    manager: Manager,
    accounts: Accounts,
    blobs: Blobs,
    metrics: SetMetrics,
    set_name: str,
    cpu_features: frozenset[str],
    life: Any,
) -> Asgi:
    """The set's ASGI application. `life` is a Falcon middleware with the start and the end."""
    app = falcon.asgi.App(middleware=[life])
    app.req_options.auto_parse_form_urlencoded = False
    app.req_options.keep_blank_qs_values = True
    ProblemHandlers(set_name).add_to(app)
    run = RunResource(manager, accounts, blobs, set_name, cpu_features)
    task = TaskResource(manager, accounts, set_name)
    result = ResultResource(manager, accounts, set_name)
    app.add_route("/v1/run/{image:path}", run)
    app.add_route("/v1/tasks", TasksResource(manager, accounts, set_name))
    app.add_route("/v1/tasks/{task_id}", task)
    app.add_route("/v1/tasks/{task_id}/cancel", task, suffix="cancel")
    app.add_route("/v1/tasks/{task_id}/stdout", result, suffix="stdout")
    app.add_route("/v1/tasks/{task_id}/stderr", result, suffix="stderr")
    app.add_route("/v1/tasks/{task_id}/files/{path:path}", result, suffix="file")
    app.add_route("/livez", LiveResource())
    app.add_route("/readyz", ReadyResource(manager, set_name))
    app.add_route("/metrics", MetricsResource(metrics))
    app.add_route("/openapi.json", OpenApiResource(set_name))

    async def with_body(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = scope[SCOPE_KEY] = RequestBody(receive)
        await app(scope, body.receive, send)

    return with_body
