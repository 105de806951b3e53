"""Judges of the parts: who listens, what answers, which builds meet. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Any

from ops.doctor.finding import Finding, fail, ok, warn


def is_local(host: str) -> bool:
    """Return True if only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Port(StrEnum):
    """The listener at an address: `OURS`, the part itself; `TAKEN`, another program."""

    OURS = "ours"
    FREE = "free"
    TAKEN = "taken"
    FOREIGN = "foreign"
    """It is no address of this machine."""
    DENIED = "denied"


def port(address: str, found: Port, start: str) -> Finding:
    """`start` is the command that starts the part."""
    match found:
        case Port.OURS:
            return ok(f"listens on {address}")
        case Port.FREE:
            return warn(f"nothing listens on {address}: it does not run", start)
        case Port.TAKEN:
            host_port = address.rpartition(":")[2]
            return fail(
                f"another program listens on {address}",
                f"find it with `ss -ltnp sport = :{host_port}`, and stop it or change `bind`",
            )
        case Port.FOREIGN:
            return fail(f"{address} is no address of this machine", "correct `bind`; `ip address` lists them")
        case Port.DENIED:
            return warn(
                f"this user may not listen on {address}", "run the part as root, or use a port above 1023"
            )


@dataclass(frozen=True)
class Exposure:
    bind_host: str
    authentication: bool


def exposure(facts: Exposure) -> Finding:
    if facts.authentication:
        return ok("authentication is on")
    if is_local(facts.bind_host):
        return ok("authentication is off, and only this machine reaches the set")
    return fail(
        f"authentication is off, and the set listens on {facts.bind_host}: anybody who reaches it runs programs",
        "set `authentication: true` and `accounts_file` (gcompute account init), or bind to 127.0.0.1",
    )


@dataclass(frozen=True)
class Capacity:
    """Settings of a set or executor against its machine."""

    cores: float
    cores_there: int
    memory_mib: int
    memory_there_mib: int


def capacity(facts: Capacity) -> Finding:
    if facts.memory_mib > facts.memory_there_mib:
        return fail(
            f"`memory_mib` is {facts.memory_mib}, and the machine has {facts.memory_there_mib} MiB",
            f"set `memory_mib` to {facts.memory_there_mib * 3 // 4} or less",
        )
    if facts.cores > facts.cores_there:
        return warn(
            f"`cores` is {facts.cores:g}, and the machine has {facts.cores_there}: tasks wait for each other's cores",
            f"set `cores` to {facts.cores_there}",
        )
    return ok(
        f"cores: {facts.cores:g} of {facts.cores_there}; memory: {facts.memory_mib} of {facts.memory_there_mib} MiB"
    )


@dataclass(frozen=True)
class Ready:
    """The answer of a set to /readyz."""

    status: int
    name: str
    build: str
    detail: str

    @classmethod
    def of(cls, status: int, document: Mapping[str, Any]) -> Ready:
        name, build = (str(document.get(key) or "") for key in ("set", "build"))
        return cls(status, name, build, str(document.get("detail") or document.get("title") or ""))


def ready(answer: Ready, name: str) -> Finding:
    """Judge the answer at the address of set `name`."""
    if answer.name and answer.name != name:
        return fail(
            f"set {answer.name} answers at the address of set {name}",
            "correct the address in the router's file",
        )
    if answer.status == 200:
        return ok(f"ready, build {answer.build or 'unknown'}")
    return fail(
        f"answers {answer.status}: {answer.detail or 'it is not ready'}",
        "ops/runbook.md, `a set is not ready`",
    )


def builds(own: str, parts: Mapping[str, str]) -> Iterator[Finding]:
    """Compare the builds of parts by name with each other, and with `own`, this program's."""
    known = {name: build for name, build in parts.items() if build}
    different = sorted(set(known.values()))
    if len(different) > 1:
        said = "; ".join(f"{name}: {build}" for name, build in sorted(known.items()))
        yield warn(
            f"parts run different builds: {said}",
            "go on with the release, or restart the parts that it forgot (ops/runbook.md, `upgrade`)",
        )
    elif different and different[0] != own:
        yield warn(
            f"the parts run {different[0]}, and this program is {own}: its checks may not fit them",
            "run the doctor of the same build",
        )
    elif different:
        yield ok(f"all run {own}")


@dataclass(frozen=True)
class Node:
    """A machine of a set, as the set's metrics tell it."""

    name: str
    up: bool
    build: str


def nodes(found: Sequence[Node]) -> Finding:
    """Judge the machines that run a set's tasks."""
    away = sorted(each.name for each in found if not each.up)
    if len(away) == len(found):
        return fail("no machine takes tasks, so none runs", "ops/runbook.md, `a node is lost`")
    if away:
        return warn(
            f"these machines take no tasks: {', '.join(away)} ({len(found) - len(away)} of {len(found)} do)",
            "ops/runbook.md, `a node is lost`, unless they are drained on purpose",
        )
    return ok(f"all machines take tasks: {len(found)}")


@dataclass(frozen=True)
class Socket:
    """The registrar's unix socket as the set sees it."""

    path: str
    answers: bool
    why: str = ""


def registrar_socket(found: Socket) -> Finding:
    if found.answers:
        return ok(f"the registrar answers at {found.path}")
    return fail(
        f"no registrar at {found.path}: {found.why}; running slots serve, no new one starts",
        "systemctl start gcompute-registrar@NAME, or `gcompute registrar FILE`",
    )


@dataclass(frozen=True)
class Router:
    """The router's own status (`GET /status`)."""

    document: Mapping[str, Any]


def router_status(router: Router) -> Iterator[Finding]:
    told = router.document
    if told.get("config_error"):
        yield fail(
            f"the file has a mistake, and version {told.get('version')} stays in force: {told['config_error']}",
            "gcompute router check FILE",
        )
    if told.get("missing"):
        yield fail(
            f"workers {', '.join(map(str, told['missing']))} do not answer",
            "look at the router's log; restart it",
        )
    sets = told.get("sets") or {}
    serving = 0
    for name, each in sets.items():
        bears = each.get("effective_weight", 0) > 0
        if each.get("health") in ("down", "refused", "ejected"):
            yield (fail if bears or each.get("weight") else warn)(
                f"set {name} is {each['health']}", "ops/runbook.md, `a set is down`"
            )
        elif bears:
            serving += 1
    if not serving:
        yield fail("no set takes new requests", "gcompute router status; gcompute router ready SET")
    else:
        yield ok(f"version {told.get('version')} is in force; new requests go to {serving} of its sets")
