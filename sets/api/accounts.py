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
    """Finds the account of a request. Raises `Problem` 400, 401 or 403."""

    def __init__(self, config: SetConfig) -> None:
        self._on = config.authentication
        self._hashes = {name: account.token_hashes for name, account in config.accounts.items()}
        self._operators = {name: operator.token_hashes for name, operator in config.operators.items()}
        self._max_input_bytes = {
            name: account.max_input_mib << 20
            for name, account in config.accounts.items()
            if account.max_input_mib is not None
        }
        self._default_max_input_bytes = config.max_input_mib << 20

    def of(self, req: falcon.asgi.Request) -> str:
        if self._on:
            return self._authenticated(req.get_header("Authorization"))
        account = req.get_header("X-Account")
        if account is None:
            return DEFAULT_ACCOUNT
        if not ACCOUNT_NAME.fullmatch(account):
            detail = "X-Account: an account's name is lower-case letters, digits and dashes, 63 at most"
            raise Problem(400, "bad-parameter", "A parameter is wrong", detail, field="X-Account")
        return account

    def max_input_bytes(self, account: str) -> int:
        return self._max_input_bytes.get(account, self._default_max_input_bytes)

    def _authenticated(self, header: str | None) -> str:
        token = bearer_token(header)
        if token is None:
            raise _unauthorized("send `Authorization: Bearer gc_ACCOUNT_SECRET`")
        name = name_in(token)
        if matches(token, self._hashes.get(name or "", ())):
            assert name is not None
            return name
        if matches(token, self._operators.get(name or "", ())):
            detail = "this token has the scope `operator` and no account; send a token of an account"
            raise Problem(403, "forbidden", "The request is not allowed", detail)
        raise _unauthorized("the token is not valid here")


def bearer_token(header: str | None) -> str | None:
    """The token of an Authorization header; None where it has none."""
    if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return header[len(_SCHEME) :].strip()


def name_in(token: str) -> str | None:
    """The account or operator that a token names: `gc_NAME_SECRET`."""
    prefix, _, rest = token.partition("_")
    name, _, secret = rest.rpartition("_")
    return name if prefix == "gc" and secret and ACCOUNT_NAME.fullmatch(name) else None


def matches(token: str, hashes: tuple[str, ...]) -> bool:
    """Whether the token is one of those with these hashes; a name that is not known costs the same comparison."""
    given = hashlib.sha256(token.encode()).hexdigest()
    return any(hmac.compare_digest(given, known) for known in hashes or ("0" * 64,))


def _unauthorized(detail: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="general-compute"'}
    return Problem(401, "unauthorized", "The request is not authorized", detail, headers=headers)
