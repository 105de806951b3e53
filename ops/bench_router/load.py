"""Puts load on a proxy, from a process on its own core, and measures the CPU time of the proxy's processes."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ops.bench.stack import BenchFailed
from ops.bench_router import programs
from ops.bench_router.machine import pinned
from ops.bench_router.server import Server

CLIENTS: Final = 16
GET: Final = "/v1/tasks/bench-01jd3k5v8zq4n2w7c9x1b6m0ta"
"""A path that the task's own set answers."""
POST: Final = "/v1/run/cat:1"
SMALL_BYTES: Final = 1024
PATIENCE_S: Final = 60.0
_WRK_POST: Final = f"""wrk.method = "POST"
wrk.body = string.rep("x", {SMALL_BYTES})
"""


@dataclass(frozen=True)
class Shot:
    """A measurement of a proxy under load."""

    requests: int
    per_s: float
    megabytes_per_s: float
    cpu_us: float
    """CPU time of the proxy for each request."""
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    window_p99_us: float = 0.0
    """The median of the p99s of each quarter of a second, at a fixed rate; 0 if the rate was too low."""


class Loader:
    """Makes load on `core`; keeps scripts in `folder`."""

    def __init__(self, core: int, folder: Path) -> None:
        self._core = core
        self._script = folder / "post.lua"
        self._script.write_text(_WRK_POST)
        self._wrk = programs.debian("wrk")
        self._load = str(programs.compiled("load"))

    def small(self, server: Server, method: str, seconds: float, clients: int = CLIENTS) -> Shot:
        """Send as many small requests as possible, with wrk."""
        command = [self._wrk, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        if method == "POST":
            command += ["-s", str(self._script)]
        url = f"http://127.0.0.1:{server.port}{GET if method == 'GET' else POST}"
        before = server.cpu_us()
        text = self._run([*command, url], seconds)
        spent = server.cpu_us() - before
        requests, per_s = wrk_result(text, server.name)
        _asked(server, requests)
        return Shot(requests, per_s, 0.0, spent / requests)

    def bodies(self, server: Server, method: str, size_bytes: int, clients: int, seconds: float) -> Shot:
        """Move as many bodies of this size as possible, up (POST) or down (GET)."""
        path, up = (POST, size_bytes) if method == "POST" else (f"{GET}/stdout?size={size_bytes}", 0)
        arguments = ("bodies", str(server.port), method, path, str(up), str(clients), str(seconds))
        return self._shot(server, arguments, seconds)

    def rate(self, server: Server, per_s: float, seconds: float, clients: int = 2 * CLIENTS) -> Shot:
        """Send small GETs at a fixed rate."""
        arguments = ("rate", str(server.port), "GET", GET, "0", str(clients), str(seconds), f"{per_s:.3f}")
        return self._shot(server, arguments, seconds)

    def idle(self, server: Server, clients: int) -> IdleClients:
        """Hold connections that have sent one request."""
        command = [self._load, "idle", str(server.port), "GET", GET, "0", str(clients)]
        return IdleClients(pinned(self._core, *command), server.name, clients)

    def _shot(self, server: Server, arguments: tuple[str, ...], seconds: float) -> Shot:
        before = server.cpu_us()
        result = json.loads(self._run([self._load, *arguments], seconds))
        spent = server.cpu_us() - before
        requests, elapsed_s = result["requests"], result["elapsed_s"]
        if result["bad"] or not requests:
            raise BenchFailed(f"{server.name}: {result['bad']} of {requests} answers were not 200")
        _asked(server, requests)
        return Shot(
            requests,
            requests / elapsed_s,
            result["bytes"] / 1e6 / elapsed_s,
            spent / requests,
            result["p50_us"],
            result["p99_us"],
            result["p999_us"],
            result["window_p99_us"],
        )

    def _run(self, command: list[str], seconds: float) -> str:
        try:
            done = subprocess.run(
                pinned(self._core, *command),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{Path(command[0]).name} did not end in time") from None
        if done.returncode:
            raise BenchFailed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class IdleClients:
    """Use as a context manager; raises BenchFailed at its end if the server closed any."""

    def __init__(self, command: list[str], server_name: str, clients: int) -> None:
        self._command = command
        self._server_name = server_name
        self._clients = clients

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if '"bad": 0' not in self._process.stdout.readline():
            self._process.kill()
            _, errors = self._process.communicate()
            raise BenchFailed(
                f"{self._server_name} did not take {self._clients} connections: {errors.strip()}"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            out, errors = self._process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, errors = self._process.communicate()
        if kind is None and f'"kept": {self._clients}' not in out:
            raise BenchFailed(f"{self._server_name} closed idle connections: {out.strip()} {errors.strip()}")


def _asked(server: Server, requests: int) -> None:
    server.requests += requests
    server.collect_log()


def wrk_result(text: str, name: str) -> tuple[int, float]:
    """Return requests and requests per second. Raises BenchFailed for errors and answers that are not 2xx or 3xx."""
    for trouble in ("Non-2xx or 3xx responses", "Socket errors"):
        if trouble in text:
            line = next(line for line in text.splitlines() if trouble in line)
            raise BenchFailed(f"{name}: {line.strip()}")
    requests = re.search(r"(\d+) requests in", text)
    per_s = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if requests is None or per_s is None or not int(requests[1]):
        raise BenchFailed(f"{name}: wrk printed no number of requests:\n{text}")
    return int(requests[1]), float(per_s[1])
