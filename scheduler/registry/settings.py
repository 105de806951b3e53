"""Settings of one registry that a set may contact."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_ORIGIN: Final = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$"
_MAX_SECRET_BYTES: Final = 16 << 10
RegistryName = Annotated[str, Meta(pattern=r"^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$")]
Origin = Annotated[str, Meta(pattern=_ORIGIN)]


class RegistryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry that the set may contact. Without an entry, no image reference makes it contact anything."""

    name: RegistryName
    """The registry as image references name it, such as `registry.example` or `registry.example:5000`."""
    url: Origin | None = None
    """Address of its API; by default `https://` and the name."""
    also: tuple[Origin, ...] = ()
    """Further addresses that it may send the set to: its token server, and the storage that its redirects lead to."""
    username: str = ""
    """User for the registry or its token server; without one the set asks anonymously."""
    password_file: str | None = None
    """File that holds the user's password or token; it is read at each login, so it can be replaced at any time."""
    ca_file: str | None = None
    """File with the certificates to trust for these addresses; by default the usual authorities."""

    def check(self) -> None:
        """Raise `ValueError` for a login without its other half, and for a file that cannot be used."""
        if bool(self.username) != (self.password_file is not None):
            raise ValueError(f"registry {self.name}: username and password_file must be given together")
        self.password()
        if self.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"ca_file {self.ca_file} of registry {self.name}: {error}") from error

    def password(self) -> str:
        """The password as its file has it now; "" without a file. Raises `ValueError`."""
        if self.password_file is None:
            return ""
        return secret_in(self.password_file, f"password_file of registry {self.name}")


def secret_in(path: str, what: str) -> str:
    """The secret that a file holds. `what` names the setting in errors. Raises `ValueError`."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        raise ValueError(f"{what}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: {path}: is not UTF-8 text") from error
    if not text or not text.isprintable() or len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"{what}: {path} is empty, too large or holds more than one line")
    return text
