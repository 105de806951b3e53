"""Access to the admin address: open to callers on this machine, or to callers who know the token."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import falcon
import falcon.asgi

from router.errors import RouterError

OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
"""Paths for balancers and supervisors. Their answers hold nothing that needs a token."""
PAGE: Final = "/"
PAGE_FILES: Final = "/page/"
"""The status page's own files hold nothing secret: the page comes without a token, and asks for it."""
MIN_TOKEN_CHARS: Final = 16
_READING: Final = ("GET", "HEAD", "OPTIONS")


class AdminExposed(RouterError):
    """The admin address can be reached from other machines: give a token, or bind it to 127.0.0.1."""


class BadToken(RouterError):
    """The admin token cannot be used."""


def read_token(path: Path) -> str:
    """The token in a file, without the space around it. Raises `BadToken`."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadToken(f"the admin token's file {path} cannot be read: {reason}") from error
    if len(token) < MIN_TOKEN_CHARS or not token.isascii() or any(c.isspace() for c in token):
        raise BadToken(
            f"the admin token in {path} must be {MIN_TOKEN_CHARS} characters or more, ASCII, without spaces; "
            "make one with `openssl rand -hex 24`"
        )
    return token


def check_bind(bind: str, token: str | None) -> None:
    """Raises `AdminExposed` if other machines could come without a token. `bind` is HOST:PORT."""
    host = bind.rpartition(":")[0].strip("[]")
    if token is None and not _is_loopback(host):
        raise AdminExposed(
            f"the admin address {bind} can be reached from other machines; "
            "give --admin-token-file, or bind it to 127.0.0.1"
        )


class Access:
    """Middleware. Without a token the address is on this machine only. A page in somebody's browser must then be kept
    out: calls under a foreign name or from a foreign origin are refused."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    async def process_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        if req.path in OPEN_PATHS:
            return
        if self._token is not None:
            if req.method in _READING and (req.path == PAGE or req.path.startswith(PAGE_FILES)):
                return
            scheme, _, given = (req.get_header("Authorization") or "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(
                given.strip().encode("utf-8", "replace"), self._token
            ):
                raise falcon.HTTPUnauthorized(
                    title="The admin token is missing or wrong",
                    description="send `Authorization: Bearer TOKEN`; gcompute: --token-file or GC_ADMIN_TOKEN",
                    challenges=["Bearer"],
                )
        elif not _is_loopback(_host_of(req)):
            raise falcon.HTTPForbidden(
                title="Not under this name",
                description="without a token this address answers as localhost or 127.0.0.1 only",
            )
        if req.method not in _READING:
            _refuse_foreign(req)

    async def process_resource(self, *arguments: Any) -> None: ...


def _refuse_foreign(req: falcon.asgi.Request) -> None:
    origin = req.get_header("Origin")
    if origin is not None and urlsplit(origin).netloc != (req.get_header("Host") or ""):
        raise falcon.HTTPForbidden(
            title="Not from another site", description="this call came from a page of another origin"
        )
    if (req.content_length or 0) and not (req.content_type or "").startswith("application/json"):
        raise falcon.HTTPUnsupportedMediaType(description="send application/json")


def _host_of(req: falcon.asgi.Request) -> str:
    host = req.get_header("Host") or ""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
