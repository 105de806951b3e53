"""The checks of sets, executors and routers, by their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ops.doctor import files, files_probe, machine, machine_probe, parts, parts_probe
from ops.doctor.finding import Check, Finding, Level, check, fail, ok, warn
from router.asking.credentials import credential_doubts
from router.config import reader
from router.routing.weights import SetState
from sets import dresser
from sets.config import SetConfig, address_of, machine_memory_mib
from sets.executor.link.names import CA_FILE, IDENTITY_FILE
from sets.executor_config import ExecutorConfig
from sets.guest import unusable

EXECUTOR_ROOM_MIB: Final = 64
"""An executor's folder holds sockets, and contents of images for a moment."""


def of_set(path: Path, config: SetConfig, builds: dict[str, str]) -> Iterator[Check]:
    """Yield the checks of a set. What it tells of its build goes into `builds`."""
    part = f"set {config.name}"
    host, number = address_of(config.bind, "bind")
    yield check(part, "file", lambda: files_probe.mode(path), files.configuration)
    exposed = parts.Exposure(host, config.authentication)
    yield check(part, "authentication", lambda: exposed, parts.exposure)
    limits = config.limits()
    yield _capacity(part, "capacity", limits.cpu_percent, limits.memory_mib)
    yield of_guest(part)
    yield check(part, "folder", lambda: files_probe.mode(config.directory), files.private_folder)
    yield check(
        part, "disk", lambda: files_probe.room(config.directory, config.min_free_disk_mib), files.disk
    )
    secrets = [each.password_file for each in config.registries]
    secrets += [config.registration.token_file] if config.registration else []
    yield from _secrets(part, secrets)
    if config.launcher == "nomad":
        socket = str(config.registrar)
        yield check(part, "registrar", lambda: parts_probe.registrar(socket), parts.registrar_socket)
        if not config.executors:
            yield of_dresser(part)
            yield of_node(part, Path(config.node_folder))
    if config.link_certificates is not None:
        renew = f"gcompute cert set {config.name} AUTHORITY --out {config.link_certificates}"
        yield from of_certificates(part, Path(config.link_certificates), renew)
    yield from _executors_of(part, config)
    yield check(
        part,
        "address",
        lambda: parts_probe.http_port(host, number, {"x-set": config.name}),
        lambda found: parts.port(config.bind, found, f"systemctl start gcompute-set@{config.name}"),
    )
    if config.executors:
        yield _nodes(part, parts_probe.url_of(host, number), builds)
    yield _answering(part, "ready", config.name, parts_probe.url_of(host, number), builds)


def _capacity(part: str, name: str, cpu_percent: int, memory_mib: int) -> Check:
    def there() -> parts.Capacity:
        return parts.Capacity(cpu_percent / 100, os.cpu_count() or 1, memory_mib, machine_memory_mib())

    return check(part, name, there, parts.capacity)


def _executors_of(part: str, config: SetConfig) -> Iterator[Check]:
    for node, remote in config.executors.items():
        host, number = address_of(remote.address, node)

        def meet(node: str = node, host: str = host, number: int = number) -> Finding:
            wrong = parts_probe.executor(Path(config.link_certificates or ""), node, host, number)
            if not wrong:
                return ok(f"executor {node} answers at {host}:{number}, and its certificate is right")
            return fail(
                f"executor {node} at {host}:{number}: {wrong}",
                "run `gcompute doctor --executor FILE` on its machine (ops/runbook.md, `a node is lost`)",
            )

        yield Check(part, f"executor {node}", meet)


def _nodes(part: str, url: str, builds: dict[str, str]) -> Check:
    """Return the check of a set's machines. What they tell of their builds goes into `builds`."""

    def look() -> Finding:
        found = parts_probe.nodes(url, os.environ.get("GC_OPERATOR_TOKEN"))
        builds.update({f"executor {each.name}": each.build for each in found})
        return parts.nodes(found)

    return Check(part, "machines", look)


def _answering(part: str, check_name: str, name: str, url: str, builds: dict[str, str]) -> Check:
    """Return the check of what set `name` answers at `url`: whether it is ready, and its clock."""

    def ready() -> list[Finding]:
        answer = parts_probe.readiness(url)
        found = parts_probe.ready_of(answer)
        builds[f"set {found.name or name}"] = found.build
        ahead_s = machine_probe.seconds_ahead(answer.headers.get("date"))
        clock = machine.clock_against(f"set {name}", ahead_s)
        return [parts.ready(found, name), *([] if clock.level is Level.OK else [clock])]

    return Check(part, check_name, ready)


