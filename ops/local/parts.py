"""The processes of the local stack: how each is started, and how it is found again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.local import sources
from ops.setup import processes, runtimes
from ops.setup.engine import ROOT
from ops.setup.errors import StackFailed

HOST: Final = "127.0.0.1"
SET_NAMES: Final = ("a", "b")


@dataclass(frozen=True)
class Ports:
    """The ports of the parts, on 127.0.0.1."""

    router: int = 8080
    admin: int = 8081
    set_a: int = 8101
    set_b: int = 8102

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ports:
        """Read GC_ROUTER_PORT, GC_ADMIN_PORT, GC_SET_A_PORT, GC_SET_B_PORT. Raises StackFailed with the mistake."""
        found: dict[str, int] = {}
        for field, default in (("router", 8080), ("admin", 8081), ("set_a", 8101), ("set_b", 8102)):
            variable = variable_of(field)
            text = environment.get(variable) or str(default)
            if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
                raise StackFailed(f"{variable}={text!r} is not a port: use a number from 1 to 65535")
            if int(text) in found.values():
                other = next(variable_of(name) for name, port in found.items() if port == int(text))
                raise StackFailed(
                    f"{variable} and {other} are both {text}: each part needs a port of its own"
                )
            found[field] = int(text)
        return cls(**found)

    @property
    def router_url(self) -> str:
        return f"http://{HOST}:{self.router}"


def variable_of(field: str) -> str:
    """Return the environment variable of a port: GC_SET_A_PORT for ``set_a``."""
    return f"GC_{field.upper()}_PORT"


@dataclass(frozen=True)
class Part:
    """A process of the stack in `root`.

    `ports` pairs each port with the variable that changes it; `ready_url` answers 200 when the part is ready;
    `sources` is the digest of the code that it would be started with now.
    """

    root: Path
    name: str
    command: tuple[str, ...]
    ports: tuple[tuple[int, str], ...]
    ready_url: str
    sources: str = ""

    @property
    def pid_file(self) -> Path:
        return self.root / f"var/run/{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.root / f"var/log/{self.name}.log"

    @property
    def mark(self) -> str:
        """The text that its command line and those of its workers contain, whatever the ports are."""
        return " ".join(self.command[:3]) + " "

    @property
    def pid(self) -> int:
        """The pid of the started process, 0 if it is not alive."""
        return processes.running(self.pid_file, self.mark)

    def runs_as_wanted(self, docker_host: str) -> bool:
        """True if it runs with the wanted ports, runtime and engine."""
        pid = self.pid
        if not pid or not processes.command_line(pid).rstrip().endswith(" ".join(self.command)):
            return False
        return f"DOCKER_HOST={docker_host}".encode() in _environment(pid)

    def is_outdated(self) -> bool:
        """True if it runs, with other code than the checkout has now."""
        pid = self.pid
        return bool(pid) and f"{sources.VARIABLE}={self.sources}".encode() not in _environment(pid)

    def environment(self, docker_host: str) -> dict[str, str]:
        """Return the environment to start it with: ours, the engine, its code, and unbuffered output for the log."""
        own = {"DOCKER_HOST": docker_host, "PYTHONUNBUFFERED": "1", sources.VARIABLE: self.sources}
        return {**os.environ, **own}

    def all_pids(self) -> list[int]:
        """Its pid and those of its workers, which have the same command line."""
        return processes.marked(self.mark)


def parts_of(ports: Ports, root: Path = ROOT, code: Path = ROOT) -> list[Part]:
    """Return the sets, then the router, which checks their health. `code`: the checkout with the wanted sources."""
    set_sources, router_sources = (
        sources.digest(code, sources.OF_SETS),
        sources.digest(code, sources.OF_ROUTER),
    )
    gcompute = str(ROOT / ".venv/bin/gcompute")
    # Absolute paths distinguish the processes of two checkouts on one machine.
    folder = root / "ops/local"
    sets = []
    for name, port in zip(SET_NAMES, (ports.set_a, ports.set_b), strict=True):
        command: tuple[str, ...] = (gcompute, "set", f"{folder}/set-{name}.yaml", "--bind", f"{HOST}:{port}")
        if (runtime := runtimes.asked()) is not None:
            command = (*command, "--runtime", runtime)
        variable = variable_of(f"set_{name}")
        ready_url = f"http://{HOST}:{port}/readyz"
        sets.append(Part(root, f"set-{name}", command, ((port, variable),), ready_url, set_sources))
    command = (
        *(gcompute, "router", f"{folder}/router.yaml", "--name", "local"),
        *("--bind", f"{HOST}:{ports.router}", "--admin-bind", f"{HOST}:{ports.admin}"),
        *("--state-dir", "var/router"),
        # Operators edit the file itself, so different addresses go into options, not into a copy of the file.
        *(() if ports.set_a == Ports.set_a else ("--set-url", f"a=http://{HOST}:{ports.set_a}")),
        *(() if ports.set_b == Ports.set_b else ("--set-url", f"b=http://{HOST}:{ports.set_b}")),
    )
    listening = ((ports.router, variable_of("router")), (ports.admin, variable_of("admin")))
    ready_url = f"http://{HOST}:{ports.admin}/readyz"
    return [*sets, Part(root, "router", command, listening, ready_url, router_sources)]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
