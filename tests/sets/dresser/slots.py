"""Containers as Nomad's docker driver makes them from jobspecs/slot.nomad.hcl, whose init does nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import NotFound

from ops.nomad.node import lay_out
from sets.dresser import DRESSER

MIB = 1 << 20
INODES = 100
WAIT_S = 60.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def build(name: str, program: Path) -> Path:
    """Compile one of the C programs of this folder."""
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


class Node:
    """A machine's folder for slots, as `python -m ops.nomad layout` makes it, and Nomad's own directories."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "node"
        lay_out(self.folder)
        build("still", self.folder / "bin/still")
        self.mounter = build("mounter", folder / "mounter")
        self.of_nomad = folder / "alloc"
        for name in ("alloc", "local", "secrets"):
            (self.of_nomad / name).mkdir(parents=True)

    def binds(self) -> list[str]:
        """The mounts of a slot's job, beside its places."""
        platform = {
            "bin": "/gc/bin",
            "run": "/gc/run",
            "hide": "/gc/nomad",
            "dev": "/dev",
            "hosts": "/etc/hosts",
        }
        return [
            *(f"{self.folder}/{name}:{target}:ro" for name, target in platform.items()),
            *(f"{self.of_nomad}/{name}:/gc/nomad/{name}" for name in ("alloc", "local", "secrets")),
        ]


def create_body(node: Node, places: Sequence[str], size_bytes: int = MIB) -> dict[str, Any]:
    """Members of a container's `HostConfig`."""
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Binds": node.binds(),
        "Mounts": [
            {
                "Type": "tmpfs",
                "Target": place,
                "TmpfsOptions": {"SizeBytes": size_bytes, "Mode": 0o1777},
            }
            for place in places
        ],
    }


class Slot:
    """A container with `places`, which are covers too, of which some may not be ordered."""

    def __init__(
        self, client: APIClient, node: Node, image: str, places: Sequence[str], word: str = ""
    ) -> None:
        self._client = client
        self._node = node
        create: Any = client.create_container_from_config
        self.id: str = create(
            {
                "Image": image,
                "Entrypoint": ["/gc/bin/still"],
                "Cmd": [word] if word else [],
                "NetworkDisabled": False,
                "HostConfig": create_body(node, places),
            }
        )["Id"]
        try:
            client.start(self.id)
        except BaseException:
            self.remove()
            raise
        self.pid: int = client.inspect_container(self.id)["State"]["Pid"]
        # Until then it is the runtime, which has threads. A guest's HELLO comes later than that.
        wait_until(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "still\n")

    def dress(self, *places: str, covered: Sequence[str] = (), pid: int | None = None) -> str:
        """Dress it; returns what the program says, which is nothing if all went well."""
        pidfd = os.pidfd_open(pid or self.pid)
        try:
            command = [str(DRESSER), str(pidfd), str(INODES), *places, *(["--", *covered] if covered else [])]
            done = subprocess.run(
                command, pass_fds=(pidfd,), env={}, capture_output=True, text=True, timeout=60
            )
        finally:
            os.close(pidfd)
        assert (done.returncode == 0) == (not done.stderr), done
        return done.stderr

    def inside(self, path: str) -> Path:
        return Path(f"/proc/{self.pid}/root{path}")

    def mounts(self) -> dict[str, list[str]]:
        """The options of each mount that can be seen, by its place; those of the file system too."""
        found = {}
        for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines():
            mount, _, file_system = line.partition(" - ")
            found[mount.split()[4]] = [*mount.split()[5].split(","), *file_system.split()[2].split(",")]
        return found

    def change(self, *words: str) -> None:
        """Change its mounts from outside: `mounter.c`."""
        subprocess.run([self._node.mounter, str(self.pid), *words], check=True)

    def remove(self) -> None:
        with contextlib.suppress(NotFound):
            self._client.remove_container(self.id, force=True, v=True)
