"""`gcompute router set-weight`, `drain`, `maint`, `ready` and `rollback`, with a real router and a real file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ops.cli import exits
from tests.ops.cli.program import Program
from tests.ops.cli.routers import FILE, Operator
from tests.ports import free_port


def test_a_weight_is_set_kept_in_the_history_and_rolled_back(operator: Operator) -> None:
    before = operator.file.read_text()
    operator.file.chmod(0o640)
    said = operator("set-weight", "b=10.25", "--why", "b: ran a day", "--by", "jo")
    assert "5.25 % of keys move" in said
    assert "version 8 is in force" in said
    text = operator.file.read_text()
    assert "weights: {a: 89.75, b: 10.25}   # percent" in text
    assert 'change: {by: jo, why: "b: ran a day"}' in text
    assert [line for line in before.splitlines() if line not in text.splitlines()] == [
        "version: 7   # grows",
        "  weights: {a: 95, b: 5}   # percent",
    ]
    assert stat.S_IMODE(operator.file.stat().st_mode) == 0o640
    assert operator.weights() == {"a": 89.75, "b": 10.25}

    newest = operator("history", "-n", "2").splitlines()[1].split("\t")
    assert (newest[0], newest[2], newest[4], newest[5]) == ("*", "version 8", "jo", "b: ran a day")

    assert "version 9 is in force" in operator("rollback", "--by", "jo")
    assert operator.weights() == {"a": 95.0, "b": 5.0}
    assert 'change: {by: jo, why: "rollback to version 7"}' in operator.file.read_text()
    assert "version 10 is in force" in operator("rollback", "8", "--why", "b was right")
    assert operator.weights() == {"a": 89.75, "b": 10.25}
    assert "5.25 % of keys move" in operator("diff", "9", "10")
    assert operator("diff", "live", str(operator.file)) == "this changes nothing that a router does\n"
    missing = operator.complaint("rollback", "99", code=exits.NO_INPUT)
    assert "known: 10, 9, 8, 7" in missing


def test_a_drained_set_is_taken_back(operator: Operator) -> None:
    operator("drain", "b", "--why", "kernel")
    status = operator.json("status")["sets"]
    assert (status["b"]["state"], status["b"]["effective_weight"], status["a"]["effective_weight"]) == (
        "drain",
        0.0,
        100.0,
    )
    assert "   # the new one" in operator.file.read_text()
    refused = operator.complaint("drain", "a", code=exits.DATA)
    assert "no set would take new requests of the default weights" in refused
    operator("drain", "a", "--force")
    operator("maint", "a", "--force")
    operator("ready", "a")
    operator("ready", "b")
    assert {each["state"] for each in operator.json("status")["sets"].values()} == {"ready"}


def test_a_rules_weights_are_set_too(operator: Operator) -> None:
    operator("set-weight", "b=80", "--rule", "early")
    assert "weights: {a: 20, b: 80}}" in operator.file.read_text()
    assert operator.weights() == {"a": 95.0, "b": 5.0}
    assert "did you mean 'early'" in operator.complaint(
        "set-weight", "b=80", "--rule", "earli", code=exits.DATA
    )


def test_what_is_so_already_makes_no_version(operator: Operator) -> None:
    before = operator.file.read_text()
    for command in (["set-weight", "b=5"], ["ready", "b"]):
        done = operator.run(*command)
        assert done.returncode == 0
        assert b"already says so" in done.stderr
    assert operator.file.read_text() == before


def test_a_dry_run_shows_the_lines_and_changes_nothing(operator: Operator) -> None:
    operator("set-weight", "b=4")  # Something to go back to.
    operator("set-weight", "b=5")
    before = operator.file.read_text()
    said = operator("set-weight", "b=6", "--dry-run")
    assert "-  weights: {a: 95, b: 5}   # percent" in said
    assert "+  weights: {a: 94, b: 6}   # percent" in said
    operator("rollback", "--dry-run")
    assert operator.file.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["set-weight", "b=101"], exits.USAGE, "must look like b=10"),
        (["set-weight", "b=1.005"], exits.USAGE, "two decimals"),
        (["set-weight", "b=-1"], exits.USAGE, "must look like b=10"),
        (["set-weight", "b"], exits.USAGE, "must look like b=10"),
        (["set-weight", "b=1", "b=2"], exits.USAGE, "given twice"),
        (["set-weight", "c=1"], exits.DATA, "no set 'c'"),
        (["set-weight", "a=60", "b=50"], exits.DATA, "more than 100"),
        (["set-weight", "a=10", "b=10"], exits.DATA, "no other set has a weight"),
        (["drain", "c"], exits.DATA, "no set 'c'"),
        (["set-weight", "b=1", "--why", "x" * 501], exits.DATA, "500 characters"),
        (["set-weight", "b=1", "--file", "/nonexistent"], exits.DATA, "cannot be read"),
        (["rollout", "pause"], exits.TRY_AGAIN, "Not possible now"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    operator: Operator, arguments: list[str], code: int, says: str
) -> None:
    before = operator.file.read_text()
    assert says in " ".join(operator.complaint(*arguments, code=code).split())
    assert operator.file.read_text() == before


def test_a_broken_file_is_put_right_by_going_back_to_what_is_live(operator: Operator) -> None:
    good = operator.file.read_text()
    operator.file.write_text(good + "broken: [")
    said = operator.complaint("set-weight", "b=1", code=exits.CONFIG)
    assert "line 11, column" in said
    assert "rollback live" in said
    assert operator.file.read_text() == good + "broken: ["
    operator("rollback", "live")
    assert "broken" not in operator.file.read_text()
    assert operator.json("status")["config_error"] is None


@pytest.mark.parametrize("named", [False, True])
def test_a_removed_file_is_put_back(operator: Operator, *, named: bool) -> None:
    operator("set-weight", "b=7")
    operator.file.unlink()
    words = ["--file", str(operator.file)] if named else []
    assert "+  weights: {a: 93, b: 7}   # percent" in operator("rollback", "live", "--dry-run", *words)
    assert not operator.file.exists()
    if not named:
        assert "`gcompute router rollback live`" in operator.complaint("set-weight", "b=8", code=exits.USAGE)
    assert "is in force" in operator("rollback", "live", *words)
    assert operator.weights() == {"a": 93.0, "b": 7.0}
    assert "# the new one" in operator.file.read_text()


def test_two_commands_at_once_both_count(operator: Operator) -> None:
    program = Program("http://127.0.0.1:1")
    started = [
        program.start("router", *command, env=operator.environment)
        for command in (["set-weight", "b=20"], ["drain", "b"], ["set-weight", "b=60", "--rule", "early"])
    ]
    for process in started:
        out, err = process.communicate(timeout=40)
        assert process.returncode == 0, (out, err)
    text = operator.file.read_text()
    assert "weights: {a: 80, b: 20}   # percent" in text
    assert "weights: {a: 40, b: 60}}" in text
    assert "state: drain" in text
    assert "version: 10 " in text


def test_a_file_that_the_router_does_not_read_is_edited_all_the_same(
    operator: Operator, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(FILE.format(port=1))
    done = operator.run("set-weight", "b=50", "--file", str(other))
    assert done.returncode == 0
    assert b"reads another file" in done.stderr
    assert "weights: {a: 50, b: 50}   # percent" in other.read_text()
    assert operator.weights() == {"a": 95.0, "b": 5.0}


def test_the_history_of_a_router_that_is_away_can_be_read_and_rolled_back(
    operator: Operator, gcompute: Program, tmp_path: Path
) -> None:
    operator("set-weight", "b=15")
    state = operator.file.parent / "state"
    nobody = {"GC_ADMIN_URL": f"http://127.0.0.1:{free_port()}"}
    done = gcompute("router", "history", "--state-dir", str(state), env=nobody)
    assert b"set-weight b=15" in done.stdout
    copy = tmp_path / "copy.yaml"
    copy.write_text("broken: [")
    done = gcompute("router", "rollback", "7", "--state-dir", str(state), "--file", str(copy), env=nobody)
    assert done.returncode == 0, done.stderr
    assert b"cannot tell whether it is in force" in done.stderr
    assert "weights: {a: 95, b: 5}   # percent" in copy.read_text()
