"""A set and a router for the bench, on free ports, with their state in a folder that is removed afterwards."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ops.setup.engine import ROOT

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 40.0
SET_NAME: Final = "bench"


_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends: a bench that is killed leaves nothing running.

    For `preexec_fn` of a process that the bench's main thread starts. A set or an executor that is ended so stops its
    slots first.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class BenchFailed(Exception):
    """The bench could not measure."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Stack:
    """Use as a context manager; `set_port` and `router_port` answer in the context.

    `settings` are further lines of the set's file; `prepare` is called with the set's folder before the set starts.
    """

    def __init__(self, settings: str = "", prepare: Callable[[Path], None] | None = None) -> None:
        self._settings = settings
        self._prepare = prepare
        self.set_port = free_port()
        self.router_port = free_port()
        self._admin_port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        folder = self._make_folder()
        set_file, router_file = folder / "set.yaml", folder / "router.yaml"
        self.set_folder = folder / "set"
        set_file.write_text(
            f"name: {SET_NAME}\nstate_dir: {self.set_folder}\ncores: 2\nmax_slots: 32\n{self._settings}"
        )
        router_file.write_text(
            "version: 1\nsets:\n"
            f'  {SET_NAME}: {{url: "http://127.0.0.1:{self.set_port}", state: ready}}\n'
            f"default:\n  weights: {{{SET_NAME}: 100}}\n"
        )
        router_options: tuple[str, ...] = ("--name", "bench", "--admin-bind", f"127.0.0.1:{self._admin_port}")
        router_options += ("--bind", f"127.0.0.1:{self.router_port}", "--state-dir", str(folder / "router"))
        try:
            if self._prepare is not None:
                self._prepare(self.set_folder)
            self._set_command = ("set", "set", str(set_file), "--bind", f"127.0.0.1:{self.set_port}")
            self._start(*self._set_command)
            self._await(self.set_port)
            self._start("router", "router", str(router_file), *router_options)
            self._await(self._admin_port)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes.values()):
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self._folder.cleanup()

    def peak_memory_mib(self) -> dict[str, float]:
        """Return the peak resident memory of each process, by part."""
        peaks: dict[str, float] = {}
        for name in self._processes:
            for pid in self.pids(name):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        peaks[name] = max(peaks.get(name, 0.0), int(line.split()[1]) / 1024)
        return peaks

    def cpu_us(self, name: str) -> int:
        """Return the CPU time of a part so far, in microseconds."""
        total = 0
        for pid in self.pids(name):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * 10_000
        return total

    def kill_set(self) -> None:
        """End the set's processes as a crash does: with SIGKILL, all at once."""
        process = self._processes["set"]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_set(self) -> None:
        """Start the set once more, in the folder that it left; returns at once."""
        self._start(*self._set_command)

    def pids(self, name: str) -> list[int]:
        """Return the part's own process and its workers."""
        pid = self._processes[name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def _make_folder(self) -> Path:
        (ROOT / "var").mkdir(exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "var")
        return Path(self._folder.name)

    def _start(self, name: str, *arguments: str) -> None:
        log = (Path(self._folder.name) / f"{name}.log").open("wb")
        command = [sys.executable, "-m", "ops.cli.main", *arguments]
        with log:
            self._processes[name] = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    return
            except OSError as error:
                name, process = list(self._processes.items())[-1]
                if process.poll() is not None or time.monotonic() > deadline:
                    text = (Path(self._folder.name) / f"{name}.log").read_text()[-2000:]
                    raise BenchFailed(f"the {name} did not start: {error}\n{text}") from error
                time.sleep(0.05)
