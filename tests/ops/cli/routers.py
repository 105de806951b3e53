"""A router as a real process, with an operator at the command line and a set that answers everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.ops.cli.program import ROOT, Program
from tests.ports import free_port

TOKEN = "0123456789abcdef0123456789abcdef"
FILE = """\
# the release
version: 7   # grows
sets:
  a: {{url: "http://127.0.0.1:{port}", state: ready}}   # the old one
  b: {{url: "http://127.0.0.1:{port}", state: ready}}   # the new one
rules:
  - {{name: early, when: {{account: acme}}, weights: {{a: 50, b: 50}}}}
default:
  weights: {{a: 95, b: 5}}   # percent
rollout: {{set: b, steps: [{{weight: 10, hold: 10m}}]}}
"""


class FakeSet(BaseHTTPRequestHandler):
    """Answers everything with 200; its health check says that it is full."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {
            "build": "0.1.0+abc",
            "cores": 2,
            "cores_busy": 2,
            "tasks_waiting": 10,
            "oldest_wait_seconds": 75,
        }
        body = json.dumps(told).encode() if self.path == "/readyz" else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Operator:
    """Somebody at the command line, beside a router that reads `file`."""

    def __init__(self, program: Program, file: Path, port: int, admin_port: int) -> None:
        self._program = program
        self.file = file
        self.port = port
        self.admin_url = f"http://127.0.0.1:{admin_port}"
        self.environment = {"GC_ADMIN_URL": self.admin_url, "COLUMNS": "160"}

    def __call__(self, *args: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run `gcompute router …`; its standard output."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout.decode()

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self._program("router", *args, stdin=stdin, env=self.environment)

    def complaint(self, *args: str, code: int) -> str:
        """Run a command that must fail; returns its standard error."""
        done = self.run(*args)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stderr.decode()

    def json(self, *args: str) -> dict[str, Any]:
        return dict(json.loads(self(*args, "--json")))

    def weights(self) -> dict[str, float]:
        """Return the weights in force in the router."""
        return {name: each["weight"] for name, each in self.json("status")["sets"].items()}


@contextmanager
def routing(folder: Path, *options: str) -> Iterator[Operator]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), FakeSet)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    file = folder / "router.yaml"
    file.write_text(FILE.format(port=served.server_address[1]))
    port, admin_port = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "ops.cli.main", "router", str(file), "--state-dir", str(folder / "state")),
        *("--bind", f"127.0.0.1:{port}", "--admin-bind", f"127.0.0.1:{admin_port}", *options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/livez", timeout=5):
                    break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield Operator(Program("http://127.0.0.1:1"), file, port, admin_port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(90)
        served.shutdown()
        served.server_close()
