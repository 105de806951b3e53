"""The master key of the accounts: encrypts private keys, signs the book, and makes the secrets of tokens."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_VARIABLE: Final = "GC_ACCOUNTS_KEY"
"""Environment variable that holds the master key where no file is named."""
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_ID_CHARACTERS: Final = 8
_MAX_KEYS: Final = 8
"""Master keys in one file: the present one, and earlier ones until everything is sealed with the present one."""


class SealError(Exception):
    """A sealed text or a signature is not of these master keys; or the master key itself cannot be used."""


class Seal:
    """The master keys, the present one first. Earlier ones still open what they sealed."""

    def __init__(self, keys: list[bytes]) -> None:
        if not keys:
            raise SealError("there is no master key")
        self._keys = {_id_of(key): key for key in keys}
        self.key_id = _id_of(keys[0])
        """Names the present master key; it says nothing about the key itself."""

    def seal(self, text: str, context: str) -> str:
        """Encrypt `text`. It opens only with the same `context`, so a sealed text cannot be moved elsewhere."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = AESGCM(_derived(self._keys[self.key_id], "private keys"))
        sealed = nonce + cipher.encrypt(nonce, text.encode(), context.encode())
        return f"{self.key_id}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str, context: str) -> str:
        """Decrypt what `seal` made. Raises `SealError`."""
        key_id, _, text = sealed.partition(".")
        cipher = AESGCM(_derived(self._key(key_id), "private keys"))
        try:
            content = base64.urlsafe_b64decode(text)
            return cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise SealError("a sealed key was changed, or belongs to another account") from error

    def sign(self, content: bytes) -> str:
        """Sign with the present master key; the answer names the key."""
        return f"{self.key_id}.{_mac(self._keys[self.key_id], content)}"

    def check(self, content: bytes, signature: str) -> None:
        """Raise `SealError` if the signature is not one of these master keys over `content`."""
        key_id, _, mac = signature.partition(".")
        if not hmac.compare_digest(_mac(self._key(key_id), content).encode(), mac.encode()):
            raise SealError("the signature does not match: the content was changed")

    def secret(self, purpose: str, key_id: str | None = None) -> bytes:
        """A secret for one purpose, made of the present master key or of the named one. Raises `SealError`."""
        return _derived(self._key(key_id or self.key_id), purpose)

    def _key(self, key_id: str) -> bytes:
        key = self._keys.get(key_id)
        if key is None:
            raise SealError(f"made with the master key {key_id!r:.20}, which is not in the key file")
        return key


def key_file_of(book: Path) -> Path:
    """The file of the master key beside a file of accounts."""
    return book.with_name(f"{book.name}.key")


def load_for(book: Path, key_file: Path | None, environment: Mapping[str, str] = os.environ) -> Seal:
    """The master keys of a file of accounts: of `key_file`, else of `GC_ACCOUNTS_KEY`, else of the file beside it.

    Raises `SealError` with what to do.
    """
    if key_file is None and KEY_VARIABLE in environment:
        return load(None, environment)
    return load(key_file or key_file_of(book))


def new_key() -> str:
    """A new master key, as it stands in a key file."""
    return secrets.token_hex(_KEY_BYTES)


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Seal:
    """The master keys of a file, one a line, or of `GC_ACCOUNTS_KEY`. Raises `SealError` with what to do."""
    if path is None:
        source, text = KEY_VARIABLE, environment.get(KEY_VARIABLE, "")
        if not text:
            raise SealError(
                f"no master key: name its file, or set {KEY_VARIABLE}; `gcompute account init` makes one"
            )
    else:
        source, text = str(path), _text_of(path)
    return _parsed(text.split(), source)


def _text_of(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii")
    except OSError as error:
        raise SealError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SealError(f"{path}: is not a key file: a key is 64 hexadecimal digits") from error
    if mode & 0o077:
        raise SealError(f"{path}: others may read the master key; `chmod 600 {path}`")
    return text


def _parsed(lines: list[str], source: str) -> Seal:
    if not 1 <= len(lines) <= _MAX_KEYS:
        raise SealError(f"{source}: holds {len(lines)} keys; 1 to {_MAX_KEYS} are possible, one a line")
    keys: list[bytes] = []
    for number, line in enumerate(lines, 1):
        try:
            key = binascii.unhexlify(line)
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise SealError(f"{source}: line {number}: a key is {2 * _KEY_BYTES} hexadecimal digits")
        keys.append(key)
    return Seal(keys)


def _derived(key: bytes, purpose: str) -> bytes:
    """A key for one purpose. The master key has full entropy, so one HMAC is enough (RFC 5869's expand, one block)."""
    return hmac.digest(key, purpose.encode() + b"\x01", "sha256")


def _mac(key: bytes, content: bytes) -> str:
    return hmac.new(_derived(key, "book"), content, hashlib.sha256).hexdigest()


def _id_of(key: bytes) -> str:
    return hmac.new(key, b"id", hashlib.sha256).hexdigest()[:_ID_CHARACTERS]
