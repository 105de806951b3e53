"""The live status page, and the curves that it draws: files without a build step, told to trust nobody but us.

The page is a reader of the same JSON that commands read. It holds nothing worth a token, so it comes without one and
asks for it; what it then fetches does not.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import falcon
import falcon.asgi

from router.curves import STEP_S, Point, Sample

if TYPE_CHECKING:
    from router.assembly import Router

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def add_page(app: falcon.asgi.App[Any, Any], router: Router) -> None:
    """`GET /`, `GET /page/FILE` and `GET /curves`."""
    page = Page()
    app.add_route("/", page)
    app.add_route("/page/{name}", page, suffix="file")
    app.add_route("/curves", CurvesSince(router))


class Page:
    """The files of the folder `static`, read once; no other name leads anywhere."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            path.name: (path.read_bytes(), _TYPES[path.suffix])
            for path in folder.iterdir()
            if path.suffix in _TYPES
        }

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        self._give(resp, INDEX)

    async def on_get_file(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, name: str) -> None:
        self._give(resp, name)

    def _give(self, resp: falcon.asgi.Response, name: str) -> None:
        if name not in self._files:
            raise falcon.HTTPNotFound(title="No such file", description="the status page is at /")
        resp.data, resp.content_type = self._files[name]
        resp.set_headers(_HEADERS)


class CurvesSince:
    """`GET /curves?boot=WORD&after=SERIAL`: the points that a page lacks; without the two, or after a restart of the
    router (`boot` is another word then), all that there are.

        {"boot", "serial", "now" (seconds since the epoch), "step_s", "points": [{"serial", "age_s", "span_s",
         "sets": {NAME: [requests, errors, p50_ms, p95_ms, p99_ms]}, "cohorts": {"canary": […], "control": […]}}]}
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._boot = secrets.token_hex(4)

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        plane = self._router.plane
        after = req.get_param_as_int("after", min_value=0, default=0)
        if req.get_param("boot") != self._boot:
            after = 0
        now = plane.loop.time()
        resp.media = {
            "boot": self._boot,
            "serial": plane.curves.serial,
            "now": round(time.time(), 3),
            "step_s": STEP_S,
            "points": [_point(point, now) for point in plane.curves.since(after)],
        }


def _point(point: Point, now: float) -> dict[str, Any]:
    return {
        "serial": point.serial,
        "age_s": round(now - point.ended, 2),
        "span_s": round(point.span_s, 2),
        "sets": {name: _sample(sample) for name, sample in point.sets.items()},
        "cohorts": {name: _sample(sample) for name, sample in point.cohorts.items()},
    }


def _sample(sample: Sample) -> list[float | None]:
    return [sample.requests, sample.errors, sample.p50_ms, sample.p95_ms, sample.p99_ms]
