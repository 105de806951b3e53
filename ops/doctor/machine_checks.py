"""The checks of this machine and of its container engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ops.doctor import (
    engine,
    engine_probe,
    files,
    files_probe,
    machine,
    machine_probe,
    own_ids,
    own_ids_probe,
)
from ops.doctor.finding import Check, Finding, check, fail

MACHINE: Final = "this machine"
ENGINE_ROOM_MIB: Final = 1024
"""Room for images and containers below which pulls and starts begin to fail, MiB."""


def of_machine(slots: int) -> Iterator[Check]:
    """Yield the checks of a machine that may run so many slots."""
    yield check(MACHINE, "kernel", machine_probe.release, machine.kernel)
    yield check(MACHINE, "cgroup", machine_probe.cgroups, machine.cgroups)
    yield check(MACHINE, "epoll watches", machine_probe.watches, machine.epoll_watches)
    yield check(MACHINE, "processes", lambda: machine_probe.processes(slots), machine.processes)
    yield check(MACHINE, "huge pages", machine_probe.huge_pages, machine.huge_pages)
    yield check(MACHINE, "receive buffers", machine_probe.receive_buffer, machine.receive_buffers)
    yield check(MACHINE, "clock", machine_probe.synchronised, machine.clock)


def of_engine(configured: str | None, runtime: str | None, slots: int) -> Iterator[Check]:
    """Yield the checks of the engine that a set finds by its `docker_host`."""
    host = engine_probe.address(configured)
    part = f"engine {host}"
    ask = functools.cache(lambda: engine_probe.engine(host, runtime))

    def version() -> Finding:
        try:
            return engine.answers(ask())
        except engine_probe.EngineAway as error:
            return fail(str(error), "systemctl start docker; a local stack's own engine: make up")

    yield Check(part, "version", version)
    yield check(part, "walls", ask, engine.walls)
    yield check(part, "user namespaces", ask, engine.user_namespaces)
    yield Check(part, "gcompute-runc", lambda: _own_ids(ask(), host, slots))
    yield check(part, "containerd", lambda: engine_probe.maker_limits(ask(), host, slots), engine.containerd)
    yield check(part, "live-restore", ask, engine.live_restore)
    yield check(part, "log driver", ask, engine.log_driver)

    def room() -> files.Room:
        root: Path = engine_probe.data_root(ask())
        return files_probe.room(root, ENGINE_ROOM_MIB)

    yield check(part, "disk", room, files.disk)


def _own_ids(found: engine.Engine, host: str, slots: int) -> Iterable[Finding]:
    """Judge the runtime `gcompute-runc`, where the engine offers it."""
    if not own_ids_probe.offered(found):
        return ()
    return own_ids.own_ids(own_ids_probe.own_ids(found, host, slots))
