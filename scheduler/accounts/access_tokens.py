"""Access tokens of the UGC API: they carry all that any set needs to accept them, and are stored nowhere."""

from __future__ import annotations

import base64
import hmac
from typing import Final

import msgspec

from scheduler.accounts.account import in_force
from scheduler.accounts.book import Book, name_in
from scheduler.accounts.sealing import Seal, SealError

DEFAULT_LIFETIME_S: Final = 7200
MAX_LIFETIME_S: Final = 30 * 86_400
_PURPOSE: Final = "access tokens"
_MAX_CHARACTERS: Final = 512
_MAC_BYTES: Final = 16
_PREFIX: Final = "gca"


class TokenUnknown(Exception):
    """A text is not an access token of this installation, or its key is gone."""


class TokenExpired(Exception):
    """An access token's time is over."""


class _Content(msgspec.Struct, frozen=True, array_like=True):
    master: str
    public_key: str
    expires_us: int
    grant: str


_DECODER: Final = msgspec.json.Decoder(_Content)


def make(seal: Seal, public_key: str, expires_us: int, grant: str = "Task") -> str:
    """An access token of the account to which the public key belongs."""
    content = msgspec.json.encode(_Content(seal.key_id, public_key, expires_us, grant))
    mac = _mac(seal, seal.key_id, content)
    # The account's name is readable, so that the router can route by it.
    return f"{_PREFIX}_{name_in(public_key)}_{_text(content + mac)}"


def account_of(token: str, seal: Seal, book: Book, now_us: int) -> str:
    """The account of an access token. Raises `TokenUnknown` and `TokenExpired`."""
    content = _opened(token, seal)
    name = name_in(content.public_key)
    account = book.accounts.get(name or "")
    key = account.keys.get(content.public_key) if account else None
    if name is None or key is None or not token.startswith(f"{_PREFIX}_{name}_"):
        raise TokenUnknown("the key with which this token was made is gone")
    if now_us >= content.expires_us or not in_force(key, now_us):
        raise TokenExpired("this token's time is over; get another one")
    return name


def _opened(token: str, seal: Seal) -> _Content:
    prefix, _, rest = token.partition("_")
    _, _, text = rest.partition("_")
    if prefix != _PREFIX or len(token) > _MAX_CHARACTERS:
        raise TokenUnknown("this is not an access token")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        content, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        # The master key's name is read before the signature is checked, and is good for nothing else.
        claimed = _DECODER.decode(content)
        genuine = hmac.compare_digest(mac, _mac(seal, claimed.master, content))
    except (ValueError, msgspec.DecodeError, SealError) as error:
        raise TokenUnknown("this is not an access token of this installation") from error
    if not genuine or _text(data) != text:
        raise TokenUnknown("this is not an access token of this installation")
    return claimed


def _mac(seal: Seal, master: str, content: bytes) -> bytes:
    return hmac.digest(seal.secret(_PURPOSE, master), content, "sha256")[:_MAC_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
