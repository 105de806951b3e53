"""The peers of the bench: of-watchdog if it is available, else a bare spawn loop."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ops.bench.stack import BenchFailed, free_port

FLOOR_OVER_WATCHDOG: Final = 7.4
"""Factor by which two bare spawn loops are faster than of-watchdog, measured on a machine with both."""


def program_of(image: str, path: str, folder: Path) -> Path:
    """Copy the program `path` out of an image, so that a peer runs the same program."""
    created = subprocess.run(["docker", "create", image, "-"], capture_output=True, check=True, text=True)
    container = created.stdout.strip()
    try:
        subprocess.run(
            ["docker", "cp", "-L", f"{container}:{path}", str(folder)], capture_output=True, check=True
        )
    finally:
        subprocess.run(["docker", "rm", container], capture_output=True, check=True)
    return folder / Path(path).name


def watchdog_binary() -> str | None:
    """Find of-watchdog: `OF_WATCHDOG`, or on PATH. It is built with Go from its own repository, outside this tree."""
    return os.environ.get("OF_WATCHDOG") or shutil.which("of-watchdog")


class Watchdog:
    """of-watchdog in streaming mode on the bare host, a new process for each request; `port` answers in the context."""

    def __init__(self, binary: str, program: Path) -> None:
        self._binary = binary
        self._program = program
        self.port = free_port()

    def __enter__(self) -> Self:
        limits = dict.fromkeys(("exec_timeout", "read_timeout", "write_timeout"), "300s")
        self._process = subprocess.Popen(
            [self._binary],
            env={
                **os.environ,
                **limits,
                "mode": "streaming",
                "fprocess": str(self._program),
                "port": str(self.port),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise BenchFailed(f"of-watchdog did not start: {error}") from error
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Killed, because its own shutdown waits for read_timeout.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class SpawnFloor:
    """`spawn.c`, compiled."""

    def __init__(self, folder: Path) -> None:
        self._binary = folder / "spawn"
        source = Path(__file__).with_name("spawn.c")
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(self._binary), str(source)], check=True)

    def per_s(self, program: Path, seconds: float) -> float:
        command = [str(self._binary), str(program), str(seconds)]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30).stdout)
