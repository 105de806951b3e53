"""The challenge of a registry that asks for authentication, and the request for a token. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import msgspec

CLIENT_ID: Final = "general-compute"
MIN_TOKEN_S: Final = 60.0
"""Lifetime of a token that does not say its own, in seconds, as the specification has it."""
MAX_TOKEN_S: Final = 3600.0
MAX_TOKEN_CHARS: Final = 16_384
MAX_TOKEN_ANSWER_BYTES: Final = 256 << 10


class Challenge(msgspec.Struct, frozen=True):
    """`realm` and `service` are empty for HTTP Basic."""

    bearer: bool
    realm: str = ""
    service: str = ""


class Token(msgspec.Struct, frozen=True):
    text: str
    lifetime_s: float


def parse_challenge(headers: Iterable[str]) -> Challenge | None:
    """Return the first challenge of the WWW-Authenticate headers that can be met, Bearer before Basic; None if none
    can."""
    found: Challenge | None = None
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() == "basic":
            found = found or Challenge(bearer=False)
        elif scheme.lower() == "bearer":
            fields = _fields(rest)
            if fields.get("realm"):
                return Challenge(bearer=True, realm=fields["realm"], service=fields.get("service", ""))
    return found


def token_url(realm: str, challenge: Challenge, repository: str, username: str) -> str:
    """The address that answers a token to pull from `repository`.

    The scope is ours, not the challenge's: a registry must not choose for what our password is used.
    """
    query = {"service": challenge.service} if challenge.service else {}
    query |= {"scope": f"repository:{repository}:pull", "client_id": CLIENT_ID}
    if username:
        query["account"] = username
    return f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"


def parse_token(content: bytes) -> Token | None:
    """The token in a token server's answer; None if the answer has no token that can be sent."""
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    text = answer.get("token") or answer.get("access_token")
    if (
        not isinstance(text, str)
        or len(text) > MAX_TOKEN_CHARS
        or not text.isascii()
        or not text.isprintable()
    ):
        return None
    lifetime_s = answer.get("expires_in")
    if not isinstance(lifetime_s, int | float) or lifetime_s < MIN_TOKEN_S:
        lifetime_s = MIN_TOKEN_S
    return Token(text, min(float(lifetime_s), MAX_TOKEN_S))


def _fields(text: str) -> dict[str, str]:
    try:
        fields = parse_keqv_list([item for item in parse_http_list(text) if "=" in item])
    except (ValueError, IndexError):
        return {}
    return {name.strip().lower(): value for name, value in fields.items()}
