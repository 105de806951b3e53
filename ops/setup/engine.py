"""The container engine: the one that answers already, else a private one under ``var/docker/``.

    python -m ops.setup.engine up       finds or starts an engine; prints its DOCKER_HOST, progress on stderr
    python -m ops.setup.engine down     stops the private one, and nothing else
    python -m ops.setup.engine status   prints what there is

Order: DOCKER_HOST where set; a private engine that runs; the usual socket where one answers; as root on Debian or
Ubuntu, a private one, for which docker.io is installed. The private engine has no bridge and no iptables, so it needs
and changes nothing of the machine's network, and its own socket, so it meets no other engine.

With GC_ENGINE_USERNS=1 it is another private one, under ``var/docker-userns/``, whose containers run in a user
namespace (Docker's `userns-remap`): root in a slot is nobody on the machine. That engine refuses
`docker build --network=host`, so the sample images are built on the plain one and copied.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ops.setup import userns
from ops.setup.errors import NoEngine, OpsError, described
from ops.setup.private_engine import ROOT, Layout, PrivateEngine, ping, say

__all__ = ["ROOT", "Layout", "PrivateEngine", "find", "ping", "up"]

USUAL_SOCKET: Final = Path("/var/run/docker.sock")


def find() -> str | None:
    """The DOCKER_HOST of an engine that answers now; None where there is none, and nothing is installed or started.

    Raises NoEngine where DOCKER_HOST names one that doesn't answer: another one would not be what was asked for.
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


def up() -> str:
    """Finds an engine or starts the private one; gives its DOCKER_HOST. Raises NoEngine, EngineFailed."""
    ours = _own_engines()
    if os.geteuid() == 0:
        for private in ours:
            if private.pid:
                private.start()  # waits for one that starts, or whose containerd has just died
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
    """This checkout's engines that may be used, the one to start first; none where DOCKER_HOST names another.

    DOCKER_HOST may be the address that an earlier `up` printed, of an engine that was stopped or killed since.
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
    """The docker command comes with docker.io on Debian 12 and Ubuntu 24.04, as docker-cli on later ones."""
    if shutil.which("docker") is None:
        _install("the docker command", "docker.io")
    if shutil.which("docker") is None:
        _install("the docker command", "docker-cli")


def _advice() -> str:
    lines = ["No container engine answers, and none could be started here. One of these helps:"]
    if USUAL_SOCKET.exists():
        lines.append(f"- {USUAL_SOCKET} exists, but: {ping(f'unix://{USUAL_SOCKET}')}")
        lines.append('  if that is a matter of rights: sudo usermod -aG docker "$USER", then log in anew')
    lines.append(
        "- install and start Docker: sudo apt-get install -y docker.io && sudo systemctl start docker"
    )
    lines.append("- name an engine that runs elsewhere: export DOCKER_HOST=unix:///path/to/docker.sock")
    lines.append("- run make as root on Debian or Ubuntu: it installs docker.io and starts a private engine")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line; see the module's docstring."""
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
