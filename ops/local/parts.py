"""The processes of the local stack: what each is started with, and how it is found again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.setup import processes
from ops.setup.engine import ROOT
from ops.setup.errors import StackFailed

HOST: Final = "127.0.0.1"
SET_NAMES: Final = ("a", "b")


@dataclass(frozen=True)
class Ports:
    """Where the parts listen, on 127.0.0.1."""

    router: int = 8080
    admin: int = 8081
    set_a: int = 8101
    set_b: int = 8102

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Ports:
        """From GC_ROUTER_PORT, GC_ADMIN_PORT, GC_SET_A_PORT, GC_SET_B_PORT. Raises StackFailed naming what is wrong."""
        found: dict[str, int] = {}
        for field, default in (("router", 8080), ("admin", 8081), ("set_a", 8101), ("set_b", 8102)):
            variable = variable_of(field)
            text = environment.get(variable) or str(default)
            if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
                raise StackFailed(f"{variable}={text!r} is no port: a number from 1 to 65535")
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
    """The environment variable of a port: ``set_a`` is GC_SET_A_PORT."""
    return f"GC_{field.upper()}_PORT"


@dataclass(frozen=True)
class Part:
    """One process of the stack in `root`.

    `ports` pairs each port with the variable that changes it; `ready_url` answers 200 when the part is ready.
    """

    root: Path
    name: str
    command: tuple[str, ...]
    ports: tuple[tuple[int, str], ...]
    ready_url: str

    @property
    def pid_file(self) -> Path:
        return self.root / f"var/run/{self.name}.pid"

    @property
    def log(self) -> Path:
        return self.root / f"var/log/{self.name}.log"

    @property
    def mark(self) -> str:
        """What its command line, and that of the workers that it forks, contains whatever the ports are."""
        return " ".join(self.command[:3]) + " "

    @property
    def pid(self) -> int:
        """Of the process that was started, 0 where it doesn't live."""
        return processes.running(self.pid_file, self.mark)

    def runs_as_wanted(self, docker_host: str) -> bool:
        """Whether it runs with the ports, and on the engine, that are wanted now."""
        pid = self.pid
        if not pid or " ".join(self.command) not in processes.command_line(pid):
            return False
        return f"DOCKER_HOST={docker_host}".encode() in _environment(pid)

    def all_pids(self) -> list[int]:
        """Its own and those of the workers that it forked, which bear the same command line."""
        return processes.marked(self.mark)


def parts_of(ports: Ports, root: Path = ROOT) -> list[Part]:
    """The sets, then the router, which looks for them."""
    gcompute = str(ROOT / ".venv/bin/gcompute")
    # Whole paths, so that two checkouts on one machine tell their processes apart.
    folder = root / "ops/local"
    sets = []
    for name, port in zip(SET_NAMES, (ports.set_a, ports.set_b), strict=True):
        command = (gcompute, "set", f"{folder}/set-{name}.yaml", "--bind", f"{HOST}:{port}")
        variable = variable_of(f"set_{name}")
        sets.append(Part(root, f"set-{name}", command, ((port, variable),), f"http://{HOST}:{port}/readyz"))
    command = (
        *(gcompute, "router", f"{folder}/router.yaml", "--name", "local"),
        *("--bind", f"{HOST}:{ports.router}", "--admin-bind", f"{HOST}:{ports.admin}"),
        *("--state-dir", "var/router"),
        # Operators edit the file itself, so addresses that differ from it are told beside it, not written into a copy.
        *(() if ports.set_a == Ports.set_a else ("--set-url", f"a=http://{HOST}:{ports.set_a}")),
        *(() if ports.set_b == Ports.set_b else ("--set-url", f"b=http://{HOST}:{ports.set_b}")),
    )
    listening = ((ports.router, variable_of("router")), (ports.admin, variable_of("admin")))
    return [*sets, Part(root, "router", command, listening, f"http://{HOST}:{ports.admin}/readyz")]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def environment_for(docker_host: str) -> dict[str, str]:
    """What the parts see: this environment, the engine, and output that reaches the log at once."""
    return {**os.environ, "DOCKER_HOST": docker_host, "PYTHONUNBUFFERED": "1"}
