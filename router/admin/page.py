"""The live status page, and the curves that it draws: files without a build step, whose content policy trusts only this
address.

The page reads the same JSON as the commands do. It holds nothing secret, so it comes without a token and asks for it;
the data that it then fetches needs the token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import falcon
import falcon.asgi

if TYPE_CHECKING:
    from router.admin.all_workers import AllWorkers

FOLDER: Final = Path(__file__).parent / "static"
INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
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


def add_page(app: falcon.asgi.App[Any, Any], workers: AllWorkers) -> None:
    """`GET /`, `GET /page/FILE` and `GET /curves`."""
    page = Page()
    app.add_route("/", page)
    app.add_route("/page/{name}", page, suffix="file")
    app.add_route("/curves", CurvesSince(workers))


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

    `points.points_since` says what they are.
    """

    def __init__(self, workers: AllWorkers) -> None:
        self._workers = workers

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        after = req.get_param_as_int("after", min_value=0, default=0)
        resp.media = await self._workers.curves(req.get_param("boot", default=""), after)
