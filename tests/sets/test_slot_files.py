"""The files that an engine mounts into slots: the installation's own, or copies where the engine can see them."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from scheduler.launchers.hardening import HOSTS_FILE
from scheduler.launchers.labels import LABEL_SET
from sets.guest import GUEST_BINARY
from sets.slot_files import mounted_files
from tests.conftest import StartSet


def test_without_a_folder_they_are_the_installations() -> None:
    assert mounted_files(None) == (GUEST_BINARY, HOSTS_FILE)


def test_a_folder_gets_copies_and_keeps_those_of_other_builds(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "guest-of-yesterday").write_text("in use")
    guest, hosts = mounted_files(folder)
    assert guest.read_bytes() == GUEST_BINARY.read_bytes()
    assert guest.stat().st_mode & 0o777 == 0o755
    assert (hosts.read_bytes(), hosts.stat().st_mode & 0o777) == (HOSTS_FILE.read_bytes(), 0o644)
    assert {path.name for path in folder.iterdir()} == {"guest-of-yesterday", guest.name, hosts.name}


def test_the_copies_are_not_written_again(tmp_path: Path) -> None:
    before = [path.stat().st_ino for path in mounted_files(tmp_path)]
    assert [path.stat().st_ino for path in mounted_files(tmp_path)] == before


@pytest.mark.docker
def test_a_set_starts_its_slots_from_the_copies(
    start_set: StartSet, engine: docker.DockerClient, tmp_path: Path
) -> None:
    started = start_set("files", f"slot_files: {tmp_path / 'files'}\n")
    with started.client() as client:
        answer = client.post(
            "/v1/run/cat:1", content=b"from a copy", params={"queue_timeout_s": 120}, timeout=150
        )
    assert (answer.status_code, answer.content) == (200, b"from a copy"), answer.text
    (container,) = engine.containers.list(filters={"label": f"{LABEL_SET}={started.name}"})
    sources = {mount["Source"] for mount in container.attrs["Mounts"]}
    assert {str(path) for path in mounted_files(tmp_path / "files")} <= sources
