"""Finds the account of a UGC call: by its signature, or by its access token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from scheduler.accounts.access_tokens import TokenExpired, TokenUnknown
from scheduler.accounts.credentials import Credentials
from scheduler.policy.rates import Rates
from sets.api.accounts import DEFAULT_ACCOUNT, Accounts
from sets.api.errors import Suspended
from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.query import UgcQuery
from sets.api.ugc.signature import SIGNATURE, is_signed

ACCESS_TOKEN: Final = "AccessToken"
PUBLIC_KEY: Final = "PublicKey"
ANY_TOKEN: Final = "authentication-is-off"
"""The access token that a set without authentication gives; it takes any."""


class UgcCallers:
    """`credentials`: None where authentication is off; then every call is of the account `default`."""

    def __init__(
        self,
        accounts: Accounts,
        credentials: Credentials | None,
        rates: Rates,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._credentials = credentials if accounts.authentication else None
        self._rates = rates
        self._clock = clock

    def signed(self, query: UgcQuery) -> str:
        """The account of a call that needs a signature. Raises `UgcError`."""
        if self._credentials is None:
            return self._counted(DEFAULT_ACCOUNT)
        given = query.get(SIGNATURE)
        public_key = query.get(PUBLIC_KEY)
        if given is None or public_key is None:
            missing = SIGNATURE if given is None else PUBLIC_KEY
            raise UgcError(
                RetCode.NO_SIGNATURE, f"{missing}: is missing; this call needs PublicKey and Signature"
            )
        return self._counted(self._signer(query, public_key, given))

    def with_token(self, query: UgcQuery) -> str:
        """The account of a call that needs an access token. Raises `UgcError`."""
        token = query.need(ACCESS_TOKEN)
        if self._credentials is None:
            return self._counted(DEFAULT_ACCOUNT)
        try:
            account = self._credentials.account_of(token)
        except TokenUnknown as error:
            raise UgcError(RetCode.TOKEN_NOT_VALID, f"{ACCESS_TOKEN}: {error}") from None
        except TokenExpired as error:
            raise UgcError(RetCode.TOKEN_EXPIRED, f"{ACCESS_TOKEN}: {error}") from None
        given, public_key = query.get(SIGNATURE), query.get(PUBLIC_KEY)
        # A token is enough; but a signature that is sent beside it must be right.
        if given is not None and public_key is not None and self._signer(query, public_key, given) != account:
            raise UgcError(RetCode.WRONG_SIGNATURE, "the token and the signature are of two accounts")
        return self._counted(account)

    def starter(self, query: UgcQuery) -> str:
        """The account of a call that begins a task. Raises `UgcError`."""
        account = self.with_token(query)
        try:
            self._accounts.check_may_start(account)
        except Suspended as error:
            raise UgcError(RetCode.TOKEN_NOT_VALID, str(error)) from None
        return account

    def new_token(self, query: UgcQuery, lifetime_s: int) -> str:
        """An access token for the caller of a signed call."""
        if self._credentials is None:
            return ANY_TOKEN
        return self._credentials.new_access_token(query.need(PUBLIC_KEY), lifetime_s)

    def _signer(self, query: UgcQuery, public_key: str, given: str) -> str:
        assert self._credentials is not None
        pair = self._credentials.pair(public_key)
        if pair is None:
            raise UgcError(
                RetCode.UNKNOWN_PUBLIC_KEY, f"{PUBLIC_KEY}: no account has this key, or it has expired"
            )
        account, private_key = pair
        if not is_signed(query.pairs, private_key, given):
            raise UgcError(
                RetCode.WRONG_SIGNATURE,
                "Signature: is not the SHA-1 of the other parameters, sorted by name, and the private key",
            )
        return account

    def _counted(self, account: str) -> str:
        if wait_s := self._rates.take(account, self._clock()):
            raise UgcError(
                RetCode.TOO_MANY_REQUESTS, f"this account sends too many requests; wait {wait_s:.1f} s"
            )
        return account
