"""The process of one Nomad agent on this machine, and calls of the `nomad` program, which must be on PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ops.setup import processes
from ops.setup.errors import OpsError

STOP_TIMEOUT_S: Final = 60.0
COMMAND_TIMEOUT_S: Final = 120.0


class AgentProcess:
    """An agent whose configuration, state and log are in `folder`.

    `inside` is put in front of its command, such as `ip netns exec NAME`.
    """

    def __init__(self, folder: Path, inside: Sequence[str] = ()) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "agent.log"
        self._inside = tuple(inside)
        self._pid_file = folder / "agent.pid"
        self._mark = f"-config={folder}/agent.hcl"

    @property
    def pid(self) -> int:
        """The agent's process; 0 if it does not run."""
        return processes.running(self._pid_file, self._mark)

    def start(self, configuration: str) -> None:
        """Start the agent with this configuration, unless it runs. Raises `OpsError`."""
        command = [*self._inside, program(), "agent", self._mark]
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "agent.hcl"
        # It names the key of the servers' gossip.
        file.touch(mode=0o600)
        file.write_text(configuration)
        if not self.pid:
            pid = processes.start_detached(command, self.log, environment(), self.folder)
            self._pid_file.write_text(str(pid))

    def stop(self) -> None:
        """Stop the agent. Slots go on: that is Nomad's way."""
        if pid := self.pid:
            processes.stop(pid, self._mark, STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the agent at once, as the loss of its machine would; returns when it is gone."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
            processes.stop(pid, self._mark, STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)

    def wipe(self) -> None:
        """Stop the agent and remove all that it had, but for containers."""
        self.stop()
        for mounted in (*self.data.glob("alloc/*/*/secrets"), *self.data.glob("alloc/*/*/private")):
            subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def said(self) -> str:
        """The end of its log, for an error message."""
        return processes.tail(self.log)


def program() -> str:
    """Path of the `nomad` program. Raises `OpsError`."""
    found = shutil.which("nomad")
    if found is None:
        raise OpsError("nomad is not on PATH; install it from HashiCorp's packages, or put a binary there")
    return found


def environment() -> dict[str, str]:
    """The environment without variables that Nomad or its Docker client would follow."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("NOMAD_", "DOCKER_"))}


def call(arguments: list[str], folder: Path, **variables: str) -> str:
    """Run a `nomad` command in `folder`; return what it printed. Raises `OpsError` with its error."""
    command = [program(), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise OpsError(f"nomad {' '.join(arguments[:3])} ended with {done.returncode}: {said}")
    return done.stdout
