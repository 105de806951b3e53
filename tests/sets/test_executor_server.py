"""The process of an executor: it refuses to begin where another one is, with the setting at fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops.certificates.authority import Authority
from scheduler.lock import FileLock, FolderLock
from sets.executor_server import LOCK_FILE
from tests.conftest import ROOT


@pytest.mark.parametrize("field", ["state_dir", "run_folder"])
def test_two_executors_cannot_share_a_folder(tmp_path: Path, field: str) -> None:
    """They would remove each other's sockets."""
    Authority(tmp_path / "authority").make()
    Authority(tmp_path / "authority").issue_to_executor("n1", tmp_path / "n1", 10)
    state, run = tmp_path / "state", tmp_path / "run"
    for folder in (state, run):
        folder.mkdir()
    config = tmp_path / "executor.yaml"
    config.write_text(
        f"node: n1\nstate_dir: {state}\nrun_folder: {run}\ncertificates: {tmp_path / 'n1'}\n"
        "bind: 127.0.0.1:0\nsets: {a: {}}\n"
    )
    lock = FileLock(state / LOCK_FILE) if field == "state_dir" else FolderLock(run)
    lock.take()
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "executor", str(config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lock.release()
    assert done.returncode == 78
    assert done.stderr.startswith(f"gcompute executor: {field}: ")
    assert "give each executor a folder of its own" in done.stderr
    assert len(done.stderr.splitlines()) == 1
