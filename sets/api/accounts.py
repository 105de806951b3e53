"""Who asks: `X-Account` where authentication is off, a bearer token where it is on."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

import falcon.asgi

from sets.api.problems import Problem
from sets.config import ACCOUNT_NAME, SetConfig

DEFAULT_ACCOUNT: Final = "default"
_SCHEME: Final = "bearer "


class Accounts:
    """Finds the account of a request. Raises `Problem` 400 or 401."""

    def __init__(self, config: SetConfig) -> None:
        self._on = config.authentication
        self._hashes = {name: account.token_hashes for name, account in config.accounts.items()}
        self._max_input_bytes = {
            name: account.max_input_mib << 20
            for name, account in config.accounts.items()
            if account.max_input_mib is not None
        }
        self._default_max_input_bytes = config.max_input_mib << 20

    def of(self, req: falcon.asgi.Request) -> str:
        if self._on:
            return self._authenticated(req.get_header("Authorization") or "")
        account = req.get_header("X-Account")
        if account is None:
            return DEFAULT_ACCOUNT
        if not ACCOUNT_NAME.fullmatch(account):
            detail = "X-Account: an account's name is lower-case letters, digits and dashes, 63 at most"
            raise Problem(400, "bad-parameter", "A parameter is wrong", detail, field="X-Account")
        return account

    def max_input_bytes(self, account: str) -> int:
        return self._max_input_bytes.get(account, self._default_max_input_bytes)

    def _authenticated(self, header: str) -> str:
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise _unauthorized("send `Authorization: Bearer gc_ACCOUNT_SECRET`")
        token = header[len(_SCHEME) :].strip()
        account = account_in(token)
        given = hashlib.sha256(token.encode()).hexdigest()
        # Unknown accounts cost the same comparison as wrong secrets.
        hashes = self._hashes.get(account or "", ()) or ("0" * 64,)
        if not any(hmac.compare_digest(given, known) for known in hashes):
            raise _unauthorized("the token is not valid here")
        assert account is not None
        return account


def account_in(token: str) -> str | None:
    """The account that a token names: `gc_ACCOUNT_SECRET`."""
    prefix, _, rest = token.partition("_")
    account, _, secret = rest.rpartition("_")
    return account if prefix == "gc" and secret and ACCOUNT_NAME.fullmatch(account) else None


def _unauthorized(detail: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="general-compute"'}
    return Problem(401, "unauthorized", "The request is not authorized", detail, headers=headers)
