"""The accounts of a set: finds the account of a token, and the largest input of an account."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from sets.api.errors import Forbidden, Unauthorized
from sets.config import ACCOUNT_NAME, SetConfig

DEFAULT_ACCOUNT: Final = "default"
"""The account of callers that name none while authentication is off."""


class Accounts:
    """Knows accounts and operators by their tokens. `authentication`: whether a caller must have one."""

    def __init__(self, config: SetConfig) -> None:
        self.authentication = config.authentication
        self._hashes = {name: account.token_hashes for name, account in config.accounts.items()}
        self._operators = config.operators
        self._max_input_bytes = {
            name: account.max_input_mib << 20
            for name, account in config.accounts.items()
            if account.max_input_mib is not None
        }
        self._default_max_input_bytes = config.max_input_mib << 20

    def of_token(self, token: str) -> str:
        """The account whose token this is. Raises `Unauthorized`, and `Forbidden` for an operator's."""
        name = name_in(token)
        if matches(token, self._hashes.get(name or "", ())):
            assert name is not None
            return name
        if self.is_operator(token):
            raise Forbidden("this token has the scope `operator` and no account; send a token of an account")
        raise Unauthorized("no account of this set has this token; send a token that its operator gave you")

    def is_operator(self, token: str) -> bool:
        """Return True if the token has the scope `operator`."""
        operator = self._operators.get(name_in(token) or "")
        return matches(token, operator.token_hashes if operator else ())

    def may_order(self, token: str) -> bool:
        """Return True if the token is that of an operator who may give the set orders."""
        operator = self._operators.get(name_in(token) or "")
        return self.is_operator(token) and operator is not None and operator.may_order

    def max_input_bytes(self, account: str) -> int:
        """The largest input that the account may send to one task."""
        return self._max_input_bytes.get(account, self._default_max_input_bytes)


def name_in(token: str) -> str | None:
    """The account or operator that a token names: `gc_NAME_SECRET`."""
    prefix, _, rest = token.partition("_")
    name, _, secret = rest.rpartition("_")
    return name if prefix == "gc" and secret and ACCOUNT_NAME.fullmatch(name) else None


def matches(token: str, hashes: tuple[str, ...]) -> bool:
    """Return True if the token has one of these hashes; an unknown name takes the same time."""
    given = hashlib.sha256(token.encode()).hexdigest()
    return any(hmac.compare_digest(given, known) for known in hashes or ("0" * 64,))
