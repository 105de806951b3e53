"""The admin application: /livez, /readyz, /metrics and /status of the router itself (not of its sets)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import falcon
import falcon.asgi
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import CollectorRegistry

from router.wire.problems import TYPE_BASE

from .metrics import RouterCollector

if TYPE_CHECKING:
    from router.assembly import Router


def create_app(router: Router) -> falcon.asgi.App[Any, Any]:
    """All routes on one screen."""
    registry = CollectorRegistry()
    registry.register(RouterCollector(router))
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_route("/livez", Live())
    app.add_route("/readyz", Ready(router))
    app.add_route("/metrics", Metrics(registry))
    app.add_route("/status", Status(router))
    app.set_error_serializer(_problem(router.settings.name))
    return app


class Live:
    """The process answers."""

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = {"status": "ok"}


class Ready:
    """It can pass requests on: a table is in force, at least one set is alive, and it is not stopping."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        plane = self._router.plane
        alive = [name for name in plane.table.sets if plane.board.of(name).alive()]
        ready = bool(alive) and not plane.draining
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {
            "status": "ok" if ready else "stopping" if plane.draining else "no set is alive",
            "sets": alive,
            "config_error": self._router.file.error,
        }


class Metrics:
    """Prometheus text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = generate_latest(self._registry)


class Status:
    """The table in force and what is known of each set, as JSON."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.media = status_of(self._router)


def status_of(router: Router) -> dict[str, Any]:
    """Weights in percent, health in words, counts since the start."""
    plane = router.plane
    table = plane.table
    now = plane.loop.time()
    sets = {}
    for name, entry in table.sets.items():
        health = plane.board.of(name)
        stats = plane.stats[name]
        sets[name] = {
            "url": entry.url,
            "state": entry.state.value,
            "weight": table.default.shares.get(name, 0) / 100,
            "health": health.word(now),
            "ejected_for_s": max(0.0, round(health.ejected_until - now, 1)),
            "inflight": plane.pools[name].inflight,
            "max_inflight": entry.max_inflight,
            "idle_connections": plane.pools[name].idle,
            "answers": stats.answers,
            "statuses": {str(status): count for status, count in sorted(stats.statuses.items())},
            "failures": dict(stats.failures),
            "retries": stats.retries,
            "back_pressure": stats.back_pressure,
            "truncated": stats.truncated,
            "ejections": stats.ejections,
        }
    return {
        "router": router.settings.name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": table.version,
        "change": {"by": table.changed_by, "why": table.changed_why},
        "digest": table.digest,
        "config_error": router.file.error,
        "reloads": router.file.reloads,
        "rules": [rule.name for rule in table.rules],
        "sets": sets,
        "requests": plane.requests,
        "active": plane.active,
        "connections": len(plane.clients),
        "cancelled": plane.cancelled,
        "retries_over_budget": plane.retries_over_budget,
        "problems": dict(plane.problems.counts),
        "draining": plane.draining,
    }


def _problem(name: str) -> Any:
    def serialize(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
        resp.content_type = "application/problem+json"
        resp.set_header("X-Router", name)
        resp.media = {
            "type": f"{TYPE_BASE}router-admin",
            "title": error.title,
            "status": error.status_code,
            "detail": error.description or "GET /livez, /readyz, /metrics or /status",
            "executed": False,
        }

    return serialize
