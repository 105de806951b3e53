"""A server of the bench: a process on its own core and in its own folder, whose output is shown when it fails."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ops.bench.stack import BenchFailed
from ops.bench_router.machine import cpu_us, memory_mib

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0


class Server:
    """Use as a context manager; `port` answers in the context."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        port: int,
        *,
        environment: Mapping[str, str] | None = None,
        access_log: Path | None = None,
        log_folder: Path | None = None,
    ) -> None:
        """`folder` is its working directory; its output goes to `log_folder`, by default the same."""
        self.name = name
        self.port = port
        self._command = list(command)
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}
        self._access_log = access_log
        self.log = (log_folder or folder) / f"{name}.log"
        """Its standard output and error."""
        self._process: subprocess.Popen[bytes] | None = None
        self.requests = 0
        """Number of requests that the loads have sent."""
        self.logged = 0
        """Number of lines of its access log so far."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it. Raises BenchFailed with the end of its output if it does not answer in time."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise BenchFailed(
                    f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)

    def answers(self) -> bool:
        """True if a request reaches the upstream: Traefik listens before it has read its routes."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/openapi.json", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise BenchFailed(f"{self.name} does not run")
        return self._process.pid

    def cpu_us(self) -> float:
        """Return the CPU time so far of its processes and their descendants."""
        return cpu_us(self.pid)

    def memory_mib(self) -> float:
        return memory_mib(self.pid)

    def collect_log(self) -> None:
        """Count the new lines of its access log and empty the file, because a bench writes gigabytes."""
        if self._access_log is None:
            return
        try:
            with self._access_log.open("r+b") as log:
                while block := log.read(1 << 20):
                    self.logged += block.count(b"\n")
                log.truncate(0)
        except FileNotFoundError:
            return
