"""Debian packages: an installed package costs no time, and a user who may not install one is told what to type."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ops.setup.engine import ROOT

pytestmark = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="neither Debian nor Ubuntu")


def packages(*arguments: str, as_nobody: bool = False, folder: Path) -> subprocess.CompletedProcess[str]:
    script = (ROOT / "ops/setup/packages.sh").read_text()  # read here: nobody may not enter this checkout
    command = ["bash", "-c", script, "packages.sh", *arguments]
    prefix = (
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if as_nobody and os.geteuid() == 0
        else []
    )
    return subprocess.run([*prefix, *command], cwd=folder, capture_output=True, text=True, timeout=50)


def test_installed_packages_cost_nothing_for_anybody() -> None:
    for as_nobody in (True, False):
        done = packages("a shell", "bash", "coreutils", as_nobody=as_nobody, folder=Path("/"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_is_not_root_is_told_the_command() -> None:
    done = packages("a C compiler", "bash", "no-such-package-here", as_nobody=True, folder=Path("/"))
    assert done.returncode == 1
    assert "set-up needs a C compiler" in done.stderr
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends no-such-package-here\n"
        in done.stderr
    )


def test_what_is_only_wished_for_is_no_failure_for_others() -> None:
    done = packages("--if-possible", "tools", "no-such-package-here", as_nobody=True, folder=Path("/"))
    assert (done.returncode, done.stderr) == (0, "")
