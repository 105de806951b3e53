"""Finds the container engine: one that already answers, else a private one under ``var/docker/``.

    python -m ops.setup.engine up       finds or starts an engine; prints its DOCKER_HOST, with progress on stderr
    python -m ops.setup.engine down     stops only the private engine
    python -m ops.setup.engine status   prints the state of the engines

Order: DOCKER_HOST, if set; a running private engine; the usual socket, if it answers; as root on Debian or Ubuntu, a
new private engine, for which docker.io is installed. The private engine has no bridge and no iptables rules, so it
does not touch the machine's network. It has its own socket, separate from other engines.

GC_ENGINE_USERNS=1 selects a second private engine, under ``var/docker-userns/``, whose containers run in a user
namespace (Docker's `userns-remap`): root in a slot has no rights on the machine. It refuses
`docker build --network=host`, so the sample images are built on the plain private engine and copied.

Both offer the OCI runtimes that runtimes.py finds; GC_RUNTIME=gcompute-runc also prepares the host ids of that one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ops.setup import runtimes, userns
from ops.setup.engine_layout import Layout
from ops.setup.errors import NoEngine, OpsError, described
from ops.setup.private_engine import ROOT, PrivateEngine, ping, say

__all__ = ["ROOT", "Layout", "PrivateEngine", "find", "ping", "running", "up"]

USUAL_SOCKET: Final = Path("/var/run/docker.sock")


def find() -> str | None:
    """Return the DOCKER_HOST of an engine that answers now, else None. Installs and starts nothing.

    Raises NoEngine if the engine in DOCKER_HOST does not answer: the caller did not ask for another one.
    """
    named, ours = os.environ.get("DOCKER_HOST"), _own_engines()
    if named and not ours:
        _install_client()
        if problem := ping(named):
            raise NoEngine(
                f"DOCKER_HOST={named} does not answer: {problem}\nStart that engine, or unset DOCKER_HOST."
            )
        return named
    for private in ours:
        if private.pid and not private.problem():
            return private.layout.host
    if USUAL_SOCKET.exists() and not named and not userns.asked():
        host = f"unix://{USUAL_SOCKET}"
        if not ping(host):
            return host
    return None


def running() -> list[PrivateEngine]:
    """Return this checkout's private engines that run."""
    return [each for each in (PrivateEngine(userns=with_userns) for with_userns in (False, True)) if each.pid]


def up() -> str:
    """Find an engine or start the private one; return its DOCKER_HOST. Raises NoEngine, EngineFailed."""
    ours = _own_engines()
    if os.geteuid() == 0:
        runtimes.prepare()
        for private in ours:
            if private.pid:
                private.start()  # waits for an engine that starts, or whose containerd has just died
                return private.layout.host
    if host := find():
        return host
    if os.geteuid() != 0:
        raise NoEngine(_advice())
    if shutil.which("dockerd") is None:
        _install("a container engine", "docker.io")
    if _apparmor_is_on() and shutil.which("apparmor_parser") is None:
        _install("AppArmor's parser, which the engine needs on this kernel", "apparmor")
    _install_client()
    private = ours[0]
    private.start()
    return private.layout.host


def _own_engines() -> list[PrivateEngine]:
    """Return this checkout's usable engines, the one to start first; none if DOCKER_HOST names another.

    DOCKER_HOST may be the address that an earlier `up` printed, of an engine that has been stopped since.
    """
    engines = [PrivateEngine(userns=with_userns) for with_userns in (False, True)]
    if named := os.environ.get("DOCKER_HOST"):
        return [engine for engine in engines if named in (engine.layout.host, f"unix://{engine.layout.link}")]
    return [engines[1]] if userns.asked() else engines


def _install(why: str, *packages: str) -> None:
    done = subprocess.run(["bash", str(ROOT / "ops/setup/packages.sh"), why, *packages], cwd=ROOT)
    if done.returncode != 0:
        raise NoEngine(_advice())


def _apparmor_is_on() -> bool:
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def _install_client() -> None:
    """Install the docker command: part of docker.io on Debian 12 and Ubuntu 24.04, docker-cli on later ones."""
    if shutil.which("docker") is None:
        _install("the docker command", "docker.io")
    if shutil.which("docker") is None:
        _install("the docker command", "docker-cli")


def _advice() -> str:
    lines = ["No container engine answers, and none could be started here. Do one of these:"]
    if USUAL_SOCKET.exists():
        lines.append(f"- {USUAL_SOCKET} exists, but: {ping(f'unix://{USUAL_SOCKET}')}")
        lines.append('  if permissions are the reason: sudo usermod -aG docker "$USER", then log in again')
    lines.append(
        "- install and start Docker: sudo apt-get install -y docker.io && sudo systemctl start docker"
    )
    lines.append("- use an engine that runs elsewhere: export DOCKER_HOST=unix:///path/to/docker.sock")
    lines.append("- run make as root on Debian or Ubuntu: it installs docker.io and starts a private engine")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run the command line; see the module's docstring."""
    try:
        match arguments:
            case ["up"]:
                print(up())
            case ["down"]:
                for with_userns in (False, True):
                    PrivateEngine(userns=with_userns).stop()
            case ["status"]:
                print(find() or "none")
            case _:
                print(__doc__, file=sys.stderr)
                return 64
    except OpsError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(described(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
