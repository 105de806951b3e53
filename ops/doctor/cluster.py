"""Judges of a Nomad cluster: its servers, its door, and the clients that run slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ops.doctor.finding import Finding, fail, ok, warn
from ops.doctor.parts import is_local

VOLUMES: Final = ("gc-bin", "gc-run", "gc-hide", "gc-dev", "gc-hosts")
"""Host volumes of jobspecs/slot.nomad.hcl."""
FREE_BYTES: Final = 2 << 30
_NAMED: Final = 5
"""Most nodes that a message names."""
_CLIENT: Final = "as in ops/nomad/client.hcl, then restart the agent of each"


@dataclass(frozen=True)
class Door:
    """How a registrar reaches the cluster. `acl`: None where no answer told."""

    host: str
    tls: bool
    has_token: bool
    acl: bool


def door(facts: Door) -> Iterator[Finding]:
    if not facts.acl:
        yield fail(
            "ACLs are off: anybody who reaches the cluster's API is root on every client",
            "`acl { enabled = true }` on every server and client, then nomad acl bootstrap (ops/nomad/README.md)",
        )
    elif not facts.has_token:
        yield fail("ACLs are on, and the registrar has no token", "set `token_file` in the registrar's file")
    if facts.tls:
        yield ok("the API is reached by https")
    elif is_local(facts.host):
        yield warn(
            "the API is reached by http on this machine: another user here could take its port",
            "`tls { http = true }` in Nomad's files, and https in the registrar's `address`",
        )
    else:
        yield fail(
            f"the API is reached by http at {facts.host}: the network can read the token, which is root on all clients",
            "`tls { http = true }` in Nomad's files, and https in the registrar's `address`",
        )


@dataclass(frozen=True)
class Servers:
    leader: str
    peers: Sequence[str]


def servers(facts: Servers) -> Finding:
    count = len(facts.peers)
    if not facts.leader:
        return fail(
            "the servers have no leader: no slot starts; running slots serve",
            "start the servers that are away (ops/runbook.md, `Nomad is away`)",
        )
    if count == 1:
        return warn("there is one server: its loss stops all starts of slots", "run three or five servers")
    if count % 2 == 0:
        return warn(
            f"there are {count} servers: an even number survives no more losses than one less",
            "run an odd number",
        )
    return ok(f"{count} servers, and a leader")


@dataclass(frozen=True)
class Client:
    """A client node, as the API shows it (`GET /v1/node/ID`)."""

    node: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.node.get("Name") or self.node.get("ID") or "?")

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.node.get("Attributes") or {}

    @property
    def ready(self) -> bool:
        return self.node.get("Status") == "ready"

    def number(self, name: str) -> float | None:
        try:
            return float(self.attributes[name])
        except (KeyError, ValueError, TypeError):
            return None


def clients(nodes: Sequence[Client], pool: str, runtime: str = "") -> Iterator[Finding]:
    """Judge the clients in the set's node pool together: each finding names the nodes that it is about.

    `runtime` is the OCI runtime that the registrar asks for; empty for the engine's own.
    """
    if not nodes:
        yield fail(
            f"no client is in node pool {pool}",
            f'`client {{ node_pool = "{pool}" }}` on the clients that run slots',
        )
        return
    away = [each for each in nodes if not each.ready]
    if away:
        yield fail(
            f"{_names(away)}: the status is {', '.join(sorted({str(each.node.get('Status')) for each in away}))}",
            "ops/runbook.md, `a node is lost`",
        )
    ready = [each for each in nodes if each.ready]
    barred = [each for each in ready if each.node.get("SchedulingEligibility") != "eligible"]
    if barred:
        yield warn(
            f"{_names(barred)}: drained or not eligible, no slot starts there",
            "nomad node eligibility -enable NODE, once the work on it is done",
        )
    wrong = False
    if lacking := [each for each in ready if runtime and runtime not in _runtimes(each)]:
        wrong = True
        yield fail(
            f"{_names(lacking)}: the engine has no runtime {runtime}, which the registrar asks for",
            f"add it to `runtimes` of /etc/docker/daemon.json and to `allow_runtimes` {_CLIENT}",
        )
    for test, text, mend in _TESTS:
        if found := [each for each in ready if test(each)]:
            wrong = True
            yield fail(f"{_names(found)}: {text}", mend)
    for test, text, mend in _DOUBTS:
        if found := [each for each in ready if test(each)]:
            wrong = True
            yield warn(f"{_names(found)}: {text}", mend)
    versions = sorted({str(each.attributes.get("nomad.version")) for each in nodes})
    if len(versions) > 1:
        yield warn(f"clients run Nomad {', '.join(versions)}", "finish the upgrade of the agents")
    if ready and not wrong:
        yield ok(f"{len(ready)} of {len(nodes)} clients are ready and laid out for slots")


def _lacks_volumes(client: Client) -> bool:
    return bool(set(VOLUMES) - set(client.node.get("HostVolumes") or {}))


def _docker(client: Client) -> Mapping[str, Any]:
    driver: Mapping[str, Any] = (client.node.get("Drivers") or {}).get("docker") or {}
    return driver


def _runtimes(client: Client) -> list[str]:
    return str(client.attributes.get("driver.docker.runtimes") or "").split(",")


def _counts_otherwise(client: Client) -> bool:
    cores, total = client.number("cpu.numcores"), client.number("cpu.totalcompute")
    return cores is not None and total is not None and total != 1000 * cores


def _is_true(client: Client, name: str) -> bool:
    return str(client.attributes.get(name)).lower() in ("true", "1")


_TESTS: Final = (
    (
        lambda each: not _docker(each).get("Healthy"),
        "the docker driver is not healthy",
        "systemctl status docker on the node; nomad node status -verbose NODE says why",
    ),
    (
        _lacks_volumes,
        "a host volume of the platform is missing: no slot starts there",
        "python -m ops.nomad layout on the node, then the host_volume blocks " + _CLIENT,
    ),
    (
        lambda each: _is_true(each, "driver.docker.privileged.enabled"),
        "the docker driver allows privileged containers",
        "`allow_privileged = false` " + _CLIENT,
    ),
    (
        lambda each: _is_true(each, "driver.docker.volumes.enabled"),
        "the docker driver lets jobs mount any folder of the host",
        "`volumes { enabled = false }` " + _CLIENT,
    ),
    (
        _counts_otherwise,
        "cpu_total_compute is not 1000 for each core: slots get more or less CPU than tasks ask for",
        "`cpu_total_compute = 1000 × cores` " + _CLIENT,
    ),
)
_DOUBTS: Final = (
    (
        lambda each: (each.number("unique.storage.bytesfree") or FREE_BYTES) < FREE_BYTES,
        "less than 2 GiB of disk are free",
        "ops/runbook.md, `full disk`",
    ),
    (
        lambda each: not each.attributes.get("driver.docker.pids.limit"),
        "the docker driver has no `pids_limit` of its own",
        "`pids_limit = 4096` " + _CLIENT,
    ),
)


def _names(nodes: Iterable[Client]) -> str:
    names = sorted(each.name for each in nodes)
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
