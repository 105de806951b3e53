"""Asks a container engine about itself. Each function may raise `OSError` or `CannotTell`."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ops.doctor.asking import TIMEOUT_S, NoAnswer, ask
from ops.doctor.engine import Engine, MakerLimits
from ops.doctor.finding import CannotTell

PROC: Final = Path("/proc")
USUAL: Final = "unix:///var/run/docker.sock"
_CONTAINERD: Final = "/run/containerd/containerd.sock"
_LIMIT: Final = re.compile(r"^(Max [a-z ]+?) {2,}\S+ +(\d+|unlimited) ", re.MULTILINE)
"""Name and hard limit in /proc/PID/limits."""


class EngineAway(CannotTell):
    """The engine does not answer."""


def address(configured: str | None) -> str:
    """Return the engine's address as a set finds it."""
    return configured or os.environ.get("DOCKER_HOST") or USUAL


def engine(host: str, runtime: str | None) -> Engine:
    """Ask the engine. Raises `EngineAway`, `CannotTell`."""
    if host.startswith("ssh://"):
        raise CannotTell("the engine is reached by ssh; run the doctor on its machine")
    try:
        answer = ask(host, "/info")
    except NoAnswer as error:
        raise EngineAway(str(error)) from error
    if answer.status != 200:
        raise EngineAway(f"{host} answers {answer.status} to GET /info")
    return Engine(answer.object(), runtime)


def data_root(found: Engine) -> Path:
    """Return the folder of images and containers. Raises `CannotTell` where it is another machine's."""
    root = found.info.get("DockerRootDir")
    if not root or not Path(root).is_dir():
        raise CannotTell(f"{root or 'its data folder'} is not a folder of this machine")
    return Path(root)


def maker_limits(found: Engine, host: str, slots: int, proc: Path = PROC) -> MakerLimits:
    """Read the limits of containerd, whose children all containers of the engine at `host` are."""
    path = _containerd_socket(found.info, host, proc)
    pid = _listener(path)
    if (proc / str(pid) / "comm").read_text().strip() != "containerd":
        raise CannotTell(f"process {pid}, which listens on {path}, is not containerd")
    limits = dict(_LIMIT.findall((proc / str(pid) / "limits").read_text()))
    return MakerLimits(
        _number(limits.get("Max pending signals")), _number(limits.get("Max open files")), slots
    )


def _containerd_socket(info: Mapping[str, Any], host: str, proc: Path) -> str:
    """Return the socket of the containerd behind an engine."""
    if not host.startswith("unix://"):
        raise CannotTell("the engine is on another machine; run the doctor there")
    # Engines before 27 do not tell it.
    if told := (info.get("Containerd") or {}).get("Address"):
        return str(told)
    arguments = (proc / str(_listener(host.removeprefix("unix://"))) / "cmdline").read_text().split("\0")
    if named := option(arguments, "--containerd"):
        return named
    own = Path(option(arguments, "--exec-root") or "/run/docker", "containerd/containerd.sock")
    return str(own) if own.exists() else _CONTAINERD


def option(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of an option on a command line, written with `=` or as the next argument."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == name:
            return following
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _listener(path: str) -> int:
    """Return the process that made a unix socket."""
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(TIMEOUT_S)
            door.connect(path)
            pid, _, _ = struct.unpack("3i", door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError as error:
        raise CannotTell(f"{path}: {error.strerror or error}") from error
    return int(pid)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
