"""The router's admin address as the commands call it: status, history, rollout."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

TIMEOUT_S = 10.0
URL_VARIABLE = "GC_ADMIN_URL"
PORT_VARIABLE = "GC_ADMIN_PORT"
TOKEN_VARIABLE = "GC_ADMIN_TOKEN"


class AdminError(Exception):
    """The router's admin address could not be asked; `hint` says what may help."""

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
        """From the options, else the environment, else 127.0.0.1:8081. Raises `AdminError`."""
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
        return dict(self._call("GET", "/status").json())

    def history(self) -> dict[str, Any]:
        """`changes`, oldest first, and the `digest` of what is in force."""
        return dict(self._call("GET", "/history").json())

    def version(self, wanted: str) -> bytes:
        """The file of a version: a number, a digest's beginning, `previous` or `live`."""
        return bytes(self._call("GET", f"/history/{quote(wanted, safe='')}").content)

    def rollout(self) -> dict[str, Any]:
        return dict(self._call("GET", "/rollout").json())

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
        """Give an order; the rollout's status after it. Refused where it is not what the order was `given` for (fields
        of its status: `run`, `event`, `set`, `phase`, `step`; `plan`)."""
        body = {"by": by, "why": why, "at_once": at_once, "force": force, "if": given or {}}
        return dict(self._call("POST", f"/rollout/{verb}", body).json())

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        import httpx

        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        host = urlsplit(self.url).hostname or ""
        try:
            # A proxy of this machine has no business with its own addresses.
            with httpx.Client(timeout=TIMEOUT_S, trust_env=not _is_here(host), headers=headers) as client:
                answer = client.request(method, self.url + path, json=body)
        except httpx.HTTPError as error:
            raise AdminUnreachable(f"no router answers at {self.url}: {error}") from error
        if answer.is_success:
            return answer
        try:
            problem = answer.json()
        except ValueError:
            problem = {}
        if not isinstance(problem, dict) or "title" not in problem:
            raise AdminRefused(
                answer.status_code,
                f"{self.url} answered {answer.status_code}; is it a router's admin address?",
            )
        raise AdminRefused(answer.status_code, f"{problem['title']}: {problem.get('detail', '')}")


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
