"""Questions to a service registry, and its answers: the instances of a service. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from router.config.reader import parse_url
from router.routing.discovery import Discovery, RegistryKind

MAX_ANSWER_BYTES: Final = 1 << 20
MAX_INSTANCES: Final = 1000
WAIT_S: Final = 30
"""Time, in seconds, for which a registry may hold a question until something changes."""

_INDEX: Final = re.compile(r"[0-9]{1,19}")


class Instance(msgspec.Struct, frozen=True):
    """One registered address. `since` grows with each registration; `passing`: the registry's own checks pass."""

    host: str
    port: int
    since: int = 0
    passing: bool = True


class AnswerBroken(Exception):
    """The registry's answer is not what its API says."""


def question(discovery: Discovery, service: str, index: int) -> str:
    """The address to ask. Above index 0 the registry answers when there is news, after `WAIT_S` at the latest."""
    query = {"index": str(index), "wait": f"{WAIT_S}s"} if index else {}
    name = quote(service, safe="")
    if discovery.kind is RegistryKind.CONSUL:
        path = f"/v1/health/service/{name}"
        if discovery.namespace:
            query["ns"] = discovery.namespace
    else:
        path = f"/v1/service/{name}"
        if discovery.namespace:
            query["namespace"] = discovery.namespace
    return f"{discovery.url}{path}{'?' if query else ''}{urlencode(query)}"


def token_header(discovery: Discovery) -> str:
    return "X-Consul-Token" if discovery.kind is RegistryKind.CONSUL else "X-Nomad-Token"


def next_index(discovery: Discovery, headers: Mapping[str, str], before: int) -> int:
    """The index to ask with next. One that is missing or went back begins again, as both registries' documents say."""
    name = "X-Consul-Index" if discovery.kind is RegistryKind.CONSUL else "X-Nomad-Index"
    text = headers.get(name, "")
    index = int(text) if _INDEX.fullmatch(text) else 0
    return index if index >= before else 0


def instances(discovery: Discovery, content: bytes) -> tuple[Instance, ...]:
    """The instances in an answer. Those without a usable address are left out. Raises `AnswerBroken`."""
    try:
        entries = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise AnswerBroken("the answer is not JSON") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise AnswerBroken("the answer is not a list of services")
    if len(entries) > MAX_INSTANCES:
        raise AnswerBroken(f"the answer has {len(entries)} instances; at most {MAX_INSTANCES} are read")
    read = _consul if discovery.kind is RegistryKind.CONSUL else _nomad
    found = (read(entry) for entry in entries)
    return tuple(instance for instance in found if instance is not None)


def _consul(entry: dict[str, Any]) -> Instance | None:
    service, node, checks = (entry.get(name) for name in ("Service", "Node", "Checks"))
    if not isinstance(service, dict):
        return None
    # An instance without an address of its own is at its node's.
    host = service.get("Address") or (node.get("Address") if isinstance(node, dict) else None)
    passing = all(
        isinstance(check, dict) and check.get("Status") in ("passing", "warning") for check in checks or ()
    )
    return _instance(host, service.get("Port"), service.get("CreateIndex"), passing=passing)


def _nomad(entry: dict[str, Any]) -> Instance | None:
    return _instance(entry.get("Address"), entry.get("Port"), entry.get("CreateIndex"), passing=True)


def _instance(host: object, port: object, since: object, *, passing: bool) -> Instance | None:
    if not isinstance(host, str) or type(port) is not int:
        return None
    try:
        parse_url(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    except ValueError:
        return None
    return Instance(host, port, since if type(since) is int else 0, passing)
