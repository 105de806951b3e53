"""The `discovery` section of the operators' file → where sets are found, or mistakes with their places."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from router.config.settings import DISCOVERY
from router.config.yaml_nodes import Node, NodeReader
from router.routing.discovery import Discovery, RegistryKind

_EXAMPLE: Final = 'consul: "http://127.0.0.1:8500"'


def read_discovery(reader: NodeReader, node: Node) -> Discovery | None:
    """Exactly one of `consul` and `nomad` must be given."""
    fields = reader.mapping(node, "`discovery`", DISCOVERY.names)
    kinds = [kind for kind in RegistryKind if kind in fields]
    if len(kinds) != 1:
        reader.wrong(node, f"`discovery` must name one registry, consul or nomad; write {_EXAMPLE}")
        return None
    given = fields[kinds[0]].value
    url = reader.text(given, f"`{kinds[0]}`", _EXAMPLE)
    if url is None:
        return None
    url = url.rstrip("/")
    if problem := _wrong_origin(url):
        reader.wrong(given, f"`{kinds[0]}`: {problem}; write {_EXAMPLE}")
    files: dict[str, str | None] = {}
    for name in ("token_file", "ca_file"):
        files[name] = None
        if name in fields:
            path = reader.text(fields[name].value, f"`{name}`", DISCOVERY[name].line)
            if path is not None and not (path.startswith("/") and path.isprintable()):
                reader.wrong(
                    fields[name].value, f"`{name}` is an absolute path; write {DISCOVERY[name].line}"
                )
            files[name] = path
    namespace = reader.setting(fields, DISCOVERY["namespace"], "")
    return Discovery(kinds[0], url, namespace, files["token_file"], files["ca_file"])


def _wrong_origin(url: str) -> str:
    """The reason why a URL is no origin of an HTTP API; "" if it is one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f"{url!r} is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return f"{url!r} must be http:// or https:// with a host and a port"
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return f"{url!r} must end after the port, and name no user"
    return ""
