"""`gcompute router rollout …`, with a real router and a real file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cli import exits
from tests.ops.cli.program import Program
from tests.ops.cli.routers import Operator, routing
from tests.ports import free_port


def test_a_rollout_is_started_paused_resumed_and_aborted(operator: Operator) -> None:
    assert "no rollout yet" in operator("rollout", "status")
    ahead = operator("rollout", "plan")
    assert "a start would release b, compared with a" in ahead
    assert "  1. 10 % for 10 min: a 90 %, b 10 %; " in ahead
    assert "errors: aborts above control by 2 points; if everything fails, after " in ahead
    assert operator.json("rollout", "plan")["steps"][0]["hold_s"] == 600
    started = operator("rollout", "start", "--by", "jo", "--why", "new model")
    assert started.index("a start would release b") < started.index("rollout of b: ")
    assert "is under way" in operator.complaint("rollout", "plan", code=exits.TRY_AGAIN)
    elsewhere = operator.complaint("rollout", "skip", "--if-step", "2", code=exits.TRY_AGAIN)
    assert "given for step 2, but by now the rollout of b is holding, at step 1 of 1" in elsewhere
    operator.complaint("rollout", "abort", "--if-phase", "paused", code=exits.TRY_AGAIN)
    assert operator.json("rollout", "pause")["phase"] == "paused"
    remark = operator.run("status").stderr.decode()
    assert "the rollout of b is paused, step 1 of 1, at 10 %" in remark
    assert operator.json("rollout", "resume")["phase"] != "paused"
    aborted = operator.json("rollout", "abort", "--at-once", "--why", "enough")
    assert aborted["phase"] not in ("holding", "waiting", "paused")
    assert "enough" in operator("rollout", "status")


def start_rollout(operator: Operator, *, then: str = "") -> None:
    """b at 10 % by the rollout, of which nothing is left in the state from tests before."""
    # Refused where the leader learns only now of weights edited within the last second.
    if operator.run("rollout", "start").returncode == exits.TRY_AGAIN:
        operator("rollout", "start")
    if then:
        operator("rollout", then)


@pytest.fixture
def release(operator: Operator) -> Iterator[Operator]:
    yield operator
    if operator.json("rollout", "status")["phase"] not in ("idle", "done", "aborted"):
        operator("rollout", "abort", "--at-once", "--force")
    # Refused where edited weights took its place already.
    operator.run("rollout", "end")


def test_the_file_s_own_weight_can_be_had_back_after_an_abort(release: Operator) -> None:
    operator = release
    start_rollout(operator)
    assert "already says so, but the rollout of b, which is holding, has b at 10 %" in operator.complaint(
        "set-weight", "b=5", code=exits.TRY_AGAIN
    )
    assert "the file says 5 %: `gcompute router set-weight b=0` writes" in operator(
        "rollout", "abort", "--at-once"
    )
    dry = operator("set-weight", "b=5", "--dry-run")
    assert "5 % of keys move" in dry
    assert operator.json("rollout", "status")["now"] == 0.0
    assert "that rollout was ended" in operator("set-weight", "b=5", "--by", "jo")
    shown = operator.json("rollout", "status")
    assert (shown["phase"], shown["now"], shown["events"][-1]["by"]) == ("idle", 5.0, "jo")
    assert operator("rollout", "status").startswith("no rollout; the file's weights are in force")
    assert "version: 7 " in operator.file.read_text()
    assert "already says so; nothing was changed" in operator.run("set-weight", "b=5").stderr.decode()


def test_what_was_taken_back_is_not_raised_by_another_set_s_weight(release: Operator) -> None:
    start_rollout(release)
    release("rollout", "abort", "--at-once")
    release("set-weight", "a=60", "b=40")
    start_rollout(release)
    release("rollout", "abort", "--at-once")
    release.complaint("set-weight", "a=90", code=exits.DATA)
    assert release.json("status")["sets"]["b"]["effective_weight"] == 0.0


def test_whoever_looks_at_a_set_that_was_taken_back_reads_what_readmits_it(release: Operator) -> None:
    start_rollout(release)
    release("rollout", "abort", "--at-once", "--why", "enough")
    barred = "b gets no new request, by weight or rule, since its rollout was aborted ("
    readmits = "`gcompute router rollout end` readmits it"
    for told in (release("rollout", "status"), release.run("status").stderr.decode()):
        assert barred in told
        assert readmits in told
    row = next(line for line in release("status").splitlines() if line.startswith("b\t"))
    assert row.split("\t")[2] == "barred"
    ready = release.run("ready", "b").stderr.decode()
    assert "already says so; nothing was changed" in ready
    assert f"ATTENTION: {barred}" in ready
    assert f"{readmits}; `ready` does not" in ready
    assert "no new request" not in release.run("ready", "a").stderr.decode()
    assert "no new request" not in release("rollout", "end")
    assert "no new request" not in release.run("status").stderr.decode()


def test_shares_that_move_are_those_in_force(release: Operator) -> None:
    start_rollout(release, then="skip")
    done = release("rollout", "status")
    assert "rollout of b: done, step 1 of 1, at 10 %" in done
    live = release.run("diff", "live", str(release.file))
    assert b"this changes nothing that a router does" in live.stdout
    assert b"which is done, has b at 10 %; that stays" in live.stderr
    assert "this changes nothing that a router does\nsaved" in release("set-weight", "b=10")
    assert release.weights() == {"a": 90.0, "b": 10.0}


def test_a_drain_asks_who_has_work_now_and_says_so_before(release: Operator) -> None:
    release("set-weight", "b=0")
    start_rollout(release)
    said = release("drain", "a")
    assert said.index("90 % of keys move") < said.index("saved ")
    refused = release.complaint("drain", "b", code=exits.DATA)
    assert "no set would take new requests of the default weights" in refused
    aborted = release.complaint("rollout", "abort", code=exits.TRY_AGAIN)
    assert "only a would take over from 'b'" in aborted
    assert release.json("rollout", "abort", "--force")["now"] == 0.0
    release("ready", "a")
    release.complaint("drain", "a", code=exits.DATA)


def test_a_rollback_that_does_not_stop_a_rollout_says_so(release: Operator) -> None:
    release("set-weight", "b=5", "a=95", "--rule", "early")
    start_rollout(release)
    said = release.run("rollback").stderr.decode()
    assert "ATTENTION: the rollout of b, which is holding, has b at 10 %" in said
    assert "does NOT stop it. `gcompute router rollout abort` takes b back" in said
    assert release.json("rollout", "status")["now"] == 10.0


def test_a_changed_plan_is_told(release: Operator) -> None:
    start_rollout(release)
    assert "plan has changed" not in release("rollout", "status")
    release.file.write_text(
        release.file.read_text().replace("hold: 10m", "hold: 20m").replace("version: 7", "version: 8")
    )
    deadline = time.monotonic() + 10
    while release.json("status")["version"] != 8:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "plan has changed since the start; this rollout keeps the old plan" in release("rollout", "status")


def test_a_rollout_of_a_router_that_is_dead_is_aborted_in_its_folder(
    gcompute: Program, tmp_path: Path
) -> None:
    nobody = {"GC_ADMIN_URL": f"http://127.0.0.1:{free_port()}"}
    state = tmp_path / "state"
    with routing(tmp_path) as operator:
        operator("rollout", "start")

    def order(*words: str, code: int = 0) -> str:
        done = gcompute("router", "rollout", *words, "--state-dir", str(state), env=nobody)
        assert done.returncode == code, (done.stdout, done.stderr)
        return (done.stdout + done.stderr).decode()

    assert "rollout of b: holding, step 1 of 1, at 10 %" in order("status")
    assert "give --name" in order("status", "--name", "other", code=exits.USAGE)
    assert "only if" not in order("pause", "--if-step", "2", code=exits.TRY_AGAIN)
    assert "rollout of b: aborted, step 1 of 1, at 0 %" in order("abort", "--at-once", "--by", "jo")
    with routing(tmp_path) as operator:
        shown = operator.json("rollout", "status")
        assert (shown["phase"], shown["now"]) == ("aborted", 0.0)
        assert shown["events"][-2]["by"] == "jo"


def test_the_help_of_status_says_that_it_reads_the_folder_and_of_orders_that_they_write(
    gcompute: Program,
) -> None:
    about_status = " ".join(gcompute("router", "rollout", "status", "--help").stdout.decode().split())
    assert "Read this --state-dir of a router" in about_status
    assert "Write the order" not in about_status
    about_pause = " ".join(gcompute("router", "rollout", "pause", "--help").stdout.decode().split())
    assert "Write the order into this --state-dir" in about_pause
