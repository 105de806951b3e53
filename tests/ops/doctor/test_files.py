"""The checks of files: modes of secrets, room, dates of certificates, a node's folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.certificates.authority import Authority
from ops.doctor import files, files_probe
from ops.doctor.files import Dates, Entry, Mode, Room
from ops.doctor.finding import CannotTell, Level
from ops.nomad.node import lay_out

DAY_S = 86_400.0


def test_a_secret_that_others_can_read_is_wrong(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    assert "is missing" in files.secret(files_probe.mode(secret)).text
    secret.write_text("")
    secret.chmod(0o600)
    assert "is empty" in files.secret(files_probe.mode(secret)).text
    secret.write_text("s3cret")
    assert files.secret(files_probe.mode(secret)).level is Level.OK
    secret.chmod(0o640)
    found = files.secret(files_probe.mode(secret))
    assert found.level is Level.FAIL
    assert "mode 0640" in found.text
    assert found.mend.startswith(f"chmod 600 {secret}")
    assert "s3cret" not in f"{found}"


def test_a_file_of_settings_that_others_can_change_is_wrong() -> None:
    assert files.configuration(Mode("set.yaml", 0o644)).level is Level.OK
    assert files.configuration(Mode("set.yaml", 0o664)).mend == "chmod go-w set.yaml"


def test_a_folder_that_others_can_enter_is_doubted() -> None:
    assert files.private_folder(Mode("state", 0o700)).level is Level.OK
    assert files.private_folder(Mode("state", None)).level is Level.OK
    assert files.private_folder(Mode("state", 0o755)).level is Level.WARN


@pytest.mark.parametrize(
    ("room", "level"),
    [
        (Room("/d", 9000, 90, 100, 256), Level.OK),
        (Room("/d", 9000, 0, 0, 256), Level.OK),
        (Room("/d", 300, 90, 100, 256), Level.WARN),
        (Room("/d", 255, 90, 100, 256), Level.FAIL),
        (Room("/d", 9000, 40, 1000, 256), Level.WARN),
        (Room("/d", 9000, 4, 1000, 256), Level.FAIL),
    ],
)
def test_a_disk_needs_room_and_inodes(room: Room, level: Level) -> None:
    assert files.disk(room).level is level


def test_the_room_of_a_folder_to_be_is_that_of_the_one_above(tmp_path: Path) -> None:
    found = files_probe.room(tmp_path / "not/yet", 1)
    assert found.path == str(tmp_path / "not/yet")
    assert found.inodes == os.statvfs(tmp_path).f_files


@pytest.mark.parametrize(
    ("not_before", "not_after", "level", "words"),
    [
        (-DAY_S, 100 * DAY_S, Level.OK, "valid for 100 days"),
        (-DAY_S, 3 * DAY_S, Level.WARN, "expires in 3 days"),
        (-DAY_S, -2 * DAY_S, Level.FAIL, "expired 2 days ago"),
        (DAY_S, 100 * DAY_S, Level.FAIL, "valid only in 1 day"),
    ],
)
def test_a_certificate_is_judged_by_its_dates(
    not_before: float, not_after: float, level: Level, words: str
) -> None:
    now = 1_800_000_000.0
    found = files.certificate(Dates("c.pem", now + not_before, now + not_after, now), "renew it")
    assert found.level is level
    assert words in found.text


def test_a_real_certificates_dates_are_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    authority.make()
    authority.issue_to_set("a", tmp_path / "a", 10)
    found = files_probe.dates(tmp_path / "a/identity.pem")
    assert found.not_after - found.not_before == pytest.approx(10 * DAY_S, abs=2 * 3600)
    assert files.certificate(found, "gcompute cert set a").level is Level.WARN
    (tmp_path / "a/identity.pem").write_text("nothing")
    with pytest.raises(CannotTell, match="holds no certificate"):
        files_probe.dates(tmp_path / "a/identity.pem")


def test_each_fault_of_a_nodes_folder_is_told_with_its_mend() -> None:
    good = Entry("/n/bin/guest", 0o755, 0o755)
    assert [each.level for each in files.node_folder([good], "/n")] == [Level.OK]
    bad = [
        Entry("/n/run", 0o311, None),
        Entry("/n/hide", 0, 0o755),
        Entry("/n/seccomp/slots.json", 0o644, 0o644, same=False),
    ]
    found = list(files.node_folder([good, *bad], "/n"))
    assert [each.level for each in found] == [Level.FAIL] * 3
    assert ["is missing" in found[0].text, "mode 0755 instead of 0000" in found[1].text] == [True, True]
    assert "somebody changed it" in found[2].text
    assert all("python -m ops.nomad layout /n" in each.mend for each in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="laying out a node needs root")
def test_a_folder_as_it_was_laid_out_is_right_until_somebody_changes_it(tmp_path: Path) -> None:
    node = tmp_path / "node"
    lay_out(node)
    assert [each.level for each in files.node_folder(files_probe.node_entries(node), str(node))] == [Level.OK]
    (node / "run").chmod(0o777)
    (node / "dev/null").unlink()
    (node / "dev/null").write_text("a file")
    profile = next((node / "seccomp").iterdir())
    profile.write_text("{}")
    texts = [each.text for each in files.node_folder(files_probe.node_entries(node), str(node))]
    assert len(texts) == 3
    assert any(f"{node}/run has mode 0777" in each for each in texts)
    assert any(f"{profile} is not what this build has" in each for each in texts)
    assert any(f"{node}/dev/null is not" in each for each in texts)
