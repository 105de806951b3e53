"""The package of a build: unpacked anywhere, it runs with the machine's Python, and names its build."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from ops.deploy import package
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, in a folder of its own."""
    folder = tmp_path_factory.mktemp("opt")
    archive = package.build_package()
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="tar")
    (unpacked,) = folder.iterdir()
    assert archive.name == f"{unpacked.name}.tar.gz"
    return unpacked


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the package as a stranger would: from another folder, without this checkout's environment."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/"}
    return subprocess.run([program, *arguments], cwd="/", env=environment, capture_output=True, text=True)


def test_the_program_runs_and_its_code_is_the_packages(unpacked: Path) -> None:
    done = run(unpacked / "bin/gcompute", "--help")
    assert "Usage: gcompute" in done.stdout, done.stderr
    code = "import sets, httpx; print(sets.__file__); print(httpx.__file__)"
    said = run(unpacked / "bin/python", "-c", code).stdout.split()
    assert len(said) == 2
    assert all(path.startswith(f"{unpacked}/lib/") for path in said)


def test_it_names_its_build_with_the_commit(unpacked: Path) -> None:
    said = run(unpacked / "bin/python", "-c", "from sets.build import build_name; print(build_name())").stdout
    build = (unpacked / "VERSION").read_text().strip()
    assert said.strip() == build
    assert re.fullmatch(r"[0-9.]+\+[0-9a-f]{12}(\.dirty)?", build)
    assert unpacked.name == package.file_name(build)


def test_its_guest_and_job_files_are_usable(unpacked: Path) -> None:
    code = (
        "from sets.guest import unusable; assert not unusable(), unusable()\n"
        "from scheduler.launchers.nomad.settings import TEMPLATE; print(TEMPLATE.read_text())"
    )
    done = run(unpacked / "bin/python", "-c", code)
    assert done.stdout.strip() == (ROOT / "jobspecs/slot.nomad.hcl").read_text().strip(), done.stderr


def test_it_works_through_a_link_and_lays_out_a_node(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(unpacked)
    assert "Usage" in run(tmp_path / "current/bin/gcompute", "executor", "--help").stdout
    laid = run(tmp_path / "current/bin/python", "-m", "ops.nomad", "layout", str(tmp_path / "node"))
    if os.geteuid() == 0:
        assert (tmp_path / "node/bin").is_dir(), laid.stderr
    else:
        assert "needs root" in laid.stderr


def test_a_machine_without_its_python_is_told_which(unpacked: Path, tmp_path: Path) -> None:
    for name in ("sh", "dirname", "readlink"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    done = subprocess.run(
        [unpacked / "bin/gcompute"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 69
    assert "needs python3." in done.stderr


def test_only_what_git_knows_gets_in(unpacked: Path) -> None:
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {
        path.relative_to(unpacked / "lib").as_posix()
        for name in ("router", "scheduler", "sets", "ops", "jobspecs")
        for path in (unpacked / "lib" / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    programs = {"sets/guest/guest", "sets/dresser/dress", "sets/runtime/gcompute-runc"}
    assert ours - set(known.stdout.splitlines()) == programs
    assert all(os.access(unpacked / "lib" / program, os.X_OK) for program in programs)
    assert not [path for path in unpacked.rglob("*") if path.stat().st_mode & 0o022 and not path.is_symlink()]


def test_nomads_clients_unpack_the_archive_and_it_is_roots(unpacked: Path) -> None:
    archive = package.FOLDER / f"{unpacked.name}.tar.gz"
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 0)}
    client = (ROOT / "ops/nomad/client.hcl").read_text()
    (limit,) = re.findall(r"decompression_file_count_limit = ([0-9]+)", client)
    assert len(entries) <= int(limit)
