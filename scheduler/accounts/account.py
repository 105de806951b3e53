"""An account: its keys, its tokens, its quotas, and whether it is suspended. Pure records."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""An account's name: lower-case letters, digits and dashes, 63 at most. It stands in tokens and public keys."""
MAX_CREDENTIALS: Final = 64
"""Keys of one account, and likewise tokens; those that have expired count until they are removed."""

Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
TimeUs = Annotated[int, Meta(ge=0, le=1 << 62)]


class Scope(StrEnum):
    """A right that a token gives."""

    RUN = "run"
    """Submit, cancel and retry; and everything that `READ` permits."""
    READ = "read"
    """Look at tasks, results, usage and limits."""
    IMAGES = "images"
    """Push, pull and delete images."""


class Key(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pair of keys: signs calls of the UGC API, and logs in to the registry.

    `sealed`: the private key, encrypted with the book's master key.
    """

    sealed: str
    created_us: TimeUs
    name: str = ""
    expires_us: TimeUs | None = None


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bearer token of the native API; only its hash is kept. `hash`: SHA-256 of the whole token in hexadecimal."""

    hash: Hash
    created_us: TimeUs
    name: str = ""
    scopes: tuple[Scope, ...] = (Scope.RUN, Scope.IMAGES)
    expires_us: TimeUs | None = None


class Quotas(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of an account in each set; None stands for the set's own setting.

    `cpu_percent`: cores that its running tasks hold together, in hundredths. `waiting`: its tasks that wait.
    `kept_mib`: its storage. `requests_per_s`: its requests. `input_mib`: the largest input of one task. `images_mib`:
    its images in the registry, in all sets together.
    """

    cpu_percent: Annotated[int, Meta(ge=1, le=6_553_600)] | None = None
    waiting: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    kept_mib: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    requests_per_s: Annotated[float, Meta(ge=0.1, le=1e6)] | None = None
    input_mib: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    images_mib: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None


class Suspension(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account may begin nothing new. `tasks`: whether those that it has accepted run to their end."""

    since_us: TimeUs
    why: str
    tasks: Literal["finish", "cancel"] = "finish"


class Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """An account. `keys`: by public key; `tokens`: by their id, which is the part of a token that is no secret."""

    created_us: TimeUs
    keys: dict[str, Key] = {}
    tokens: dict[str, Token] = {}
    quotas: Quotas = Quotas()
    suspension: Suspension | None = None


def in_force(credential: Key | Token, now_us: int) -> bool:
    """Return True if a key or token has not expired."""
    return credential.expires_us is None or now_us < credential.expires_us
