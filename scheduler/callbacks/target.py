"""The address of a callback, checked and taken apart. Pure."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import urlsplit

import msgspec

URL_CHARS: Final = 2048
"""Longest address, in characters: what common servers and proxies accept."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FREE_PORTS: Final = 1024
"""The first port that may be named besides 80 and 443: below are services such as mail, which must get no messages of
strangers from the set's address."""
_CHARACTERS: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_HOST: Final = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?"
)


class Target(msgspec.Struct, frozen=True):
    """The parts of an address. `host` is in lower case; an IPv6 address is without its brackets.

    `path` is the path with the query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port: the receiver, without what the path and the query may tell."""
        return f"{self.scheme}://{self._host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the header `Host`: without the port where it is the scheme's own."""
        return self._host if self.port == _DEFAULT_PORTS[self.scheme] else f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def parse(url: str) -> Target:
    """Check an address and take it apart. Raises `ValueError` that says what is wrong, and what to send instead."""
    if len(url) > URL_CHARS:
        raise ValueError(f"it has {len(url)} characters; send at most {URL_CHARS}")
    if not _CHARACTERS.fullmatch(url):
        raise ValueError("it has a character that no URL has; percent-encode it, and a host name as xn--…")
    if "#" in url:
        raise ValueError("it has a fragment, which is not sent to a receiver; leave out # and what follows")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"it is not a URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("it must begin with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("it has a user name or password; the signature tells the receiver who sends")
    host = parts.hostname or ""
    if not (_is_ipv6(host) if "[" in parts.netloc else _HOST.fullmatch(host)):
        raise ValueError(f"{host[:80]!r} is not the name or address of a host")
    if port is None:
        port = _DEFAULT_PORTS[parts.scheme]
    if port not in _DEFAULT_PORTS.values() and port < _FREE_PORTS:
        raise ValueError(f"port {port} is not allowed; use 80, 443 or one from {_FREE_PORTS} on")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path)


def _is_ipv6(host: str) -> bool:
    """Return True for an IPv6 address without a zone, which would name a network interface of the set's machine."""
    try:
        return IPv6Address(host).scope_id is None
    except AddressValueError:
        return False
