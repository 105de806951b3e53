"""Finds the caller of a request: the account of its bearer token, or of `X-Account` if authentication is off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import falcon.asgi

from scheduler.accounts.account import ACCOUNT_NAME, Scope
from scheduler.errors import AccountLimit, BadRequest
from scheduler.policy.rates import Rates
from sets.api.accounts import DEFAULT_ACCOUNT, Accounts
from sets.api.errors import Unauthorized

_SCHEME: Final = "bearer "
_LOOKS: Final = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


class Callers:
    """Finds the account of a request, and counts the request for it. `clock` gives seconds, and never goes back."""

    def __init__(
        self, accounts: Accounts, rates: Rates, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounts = accounts
        self._rates = rates
        self._clock = clock

    def account_of(self, req: falcon.asgi.Request) -> str:
        """Call it, or `starter_of`, once for each request, before its body is read.

        Raises `BadRequest`, `Unauthorized` or `Forbidden`, and `AccountLimit` where the account sends too many.
        """
        account = self._named(req)
        wait_s = self._rates.take(account, self._clock())
        if wait_s:
            raise AccountLimit(
                f"this account may send {self._rates.rate_of(account):g} requests per second to this set, and sends "
                "more; wait as Retry-After says, then send them more slowly, or several inputs as one batch",
                retry_after_s=wait_s,
            )
        return account

    def starter_of(self, req: falcon.asgi.Request) -> str:
        """The account of a request that begins tasks. Raises as `account_of`, and `Suspended`."""
        account = self.account_of(req)
        self._accounts.check_may_start(account)
        return account

    def _named(self, req: falcon.asgi.Request) -> str:
        if self._accounts.authentication:
            token = bearer_token(req.get_header("Authorization"))
            if token is None:
                raise Unauthorized("send `Authorization: Bearer gc_ACCOUNT_SECRET`")
            return self._accounts.of_token(token, Scope.READ if req.method in _LOOKS else Scope.RUN)
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
