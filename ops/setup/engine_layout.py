"""The files and sockets of a private engine: where each lies, and by what its processes are known."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# A unix socket's path may have 107 bytes. The longest one in the engine's folder is
# exec/containerd/containerd.sock.ttrpc, 38 bytes with the slash; the rest is a reserve for later versions.
DEEPEST_FOLDER: Final = 60


@dataclass(frozen=True)
class Layout:
    """The files and sockets of a private engine.

    `sockets` is `folder` itself, or a short path under /run if `folder` is too long for a socket's path. With
    `userns` it is always under /run: root of a container must reach the data, and only root may reach a checkout.
    """

    folder: Path
    sockets: Path
    userns: bool = False

    @classmethod
    def under(cls, root: Path, *, userns: bool = False) -> Layout:
        """Return the layout for a checkout; always the same one, so that a later run finds an earlier run's engine."""
        folder = root / ("var/docker-userns" if userns else "var/docker")
        if len(os.fsencode(folder)) <= DEEPEST_FOLDER and not userns:
            return cls(folder, folder)
        digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        return cls(folder, Path(f"/run/gcompute-{digest}"), userns)

    @property
    def data(self) -> Path:
        """Images and containers; kept when the engine stops."""
        return self.folder / "data"

    @property
    def data_root(self) -> Path:
        """The engine's path for `data`; with `userns`, a bind mount."""
        return self.sockets / "data" if self.userns else self.data

    @property
    def exec(self) -> Path:
        """State and sockets of the running engine."""
        return self.sockets / "exec"

    @property
    def socket(self) -> Path:
        """The engine's socket."""
        return self.sockets / "docker.sock"

    @property
    def link(self) -> Path:
        """The socket as documented: the socket itself, or a symbolic link to it."""
        return self.folder / "docker.sock"

    @property
    def pid_file(self) -> Path:
        return self.folder / "dockerd.pid"

    @property
    def containerd_socket(self) -> Path:
        return self.exec / "containerd/containerd.sock"

    @property
    def log(self) -> Path:
        return self.folder / "dockerd.log"

    @property
    def settings(self) -> Path:
        return self.folder / "daemon.json"

    @property
    def host(self) -> str:
        """The DOCKER_HOST of this engine."""
        return f"unix://{self.socket}"

    @property
    def daemon_mark(self) -> str:
        """Text that only this engine's dockerd has on its command line."""
        return f"--pidfile {self.pid_file} "

    @property
    def child_marks(self) -> tuple[str, str]:
        """Text that only its containerd and the shims of its containers have on theirs."""
        return (
            f"containerd --config {self.exec}/containerd/containerd.toml",
            f"-address {self.exec}/containerd/containerd.sock",
        )
