"""The checks of a registrar and of the Nomad cluster behind it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from ops.doctor import cluster, files, files_probe, machine, machine_probe, parts, parts_probe, policy
from ops.doctor.cluster_probe import Cluster
from ops.doctor.finding import Check, check
from ops.doctor.part_checks import of_secret
from scheduler.launchers.nomad.settings import RegistrarSettings


def of_registrar(path: Path, settings: RegistrarSettings) -> Iterator[Check]:
    """Yield the checks of a registrar: its file and token, and the cluster as its token sees it."""
    part = f"registrar of set {settings.set_name}"
    yield check(part, "file", lambda: files_probe.mode(path), files.configuration)
    secrets = [each for each in (settings.token_file, settings.key_file) if each is not None]
    for each in secrets:
        yield of_secret(part, Path(each))
    if settings.cert_file is not None:
        certificate = Path(settings.cert_file)
        yield check(
            part,
            "certificate",
            lambda: files_probe.dates(certificate),
            lambda dates: files.certificate(dates, "nomad tls cert create -client, and replace the files"),
        )
    yield check(part, "socket", lambda: parts_probe.registrar(settings.socket), parts.registrar_socket)
    part = f"Nomad at {settings.address}"
    reach = functools.cache(lambda: Cluster(settings))
    yield check(part, "door", lambda: reach().door(), cluster.door)
    yield check(part, "servers", lambda: reach().servers(), cluster.servers)
    yield check(
        part,
        "clock",
        lambda: machine_probe.seconds_ahead(reach().date()),
        lambda ahead_s: machine.clock_against("the server", ahead_s),
    )
    yield check(
        part, "policy", lambda: reach().token(), lambda token: policy.token(token, settings.namespace)
    )
    yield check(
        part,
        "clients",
        lambda: reach().clients(),
        lambda nodes: cluster.clients(nodes, settings.node_pool, settings.runtime),
    )
