"""All routes of the native API on one screen."""

from __future__ import annotations

from typing import Any

import falcon.asgi

from scheduler.callbacks.deliveries import Deliveries
from scheduler.manager import Manager
from scheduler.policy.rates import Rates
from sets.api.accounts import Accounts
from sets.api.batches import BatchCalls
from sets.api.metrics import SetMetrics
from sets.api.native.admin import DrainResource, NodesResource, PoolsResource, QueueResource
from sets.api.native.batch_archive import BatchArchive
from sets.api.native.batches import BatchesResource
from sets.api.native.callbacks import CallbacksResource
from sets.api.native.callers import Callers
from sets.api.native.health import LiveResource, MetricsResource, ReadyResource
from sets.api.native.idempotency import IdempotencyResource
from sets.api.native.openapi import OpenApiResource
from sets.api.native.operators import ADMIN, AdminSink, Operators
from sets.api.native.problem_kinds import ProblemsResource
from sets.api.native.problems import ProblemHandlers
from sets.api.native.run import RunResource
from sets.api.native.tasks import ResultResource, TaskResource, TasksResource
from sets.api.native.timeline import TimelineResource
from sets.api.results import TaskResults
from sets.api.runs import Runs

App = falcon.asgi.App[Any, Any]


def build(
    manager: Manager,
    accounts: Accounts,
    rates: Rates,
    runs: Runs,
    batches: BatchCalls,
    deliveries: Deliveries,
    metrics: SetMetrics,
    set_name: str,
    build_name: str,
    life: Any,
) -> App:
    """The native API as a Falcon application. `life` is a Falcon middleware with the start and the end."""
    app = falcon.asgi.App(middleware=[life])
    app.req_options.auto_parse_form_urlencoded = False
    app.req_options.keep_blank_qs_values = True
    ProblemHandlers().add_to(app)
    callers = Callers(accounts, rates)
    operators = Operators(accounts, callers)
    task = TaskResource(manager, callers, set_name)
    result = ResultResource(TaskResults(manager), callers)
    _add(app, "/v1/run/{image:path}", RunResource(runs, deliveries, callers, set_name))
    archive = BatchArchive(manager, batches.batches, set_name)
    batches_resource = BatchesResource(batches, archive, callers, set_name)
    _add(app, "/v1/batches", batches_resource, suffix="list")
    _add(app, "/v1/batches/{rest:path}", batches_resource)
    _add(app, "/v1/tasks", TasksResource(manager, callers, set_name))
    _add(app, "/v1/tasks/{task_id}", task)
    _add(app, "/v1/tasks/{task_id}/cancel", task, suffix="cancel")
    _add(app, "/v1/tasks/{task_id}/replay", task, suffix="replay")
    _add(app, "/v1/tasks/{task_id}/timeline", TimelineResource(manager, callers, set_name))
    _add(app, "/v1/tasks/{task_id}/stdout", result, suffix="stdout")
    _add(app, "/v1/tasks/{task_id}/stderr", result, suffix="stderr")
    _add(app, "/v1/tasks/{task_id}/files/{path:path}", result, suffix="file")
    callbacks = CallbacksResource(deliveries, callers, set_name)
    _add(app, "/v1/callbacks", callbacks)
    _add(app, "/v1/callbacks/{task_id}/retry", callbacks, suffix="retry")
    _add(app, "/v1/idempotency", IdempotencyResource(manager, batches.batches, runs.keys, callers, set_name))
    _add(app, "/livez", LiveResource())
    _add(app, "/readyz", ReadyResource(manager, operators, set_name, build_name))
    _add(app, "/metrics", MetricsResource(manager, metrics, operators))
    _add(app, "/openapi.json", OpenApiResource(set_name))
    problems = ProblemsResource()
    _add(app, "/problems", problems)
    _add(app, "/problems/{name}", problems, suffix="one")
    _add(app, "/v1/admin/nodes", NodesResource(manager, operators, set_name))
    _add(app, "/v1/admin/pools", PoolsResource(manager, operators, set_name))
    _add(app, "/v1/admin/queue", QueueResource(manager, operators, set_name))
    _add(app, "/v1/admin/drain", DrainResource(manager, operators, set_name))
    app.add_sink(AdminSink(operators), ADMIN)
    return app


def _add(app: App, path: str, resource: object, suffix: str | None = None) -> None:
    """Add a route. It answers HEAD wherever it answers GET: the server leaves the body away."""
    end = f"_{suffix}" if suffix else ""
    getter = getattr(resource, f"on_get{end}", None)
    if getter is not None:
        setattr(resource, f"on_head{end}", getter)
    app.add_route(path, resource, suffix=suffix)
