"""The whole examination: this machine, its engines, and the parts whose files the caller names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ops.doctor import parts
from ops.doctor.cluster_checks import of_registrar
from ops.doctor.finding import Check, Finding, check, fail
from ops.doctor.machine_checks import of_engine, of_machine
from ops.doctor.part_checks import of_executor, of_router, of_set
from scheduler.launchers.nomad.settings import RegistrarSettings
from sets import config, executor_config, registrar
from sets.build import build_name
from sets.config import SetConfig
from sets.executor_config import ExecutorConfig
from sets.yaml_file import ConfigError

C = TypeVar("C")


@dataclass(frozen=True)
class Asked:
    """The files to examine, and where the router's operators' address is; None: the router is not asked."""

    sets: tuple[Path, ...] = ()
    routers: tuple[Path, ...] = ()
    executors: tuple[Path, ...] = ()
    registrars: tuple[Path, ...] = ()
    admin_url: str | None = None
    admin_token: str | None = None

    @property
    def names_nothing(self) -> bool:
        return not (self.sets or self.routers or self.executors or self.registrars)


def checks(asked: Asked) -> Iterator[Check]:
    """Yield all checks, in the order in which they are worth reading. Reads the files; asks nobody yet."""
    mistakes: list[Check] = []

    def read(kind: str, paths: tuple[Path, ...], load: Callable[[Path], C]) -> list[tuple[Path, C]]:
        found = []
        for path in paths:
            try:
                found.append((path, load(path)))
            except ConfigError as error:
                mistakes.append(_mistake(f"{kind} {path}", str(error)))
        return found

    sets = read("set", asked.sets, config.load)
    executors = read("executor", asked.executors, executor_config.load)
    registrars: list[tuple[Path, RegistrarSettings]] = read("registrar", asked.registrars, registrar.load)
    slots = _slots([each for _, each in sets], [each for _, each in executors])
    builds: dict[str, str] = {}
    yield from of_machine(slots)
    for host, runtime in _engines(asked, [each for _, each in sets]).items():
        yield from of_engine(host, runtime, slots)
    yield from mistakes
    for path, its_set in sets:
        yield from of_set(path, its_set, builds)
    for path, executor in executors:
        yield from of_executor(path, executor)
    for path, settings in registrars:
        yield from of_registrar(path, settings)
    for path in asked.routers:
        yield from of_router(path, builds, asked.admin_url, asked.admin_token)
    if sets or asked.routers:
        yield check("all parts", "builds", build_name, lambda own: parts.builds(own, builds))


def _mistake(part: str, said: str) -> Check:
    # The reader of YAML quotes the lines around a mistake, which may hold a secret.
    lines = [line.strip() for line in said.splitlines() if not line.startswith("    ")]
    finding: Finding = fail("; ".join(lines), "correct the file; its reference is named in README.md")
    return Check(part, "file", lambda: finding)


def _slots(sets: list[SetConfig], executors: list[ExecutorConfig]) -> int:
    """Return how many slots may exist on this machine at a time; by default as many as a set without a file."""
    here = sum(each.max_slots for each in sets if not each.executors)
    here += sum(share.max_slots for each in executors for share in each.sets.values())
    return here or 32


def _engines(asked: Asked, sets: list[SetConfig]) -> dict[str | None, str | None]:
    """Return the engines that run slots or resolve images, each with the runtime that is asked of it.

    A machine of which no file is named, or with an executor, has the usual one.
    """
    users = [each for each in sets if each.launcher == "docker" or not each.registries]
    found = {each.docker_host: each.runtime for each in users}
    return found or ({None: None} if asked.executors or asked.names_nothing else {})
