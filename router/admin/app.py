"""The admin application: answers operators and their tools about the router itself, not about its sets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import falcon
import falcon.asgi
import msgspec
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from router.admin.access import Access
from router.admin.all_workers import AllWorkers, WorkerMissing
from router.admin.metrics import metrics_text
from router.admin.page import add_page
from router.admin.promote import promote
from router.admin.status import status_of
from router.config.history import History, NoSuchVersion
from router.dialects.native import PROBLEM_TYPE, TYPE_BASE
from router.errors import RouterError
from router.rollout.orders import ANYHOW, Given
from router.rollout.states import Moved, NeedsForce, NotAllowed

if TYPE_CHECKING:
    from router.assembly import Router
    from router.rollout.runner import Runner

NEEDS_FORCE: Final = "Only with force"
"""The title of a refusal that `force` overrides; the page then offers it."""
VERBS: Final = ("start", "pause", "resume", "skip", "promote", "abort", "end")
MAX_BODY_BYTES: Final = 16 * 1024
ROLLOUT_FIELDS: Final = (
    "phase",
    "set",
    "step",
    "of",
    "weight",
    "now",
    "in_force",
    "barred",
    "dry_run",
    "hands_off",
    "error",
)
"""The fields of a rollout that the status shows; `GET /rollout` has the rest."""


def create_app(router: Router, workers: AllWorkers | None = None) -> falcon.asgi.App[Any, Any]:
    """All routes on one screen. `workers`: this worker and the others."""
    workers = workers or AllWorkers(router)
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[Access(router.settings.admin_token)])
    app.add_route("/livez", Live())
    app.add_route("/readyz", Ready(router))
    app.add_route("/metrics", Metrics(workers))
    app.add_route("/status", Status(workers))
    app.add_route("/history", Changes(router))
    app.add_route("/history/{version}", Version(router))
    app.add_route("/rollout", Rollout(router, workers))
    app.add_route("/rollout/{verb}", Rollout(router, workers), suffix="verb")
    add_page(app, workers)
    app.add_error_handler(RouterError, _refused)
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
        alive = [name for name in plane.traffic.table.sets if plane.traffic.board.of(name).alive()]
        ready = bool(alive) and not plane.draining
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {
            "status": "ok" if ready else "stopping" if plane.draining else "no set is alive",
            "sets": alive,
            "config_error": self._router.file.error,
        }


class Metrics:
    """Prometheus text."""

    def __init__(self, workers: AllWorkers) -> None:
        self._workers = workers

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        snapshots, counts, missing = await self._workers.counted()
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = metrics_text(snapshots, counts, missing, await self._workers.rollout_status())


class Status:
    """The table in force and the state of each set, as JSON, over all workers."""

    def __init__(self, workers: AllWorkers) -> None:
        self._workers = workers

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        document = status_of(*await self._workers.snapshots())
        answer = await self._workers.rollout_status()
        document["rollout"] = None if answer is None else {name: answer[name] for name in ROLLOUT_FIELDS}
        resp.media = document


class Changes:
    """Every configuration that was in force, oldest first, with when and by whom."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        changes = await asyncio.to_thread(_history(self._router).changes)
        resp.media = {
            "changes": msgspec.to_builtins(changes),
            "digest": self._router.plane.traffic.table.digest,
        }


class Version:
    """The bytes of a configuration that was in force: by version or digest, `previous`, or `live`."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, version: str) -> None:
        history = _history(self._router)
        live = self._router.plane.traffic.table.digest
        try:
            digest = live if version == "live" else ""
            if not digest:
                wanted = None if version == "previous" else version
                digest = (await asyncio.to_thread(history.find, wanted)).digest
            text = await asyncio.to_thread(history.text, digest)
        except NoSuchVersion as error:
            raise falcon.HTTPNotFound(title="No such version", description=str(error)) from None
        resp.content_type = "application/yaml"
        resp.set_header("ETag", f'"{digest}"')
        resp.data = text


class Rollout:
    """The automated rollout: its status, and orders for it."""

    def __init__(self, router: Router, workers: AllWorkers) -> None:
        self._router = router
        self._workers = workers

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._control()
        resp.media = await self._workers.rollout_document()

    async def on_post_verb(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, verb: str) -> None:
        if verb not in VERBS:
            raise falcon.HTTPNotFound(
                title="No such command", description=f"POST /rollout/ and one of {', '.join(VERBS)}"
            )
        words = await _body(req)
        control = self._control()
        if verb == "promote":
            resp.media = await promote(control, words.by, words.why, force=words.force, given=words.given)
        else:
            resp.media = await control.command(
                verb, words.by, words.why, at_once=words.at_once, force=words.force, given=words.given
            )
        await self._workers.look()

    def _control(self) -> Runner:
        control = self._router.rollout
        if control is None:
            raise falcon.HTTPNotFound(
                title="No rollout", description="this router was started without a state folder"
            )
        return control


class _Words(msgspec.Struct, forbid_unknown_fields=True):
    """Read `if`: the state for which the order is given."""

    by: str = ""
    why: str = ""
    at_once: bool = False
    force: bool = False
    given: Given = msgspec.field(default=ANYHOW, name="if")


async def _body(req: falcon.asgi.Request) -> _Words:
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise falcon.HTTPContentTooLarge(description=f"{MAX_BODY_BYTES // 1024} KiB at most")
    data = await req.stream.read(MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(data, type=_Words) if data else _Words()
    except msgspec.MsgspecError as error:
        raise falcon.HTTPBadRequest(
            title="The body is no such object", description=f'{error}; send {{"by": "…", "why": "…"}}'
        ) from None


def _history(router: Router) -> History:
    if router.history is None:
        raise falcon.HTTPNotFound(
            title="No history", description="this router was started without a state folder"
        )
    return router.history


async def _refused(
    req: falcon.asgi.Request, resp: falcon.asgi.Response, error: RouterError, params: dict[str, Any]
) -> None:
    if isinstance(error, Moved):
        raise falcon.HTTPConflict(title="The rollout went on", description=str(error))
    if isinstance(error, NeedsForce):
        raise falcon.HTTPConflict(title=NEEDS_FORCE, description=str(error))
    if isinstance(error, NotAllowed):
        raise falcon.HTTPConflict(title="Not possible now", description=str(error))
    if isinstance(error, WorkerMissing):
        raise falcon.HTTPServiceUnavailable(title="A worker does not answer", description=str(error))
    raise falcon.HTTPServiceUnavailable(title="The router's state folder fails", description=str(error))


def _problem(name: str) -> Any:
    def serialize(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
        resp.content_type = PROBLEM_TYPE
        resp.set_header("X-Router", name)
        detail = "GET /, /livez, /readyz, /metrics, /status, /curves, /history, /history/VERSION or /rollout"
        resp.data = msgspec.json.encode(
            {
                "type": f"{TYPE_BASE}router-admin",
                "title": error.title,
                "status": error.status_code,
                "detail": error.description or detail,
                "executed": False,
            }
        )

    return serialize
