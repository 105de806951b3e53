"""The scope `operator`: who may see the state of the whole set, over all accounts."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import falcon.asgi

from sets.api.accounts import Accounts
from sets.api.errors import Forbidden
from sets.api.native.callers import Callers, bearer_token

ADMIN: Final = r"^/v1/admin(/|$)"
_RELAYED: Final = ("X-Forwarded-For", "Forwarded", "Via")
"""A request with one of these headers came through a proxy: its connection does not tell where it is from."""


class Operators:
    """Where authentication is on, a token of an operator is needed; where it is off, a connection from this machine."""

    def __init__(self, accounts: Accounts, callers: Callers) -> None:
        self._accounts = accounts
        self._callers = callers

    def check(self, req: falcon.asgi.Request) -> None:
        """Raise `Unauthorized` or `Forbidden` unless the request may see the state of the whole set."""
        if self.admits(req):
            return
        if not self._accounts.authentication:
            raise Forbidden(
                "authentication is off here: this is answered to this machine only, not through a proxy"
            )
        # The token is a valid account's, but lacks the scope.
        self._callers.account_of(req)
        raise Forbidden(
            "this token has no scope `operator`; `gcompute token operator NAME` makes one that has"
        )

    def check_order(self, req: falcon.asgi.Request) -> None:
        """Raise `Unauthorized` or `Forbidden` unless the request may change the state of the whole set."""
        self.check(req)
        if self._accounts.authentication:
            token = bearer_token(req.get_header("Authorization"))
            if token is None or not self._accounts.may_order(token):
                raise Forbidden(
                    "this operator may only read; `may_order: true` in the set's file lets it give orders"
                )

    def admits(self, req: falcon.asgi.Request) -> bool:
        """Return True if `check` accepts it."""
        if not self._accounts.authentication:
            return _is_local(req)
        token = bearer_token(req.get_header("Authorization"))
        return token is not None and self._accounts.is_operator(token)


class AdminSink:
    """Guards all of `/v1/admin/`, whatever lies there."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def __call__(self, req: falcon.asgi.Request, resp: falcon.asgi.Response | None, **_: Any) -> None:
        self._operators.check(req)
        raise falcon.HTTPNotFound


def _is_local(req: falcon.asgi.Request) -> bool:
    client = req.scope["client"]
    if client is None or any(req.get_header(name) is not None for name in _RELAYED):
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
