"""The `discovery` section of the operators' file: the service registry in which sets are found. Pure data."""

from __future__ import annotations

import enum

import msgspec


class RegistryKind(enum.StrEnum):
    """The kinds of service registries that the router can ask."""

    CONSUL = "consul"
    NOMAD = "nomad"


class Discovery(msgspec.Struct, frozen=True):
    """`url` is the origin of the registry's HTTP API; `namespace` is "" for the registry's default."""

    kind: RegistryKind
    url: str
    namespace: str = ""
    token_file: str | None = None
    ca_file: str | None = None
