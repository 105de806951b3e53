"""Client of the router's admin address: status, history, rollout."""

from __future__ import annotations

import ipaddress
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Maximum size of an answer, in bytes; a router's file or status is far smaller."""
URL_VARIABLE: Final = "GC_ADMIN_URL"
PORT_VARIABLE: Final = "GC_ADMIN_PORT"
TOKEN_VARIABLE: Final = "GC_ADMIN_TOKEN"


class AdminError(Exception):
    """A call of the router's admin address failed; `hint` says what to try."""

    hint = ""


class AdminUnreachable(AdminError):
    """Nothing answers at the router's admin address."""

    hint = f"start a router (`make up`), or give its admin address with --admin or {URL_VARIABLE}"


class AdminRefused(AdminError):
    """The router refused the call."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        if status in (401, 403):
            self.hint = f"give the admin token with --token-file or {TOKEN_VARIABLE}"


@dataclass(frozen=True, slots=True)
class Admin:
    """One router's admin address. Every call raises `AdminUnreachable` or `AdminRefused`."""

    url: str
    token: str | None = None

    @classmethod
    def of(cls, url: str | None, token_file: Path | None) -> Admin:
        """Make a client from the options, else the environment, else for 127.0.0.1:8081. Raises `AdminError`."""
        port = os.environ.get(PORT_VARIABLE) or "8081"
        chosen = (url or os.environ.get(URL_VARIABLE) or f"http://127.0.0.1:{port}").rstrip("/")
        if urlsplit(chosen).scheme not in ("http", "https") or not urlsplit(chosen).hostname:
            raise AdminError(f"{chosen!r} must look like http://127.0.0.1:8081")
        token = os.environ.get(TOKEN_VARIABLE) or None
        if token_file is not None:
            try:
                token = token_file.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AdminError(f"--token-file {token_file} cannot be read: {error}") from error
        return cls(chosen, token)

    def status(self) -> dict[str, Any]:
        return self._document("GET", "/status")

    def history(self) -> dict[str, Any]:
        """Return `changes`, oldest first, and the `digest` of the configuration in force."""
        return self._document("GET", "/history")

    def version(self, wanted: str) -> bytes:
        """Return the file of a version: a number, the beginning of a digest, `previous` or `live`."""
        return self._call("GET", f"/history/{quote(wanted, safe='')}")

    def rollout(self) -> dict[str, Any]:
        return self._document("GET", "/rollout")

    def tell_rollout(
        self,
        verb: str,
        by: str,
        why: str,
        *,
        at_once: bool = False,
        force: bool = False,
        given: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Give an order and return the rollout's status after it. The router refuses the order if the rollout no
        longer matches the fields in `given`: `run`, `event`, `set`, `phase`, `step`, `plan`."""
        body = {"by": by, "why": why, "at_once": at_once, "force": force, "if": given or {}}
        return self._document("POST", f"/rollout/{verb}", body)

    def _document(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        document = _json(self._call(method, path, body))
        if document is None:
            raise AdminRefused(
                200, f"{self.url} did not answer with a JSON object; is it a router's admin address?"
            )
        return document

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        # urllib loads in a quarter of httpx's time, and a command makes one or two small calls.
        import http.client
        from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

        class NoRedirect(HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                """Refuse redirections: the token must not be sent to another address."""

        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        # No proxy for addresses of this machine.
        proxies = [ProxyHandler({})] if _is_here(urlsplit(self.url).hostname or "") else []
        request = Request(self.url + path, data, headers, method=method)
        try:
            with build_opener(NoRedirect, *proxies).open(request, timeout=TIMEOUT_S) as answer:
                return bytes(answer.read(ANSWER_BYTES_MAX))
        except HTTPError as error:
            problem = _json(_rest(error))
            if problem is None or "title" not in problem:
                raise AdminRefused(
                    error.code, f"{self.url} answered {error.code}; is it a router's admin address?"
                ) from error
            raise AdminRefused(error.code, f"{problem['title']}: {problem.get('detail', '')}") from error
        except (OSError, http.client.HTTPException) as error:
            raise AdminUnreachable(f"no router answers at {self.url}: {_reason(error)}") from error


def _rest(error: HTTPError) -> bytes:
    with suppress(OSError), error:
        return bytes(error.read(ANSWER_BYTES_MAX))
    return b""


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _reason(error: Exception) -> str:
    """Return the system's message, which urllib wraps in an error of its own."""
    inner = getattr(error, "reason", error)
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
