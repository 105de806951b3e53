"""`gcompute` as people run it: a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[3]


class Program:
    """Starts `gcompute` with the fake API's address in its environment."""

    def __init__(self, url: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GC_", "_GCOMPUTE"))}
        self.environment = {**kept, "GC_URL": url, "PYTHONPATH": str(ROOT), "TERM": "dumb"}

    def start(self, *args: str | bytes, **popen: Any) -> subprocess.Popen[bytes]:
        command: list[str | bytes] = [sys.executable, "-m", "ops.cli.main", *args]
        environment = self.environment | popen.pop("env", {})
        pipes: dict[str, Any] = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        process: subprocess.Popen[bytes] = subprocess.Popen(command, env=environment, **(pipes | popen))
        return process

    def __call__(
        self, *args: str | bytes, stdin: bytes | IO[bytes] = b"", **popen: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end. Bytes come to it by a pipe, a file as a file."""
        given = {} if isinstance(stdin, bytes) else {"stdin": stdin}
        with self.start(*args, **given, **popen) as process:
            try:
                out, err = process.communicate(stdin if isinstance(stdin, bytes) else None, timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(args, process.returncode, out, err)
