"""Finds the caller of a request: the account of its bearer token, or of `X-Account` if authentication is off."""

from __future__ import annotations

from typing import Final

import falcon.asgi

from scheduler.errors import BadRequest
from sets.api.accounts import DEFAULT_ACCOUNT, Accounts
from sets.api.errors import Unauthorized
from sets.config import ACCOUNT_NAME

_SCHEME: Final = "bearer "


class Callers:
    """Finds the account of a request."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def account_of(self, req: falcon.asgi.Request) -> str:
        """Raises `BadRequest`, `Unauthorized` or `Forbidden`."""
        if self._accounts.authentication:
            token = bearer_token(req.get_header("Authorization"))
            if token is None:
                raise Unauthorized("send `Authorization: Bearer gc_ACCOUNT_SECRET`")
            return self._accounts.of_token(token)
        account = req.get_header("X-Account")
        if account is None:
            return DEFAULT_ACCOUNT
        if not ACCOUNT_NAME.fullmatch(account):
            raise BadRequest(
                "X-Account: an account's name is lower-case letters, digits and dashes, 63 at most",
                field="X-Account",
            )
        return account


def bearer_token(header: str | None) -> str | None:
    """The token of an Authorization header; None where it has none."""
    if header is None or header[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return header[len(_SCHEME) :].strip()
