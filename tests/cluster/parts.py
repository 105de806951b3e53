"""The programs of the platform as processes on hosts: started, killed, frozen, stopped in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from ops.setup.private_engine import PrivateEngine
from tests.cluster.network import Network
from tests.conftest import ROOT, START_TIMEOUT_S, STOP_TIMEOUT_S

PAGE = 200


def until(condition: Callable[[], object], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait for what must happen; fails by saying what did not."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.05)


def all_tasks(ask: Callable[[str, str], httpx.Response | None], account: str) -> list[dict[str, Any]]:
    """All tasks of an account that a set keeps. `ask`: GET a path of the set for an account."""
    found: list[dict[str, Any]] = []
    before = ""
    while True:
        answer = ask(f"/v1/tasks?limit={PAGE}{before}", account)
        assert answer is not None
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["tasks"]
        if page["next"] is None:
            return found
        before = f"&before={page['next']}"


def restart(engine: PrivateEngine) -> None:
    """Kill an engine and start it again; its containers end. Returns once it answers."""
    killed = engine.pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: engine.pid != killed, "the killed engine is gone")
    engine.start()


class Part:
    """A process on a host, with its children. `command`: the words after `gcompute`; `url`: its address on the
    host itself, where `/readyz` says that it is ready."""

    def __init__(self, network: Network, host: str, folder: Path, *command: str, url: str = "") -> None:
        self.host = host
        self.url = url
        self.log = folder / f"{command[0]}-{host}.log"
        self._network = network
        self._command = network.command(host, sys.executable, "-m", "ops.cli.main", *command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def is_ready(self) -> bool:
        answer = self.ask("/readyz")
        return answer is not None and answer.status_code == 200

    def ask(self, path: str, account: str = "default") -> httpx.Response | None:
        """GET from the host itself; None without an answer."""
        headers = {"X-Account": account}

        def get() -> httpx.Response | None:
            try:
                return httpx.get(f"{self.url}{path}", headers=headers, timeout=10, trust_env=False)
            except httpx.HTTPError:
                return None

        return self._network.on(self.host, get)

    def until_ready(self) -> None:
        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"{self.log.name}: it ended:\n{self.log.read_text()[-4000:]}")
            return self.is_ready()

        until(ready, f"{self.url}/readyz answers 200; see {self.log}")

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to the process and all of its children, as to a machine."""
        os.killpg(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def ask_to_stop(self) -> None:
        """Begin an orderly stop of a process that runs."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Stop it in order; kill it if that takes too long."""
        if self._process is None:
            return
        if self.is_alive():
            # It may be frozen.
            self.signal(signal.SIGCONT)
        self.ask_to_stop()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
