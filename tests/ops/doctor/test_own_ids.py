"""The checks of the runtime `gcompute-runc`: the program that the engine calls, and the host ids of its user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ops.doctor import own_ids_probe
from ops.doctor.engine import Engine
from ops.doctor.finding import CannotTell, Level
from ops.doctor.own_ids import BLOCK_IDS, OwnIds, own_ids
from sets.runtime import NAME, RUNTIME_BINARY

SUFFICIENT = {"/etc/subuid": 64 * BLOCK_IDS, "/etc/subgid": 64 * BLOCK_IDS}


def judged(**changed: Any) -> list[tuple[Level, str, str]]:
    facts: dict[str, Any] = {
        "path": "/usr/local/sbin/gcompute-runc",
        "unusable": "",
        "present": True,
        "kernel": "6.1.0-37-amd64",
        "remapped": False,
        "ids": SUFFICIENT,
        "slots": 64,
    }
    return [(each.level, each.text, each.mend) for each in own_ids(OwnIds(**{**facts, **changed}))]


def test_a_runtime_with_ids_for_every_slot_is_in_order() -> None:
    assert judged() == [(Level.OK, "gcompute-runc is installed and has host ids for slots", "")]


@pytest.mark.parametrize(
    ("changed", "level", "text", "mend"),
    [
        ({"unusable": "is missing"}, Level.FAIL, "is missing", "install -m 755 sets/runtime/gcompute-runc"),
        ({"present": False}, Level.WARN, "is not the gcompute-runc of this build", "install -m 755"),
        ({"kernel": "5.15.0"}, Level.FAIL, "Linux 5.15.0 cannot idmap", "Linux 5.19"),
        ({"remapped": True}, Level.FAIL, "userns-remap", "daemon.json"),
        (
            {"ids": {**SUFFICIENT, "/etc/subgid": 0}},
            Level.FAIL,
            "/etc/subgid gives the user gcompute-runc fewer ids than one slot takes (0 of 131072)",
            "usermod --add-subgids",
        ),
        (
            {"ids": {**SUFFICIENT, "/etc/subuid": 10 * BLOCK_IDS}},
            Level.WARN,
            "ids for fewer slots than there may be (10 of 64)",
            "replace the range in /etc/subuid",
        ),
    ],
)
def test_each_fault_is_told_with_its_mend(
    changed: dict[str, Any], level: Level, text: str, mend: str
) -> None:
    first = judged(**changed)[0]
    assert first[0] is level
    assert text in first[1]
    assert mend in first[2]


# The probe.

HOST = "unix:///run/docker.sock"


def engine(path: Path) -> Engine:
    return Engine({"Runtimes": {"runc": {"path": "runc"}, NAME: {"path": str(path)}}}, None)


def test_the_tables_are_read_as_the_runtime_reads_them(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text(f"other:1:5\n{NAME}:3221225472:1000\n{NAME}:1:2000\n")
    found = own_ids_probe.own_ids(engine(RUNTIME_BINARY), HOST, 3, [tmp_path / "subuid", tmp_path / "subgid"])
    # Only the first range counts, and a table that is missing gives none.
    assert found.ids == {f"{tmp_path}/subuid": 1000, f"{tmp_path}/subgid": 0}
    assert (found.unusable, found.present, found.slots) == ("", True, 3)


def test_the_program_that_daemon_json_names_is_looked_at(tmp_path: Path) -> None:
    program = tmp_path / NAME
    assert own_ids_probe.own_ids(engine(program), HOST, 3).unusable == "is missing"
    program.write_text("an older build")
    program.chmod(0o644)
    assert own_ids_probe.own_ids(engine(program), HOST, 3).unusable == "cannot be executed"
    program.chmod(0o755)
    found = own_ids_probe.own_ids(engine(program), HOST, 3)
    assert (found.unusable, found.present) == ("", False)


def test_an_engine_without_it_or_on_another_machine_is_not_examined() -> None:
    assert not own_ids_probe.offered(Engine({"Runtimes": {"runc": {}}}, None))
    assert own_ids_probe.offered(engine(RUNTIME_BINARY))
    with pytest.raises(CannotTell, match="another machine"):
        own_ids_probe.own_ids(engine(RUNTIME_BINARY), "tcp://10.0.0.5:2375", 3)
