"""The settings of a set's callbacks, and the secrets that sign them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from scheduler.callbacks.networks import Networks
from scheduler.callbacks.signing import check_secret
from scheduler.registry.settings import Origin
from scheduler.trouble import Trouble
from sets.yaml_file import ConfigError, parse_as, text_of

REFERENCE: Final = "sets/docs/callbacks.md"
SECRETS_MAX: Final = 8
"""Most secrets of one account: each adds a signature to every message."""

Secrets = dict[str, tuple[str, ...]]


class CallbacksConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The messages to callers whose tasks have ended (`X-Callback-Url`)."""

    secrets: Secrets = {}
    """Secrets by account, each `whsec_` and the base64 of 24 to 64 bytes. Every secret of an account signs, so that one
    can be replaced without a gap. An account without any cannot ask for callbacks."""
    secrets_file: str | None = None
    """YAML file with more `secrets`, as a map of the same form under that name. It is read again when it changes."""
    networks: tuple[str, ...] = ()
    """Networks, such as `10.1.0.0/16`, that callbacks may reach besides the public ones. Every account can then send
    messages to every host there."""
    ca_file: str | None = None
    """File with the certificates to trust for `https` addresses; by default the usual authorities."""
    url: Origin | None = None
    """Address at which clients reach tasks, usually the routers', for the field `url` of a message; by default `url` is
    the path alone."""

    def check(self) -> None:
        """Raise `ValueError` for what cannot be used."""
        _check(self.secrets)
        CallbackSecrets(self)
        for network in self.networks:
            try:
                Networks((network,))
            except ValueError as error:
                raise ValueError(f"networks: {error}") from error
        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"ca_file {self.ca_file}: {error}") from error


class _SecretsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    secrets: Secrets = {}


class CallbackSecrets:
    """The secrets by account, as the configuration and its file have them now.

    Raises `ValueError` if the file cannot be used. One that is broken later leaves the secrets as they were.
    """

    def __init__(self, config: CallbacksConfig) -> None:
        self._own: Mapping[str, tuple[str, ...]] = config.secrets
        self._path = Path(config.secrets_file) if config.secrets_file is not None else None
        self._filed: Mapping[str, tuple[str, ...]] = {}
        self._mark: tuple[int, ...] = ()
        self._trouble = Trouble("callback secrets cannot be read", "callback secrets are read again")
        if self._path is not None:
            self._mark = _mark_of(self._path)
            self._filed = _read(self._path)

    def of(self, account: str) -> tuple[str, ...]:
        """The secrets of an account; none if it has none."""
        if self._path is not None and (mark := _mark_of(self._path)) != self._mark:
            try:
                self._filed = _read(self._path)
            except ValueError as error:
                self._trouble.met(str(error))
            else:
                self._mark = mark
                self._trouble.over()
        return (*self._filed.get(account, ()), *self._own.get(account, ()))


def _mark_of(path: Path) -> tuple[int, ...]:
    """A mark that changes with the file; empty if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _read(path: Path) -> Secrets:
    try:
        found = parse_as(_SecretsFile, text_of(path), str(path), REFERENCE)
    except ConfigError as error:
        raise ValueError(f"secrets_file: {error}") from error
    _check(found.secrets)
    return found.secrets


def _check(secrets: Mapping[str, tuple[str, ...]]) -> None:
    for account, listed in secrets.items():
        if not 0 < len(listed) <= SECRETS_MAX:
            raise ValueError(f"secrets: {account}: from 1 to {SECRETS_MAX} secrets, not {len(listed)}")
        for secret in listed:
            try:
                check_secret(secret)
            except ValueError as error:
                raise ValueError(f"secrets: {account}: {error}") from error