def of_guest(part: str) -> Check:
    """Return the check of the program that is process 1 of every slot."""

    def guest() -> Finding:
        wrong = unusable()
        return (
            fail(wrong, "python setup.py build_guest, or install the package again") if wrong else ok("built")
        )

    return Check(part, "guest", guest)


def of_dresser(part: str) -> Check:
    """Return the check of the program that dresses the slots of a cluster on this node."""

    def look() -> Finding:
        wrong = dresser.unusable()
        return (
            fail(wrong, "python setup.py build_dresser, or install the package again")
            if wrong
            else ok("built")
        )

    return Check(part, "dresser", look)


def of_executor(path: Path, config: ExecutorConfig) -> Iterator[Check]:
    """Yield the checks of the executor of this machine."""
    part = f"executor {config.node}"
    host, number = address_of(config.bind, "bind")
    yield check(part, "file", lambda: files_probe.mode(path), files.configuration)
    yield check(part, "folder", lambda: files_probe.mode(config.directory), files.private_folder)
    yield check(part, "disk", lambda: files_probe.room(config.directory, EXECUTOR_ROOM_MIB), files.disk)
    for name, facts in config.shares(frozenset()).items():
        yield _capacity(part, f"capacity for {name}", facts.cpu_percent, facts.memory_mib)
    renew = f"gcompute cert executor {config.node} AUTHORITY --out {config.certificates}"
    yield from of_certificates(part, Path(config.certificates), renew)
    if config.run_folder is not None:
        yield of_dresser(part)
        yield of_node(part, Path(config.run_folder).parent)
    yield check(
        part,
        "address",
        lambda: parts_probe.tls_port(host, number),
        lambda found: parts.port(config.bind, found, "systemctl start gcompute-executor"),
    )


def of_node(part: str, folder: Path) -> Check:
    """Return the check of the folder that `python -m ops.nomad layout` made."""
    return check(
        part,
        "node folder",
        lambda: files_probe.node_entries(folder),
        lambda entries: files.node_folder(entries, str(folder)),
    )


def of_certificates(part: str, folder: Path, renew: str) -> Iterator[Check]:
    """Yield the checks of a folder that `gcompute cert` wrote."""
    yield check(part, "key", lambda: files_probe.mode(folder / IDENTITY_FILE), files.secret)
    yield check(
        part,
        "certificate",
        lambda: files_probe.dates(folder / IDENTITY_FILE),
        lambda dates: files.certificate(dates, renew),
    )
    yield check(
        part,
        "authority",
        lambda: files_probe.dates(folder / CA_FILE),
        lambda dates: files.certificate(dates, "gcompute cert rotate AUTHORITY (ops/runbook.md)"),
    )


def _secrets(part: str, paths: list[str | None]) -> Iterator[Check]:
    for path in sorted({each for each in paths if each is not None}):
        yield of_secret(part, Path(path))


def of_secret(part: str, path: Path) -> Check:
    """Return the check of a file that holds a secret; the secret is not read."""
    return check(part, "secret", lambda: files_probe.mode(path), files.secret)


def of_router(
    path: Path, builds: dict[str, str], admin_url: str | None, admin_token: str | None
) -> Iterator[Check]:
    """Yield the checks of a router: its file, the sets in it, and what it says of itself at `admin_url`."""
    part = f"router {path}"
    yield check(part, "file mode", lambda: files_probe.mode(path), files.configuration)
    try:
        loaded = reader.load(path.read_bytes())
    except reader.ConfigError as error:
        first = error.mistakes[0]
        finding = fail(f"line {first.line}: {first.message}", f"gcompute router check {path}")
        yield Check(part, "file", lambda: finding)
        return
    except OSError as error:
        unread = fail(f"{path}: {error.strerror}", "give this user the right to read it")
        yield Check(part, "file", lambda: unread)
        return
    table = loaded.table

    def doubts() -> list[Finding]:
        found = [*loaded.warnings, *credential_doubts(table.sets.values())]
        edit = f"edit {path}, then gcompute router check {path}"
        return [warn(each, edit) for each in found] or [ok(f"version {table.version} has no mistake")]

    yield Check(part, "file", doubts)
    files_of_tokens = [each.operator_token_file for each in table.sets.values()]
    files_of_tokens += [table.discovery.token_file] if table.discovery else []
    yield from _secrets(part, files_of_tokens)
    if admin_url is not None:
        url = admin_url
        yield check(part, "status", lambda: parts_probe.router(url, admin_token), parts.router_status)
    for name, entry in table.sets.items():
        if entry.url and entry.state is not SetState.MAINT:
            yield _answering(part, f"set {name}", name, entry.url, builds)
