"""A backup as the runbook takes it, while the set runs; and the restore on an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sets.api.conftest import StartApi, mark, running, until

pytestmark = pytest.mark.docker


def back_up(state: Path, backup: Path) -> None:
    """Do what ops/runbook.md says."""
    config = backup.with_name("backed-up.yaml")
    config.write_text(f"name: a\nstate_dir: {state}\n")
    gcompute = Path(sys.executable).with_name("gcompute")
    done = subprocess.run(
        [gcompute, "set", "backup", config, backup], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{backup} is a backup of {state}; large inputs and results in it: 2" in done.stdout


def test_a_set_is_restored_from_a_backup_that_was_taken_while_it_ran(
    start_api: StartApi, tmp_path: Path
) -> None:
    api = start_api()
    large = b"l" * 200_000
    kept = api.submit("cat", body=large)
    assert api.task(kept["id"], wait=60)["state"] == "succeeded"
    word = mark()
    ran = [api.submit("sleep", "4", "say", word) for _ in range(2)]
    until(lambda: len(running(word)) == 2, "both cores are busy")
    waited = api.submit("cat", body=large)
    state = api.process.folder / "state"
    back_up(state, tmp_path / "backup")
    after = api.submit("say", "after the backup")
    api.process.stop()
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    api.process.start()
    assert api.http.get(f"/v1/tasks/{kept['id']}/stdout").content == large
    for task in (*ran, waited):
        assert api.task(task["id"], wait=60)["state"] == "succeeded"
    assert api.http.get(f"/v1/tasks/{waited['id']}/stdout").content == large
    # A backup knows nothing of what came later.
    assert api.http.get(f"/v1/tasks/{after['id']}").status_code == 404
