"""The accounts of a set: who a token is, what it permits, and what bounds the account's quotas set."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from scheduler.accounts.account import Account, Scope, in_force
from scheduler.accounts.book import Book, name_in, token_id_of
from scheduler.clock import wall_us
from sets.api.errors import Forbidden, Suspended, Unauthorized
from sets.config import SetConfig

DEFAULT_ACCOUNT: Final = "default"
"""The account of callers that name none while authentication is off."""
_NO_HASH: Final = "0" * 64


class Accounts:
    """Knows accounts and operators by their tokens. `authentication`: whether a caller must have one.

    `book`: gives the book of accounts as it is now.
    """

    def __init__(
        self,
        config: SetConfig,
        book: Callable[[], Book] = Book,
        *,
        clock_us: Callable[[], int] = wall_us,
    ) -> None:
        self.authentication = config.authentication
        self._operators = config.operators
        self._book = book
        self._clock_us = clock_us
        self._default_max_input_bytes = config.max_input_mib << 20

    def of_token(self, token: str, needed: Scope) -> str:
        """The account whose token this is.

        Raises `Unauthorized`, and `Forbidden` for an operator's token and for one that lacks the scope.
        """
        name = name_in(token)
        account = self._book().accounts.get(name or "")
        found = account.tokens.get(token_id_of(token)) if account else None
        # An unknown token takes the same time.
        if hash_matches(token, found.hash if found else _NO_HASH) and found is not None and name is not None:
            if not in_force(found, self._clock_us()):
                raise Unauthorized("this token has expired; make another with `gcompute token create`")
            if needed not in found.scopes and not (needed is Scope.READ and Scope.RUN in found.scopes):
                raise Forbidden(
                    f"this token has no scope `{needed}`; `gcompute token create --scope {needed}` makes one that has"
                )
            return name
        if self.is_operator(token):
            raise Forbidden("this token has the scope `operator` and no account; send a token of an account")
        raise Unauthorized("no account has this token; send a token that `gcompute token create` made")

    def check_may_start(self, name: str) -> None:
        """Raise `Suspended` if the account may begin nothing new."""
        account = self._of(name)
        if account is not None and account.suspension is not None:
            raise Suspended(f"the account is suspended: {account.suspension.why}")

    def is_operator(self, token: str) -> bool:
        """Return True if the token has the scope `operator`."""
        operator = self._operators.get(name_in(token) or "")
        hashes = operator.token_hashes if operator else (_NO_HASH,)
        return any(hash_matches(token, known) for known in hashes)

    def may_order(self, token: str) -> bool:
        """Return True if the token is that of an operator who may give the set orders."""
        operator = self._operators.get(name_in(token) or "")
        return self.is_operator(token) and operator is not None and operator.may_order

    def max_input_bytes(self, name: str) -> int:
        """The largest input that the account may send to one task."""
        account = self._of(name)
        if account is None or account.quotas.input_mib is None:
            return self._default_max_input_bytes
        return account.quotas.input_mib << 20

    def _of(self, name: str) -> Account | None:
        return self._book().accounts.get(name)


def hash_matches(token: str, known: str) -> bool:
    """Return True if the token has this hash, in the same time whatever the token is."""
    return hmac.compare_digest(hashlib.sha256(token.encode()).hexdigest(), known)
