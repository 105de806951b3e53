"""The allow list of registries: which registry a reference means, and which addresses may be contacted for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

import msgspec

from scheduler.errors import RegistryNotAllowed, Unavailable
from scheduler.images.reference import Reference
from scheduler.registry.settings import RegistryConfig

_DOCKER_HUB: Final = "docker.io"
"""The registry that engines ask for an image whose name has none."""
_PORTS: Final = {"https": 443, "http": 80}
_MAX_URL_CHARS: Final = 8192
"""Signed addresses of storage have some 1,500 characters."""


class Registry(msgspec.Struct, frozen=True):
    """One registry. `url` has no slash at its end; `reachable` holds the origins that may be contacted for it."""

    name: str
    url: str
    reachable: frozenset[str]
    config: RegistryConfig

    def repository(self, reference: Reference) -> str:
        """The repository's name in the registry's API."""
        if self.name == _DOCKER_HUB and "/" not in reference.path:
            return f"library/{reference.path}"
        return reference.path

    def follow(self, base: str, location: str) -> str:
        """The address that a redirect or a token realm leads to.

        Raises `Unavailable` if the allow list does not have it: the registry is not usable as it is set up.
        """
        url = urljoin(base, location)
        try:
            origin = origin_of(url)
        except ValueError as error:
            raise Unavailable(f"registry {self.name} leads to a bad address: {error}") from error
        if origin not in self.reachable:
            raise Unavailable(
                f"registry {self.name} leads to {origin}, which the set may not contact; "
                f"an operator can add it to `also` of this registry in the setting `registries`",
                retry_after_s=60,
            )
        return url


class AllowList:
    """The registries that may be contacted. The first one is the set's own: names without a registry mean it."""

    def __init__(self, configs: Iterable[RegistryConfig]) -> None:
        self._registries: dict[str, Registry] = {}
        for config in configs:
            registry = _registry(config)
            if registry.name in self._registries:
                raise ValueError(f"registry {config.name} appears twice")
            self._registries[registry.name] = registry

    def __iter__(self) -> Iterator[Registry]:
        return iter(self._registries.values())

    def has(self, reference: Reference) -> bool:
        """Return True if the reference names a registry of the list."""
        return bool(reference.domain) and normal_name(reference.domain) in self._registries

    def registry(self, reference: Reference) -> Registry:
        """The registry that holds the image. Raises `RegistryNotAllowed`; nothing was contacted then."""
        if reference.domain:
            found = self._registries.get(normal_name(reference.domain))
            if found is None:
                raise not_allowed(reference)
            return found
        own = next(iter(self._registries.values()), None)
        if own is None:
            raise RegistryNotAllowed(
                f"{reference.text} names no registry, and the set has none of its own (setting `registries`)"
            )
        return own


def not_allowed(reference: Reference) -> RegistryNotAllowed:
    return RegistryNotAllowed(
        f"images are not pulled from {reference.domain}: it is not in the set's setting `registries`; "
        "name an image of a registry that is, or ask the operator to add it"
    )


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling. Raises `ValueError`."""
    if len(url) > _MAX_URL_CHARS or not url.isascii() or not url.isprintable() or "\\" in url:
        raise ValueError("the address is too long or holds characters that no address has")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url[:200]!r} is no http or https address")
    if "@" in parts.netloc:
        raise ValueError("the address holds a user's name")
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    host = parts.hostname.lower()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _registry(config: RegistryConfig) -> Registry:
    url = config.url or f"https://{config.name}"
    reachable = frozenset(origin_of(each) for each in (url, *config.also))
    return Registry(normal_name(config.name), url, reachable, config)


def engines_registry(reference: Reference) -> str:
    """The registry from which an engine would pull an image, in one spelling; "" for an id, which it does not pull."""
    if reference.image_id:
        return ""
    return normal_name(reference.domain) if reference.domain else _DOCKER_HUB


def normal_name(name: str) -> str:
    """A registry's name in one spelling: lower case, and without the port that HTTPS has anyway."""
    lower = name.lower().removesuffix(":443")
    return _DOCKER_HUB if lower == "index.docker.io" else lower
