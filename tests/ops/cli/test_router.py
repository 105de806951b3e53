"""`gcompute router check`, `diff`, `status` and `simulate`, and the admin token, with a real router."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from ops.cli import exits
from ops.cli.command import Command
from ops.cli.router_look import check
from ops.cli.router_simulate import simulate
from router.rollout.bars import Bar
from router.rollout.record import Progress
from router.rollout.statefile import StateFile
from tests.ops.cli.program import Program
from tests.ops.cli.routers import FILE, TOKEN, Operator, routing
from tests.ports import free_port


def test_check_names_line_column_and_fix(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.format(port=1))
    done = gcompute("router", "check", str(file))
    assert done.returncode == 0
    assert b"good. Version 7, weights a 95 %, b 5 %; 2 sets, 1 rule" in done.stdout
    file.write_text(FILE.format(port=1).replace("a: 95", "a: 94.5").replace("state", "stat", 1))
    done = gcompute("router", "check", str(file))
    assert done.returncode == exits.CONFIG
    lines = done.stderr.decode().splitlines()
    assert lines[0] == f"{file}:4:34: unknown key 'stat' in set 'a'; did you mean 'state'?"
    assert lines[1].startswith(f"{file}:9:12: ")
    assert "must total exactly 100, not 99.50; add 0.50" in lines[1]
    found = json.loads(gcompute("router", "check", str(file), "--json").stdout)
    assert [(each["line"], each["column"]) for each in found["mistakes"]] == [(4, 34), (9, 12)]
    done = gcompute("router", "check", "-", stdin=b"version: [")
    assert (done.returncode, done.stderr.startswith(b"standard input:1:")) == (exits.CONFIG, True)
    assert gcompute("router", "check", str(tmp_path / "none")).returncode == exits.NO_INPUT
    assert gcompute("router", "check", str(tmp_path)).returncode == exits.NO_INPUT
    os.mkfifo(tmp_path / "pipe")  # Nobody writes to it.
    done = gcompute("router", "check", str(tmp_path / "pipe"))
    assert done.returncode == exits.NO_INPUT
    assert b"not a regular file" in done.stderr


def test_check_warns_of_what_is_hardly_meant(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.format(port=1) + "health: {interval: 1s, timeout: 2s}\n")
    done = gcompute("router", "check", str(file))
    assert done.returncode == 0
    assert b"warning: a health check may take 2 s" in done.stderr
    found = json.loads(gcompute("router", "check", str(file), "--json").stdout)
    assert found["ok"]
    same_url, slow_check = found["warnings"]
    assert "same url" in same_url
    assert "health check" in slow_check


ROLLOUT = """rollout:
  set: b
  steps: [{weight: 10, hold: 10m}, {weight: 50, hold: 10m}]
  abort_when: {error_rate_over_baseline: 1%}
"""


def test_check_says_what_a_rollout_lets_through_and_how_long_it_takes(
    gcompute: Program, tmp_path: Path
) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.partition("rollout:")[0].format(port=1) + ROLLOUT)
    said = gcompute("router", "check", str(file)).stdout.decode()
    assert "a canary passes within its margins: up to 1 point more errors than control" in said
    assert "at 1 requests/s of all sets" in said
    assert "enough to judge after 18 min 40 s" in said
    said = gcompute("router", "check", str(file), "--rate", "100").stdout.decode()
    assert "enough to judge after 11 s" in said
    found = json.loads(gcompute("router", "check", str(file), "--json").stdout)
    assert (found["rollout"]["set"], found["barred"]) == ("b", [])


def test_check_names_sets_that_a_rollout_took_back(gcompute: Program, tmp_path: Path) -> None:
    file, folder = tmp_path / "r.yaml", tmp_path / "state" / "r1.rollout"
    file.write_text(FILE.partition("rollout:")[0].format(port=1) + ROLLOUT)
    StateFile(folder).change(lambda _: Progress(barred={"b": Bar(1e9, "errors: surely more than allowed")}))
    done = gcompute("router", "check", str(file), "--state-dir", str(tmp_path / "state"), "--name", "r1")
    assert b"set b gets no new request since its rollout was aborted (errors: surely more" in done.stdout


def test_diff_of_two_files_needs_no_router(gcompute: Program, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(FILE.format(port=1))
    new.write_text(FILE.format(port=1).replace("{a: 95, b: 5}", "{a: 90, b: 10}"))
    done = gcompute("router", "diff", str(old), str(new))
    assert done.stdout.decode().splitlines() == [
        "requests that no rule matches: 5 % of keys move",
        "SET\tBEFORE\tAFTER\tCOME\tGO",
        "a\t95 %\t90 %\t\t5 %",
        "b\t5 %\t10 %\t5 %\t",
    ]
    assert gcompute("router", "diff", str(old), str(new), "--exit-code").returncode == 1
    assert gcompute("router", "diff", str(old), str(old), "--exit-code").returncode == 0
    new.write_text("broken: [")
    done = gcompute("router", "diff", str(old), str(new))
    assert (done.returncode, b"new.yaml:" in done.stderr) == (exits.CONFIG, True)
    assert gcompute("router", "diff", str(old), str(tmp_path / "none")).returncode == exits.NO_INPUT


def test_status_is_a_table_of_the_sets(operator: Operator) -> None:
    for _ in range(5):
        urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/x", timeout=10).read()
    heading, *rows = operator("status").splitlines()
    assert heading.split("\t")[:6] == ["SET", "BUILD", "STATE", "HEALTH", "WEIGHT", "NOW"]
    assert [row.split("\t")[:6] for row in rows] == [
        ["a", "0.1.0+abc", "ready", "up", "95 %", "95 %"],
        ["b", "0.1.0+abc", "ready", "up", "5 %", "5 %"],
    ]
    document = operator.json("status")
    assert sum(each["answers"] for each in document["sets"].values()) >= 5


def test_status_goes_on_with_watch(operator: Operator) -> None:
    program = Program("http://127.0.0.1:1")
    with program.start(
        "router", "status", "--watch", "--interval", "0.2", env=operator.environment
    ) as process:
        assert process.stdout is not None
        headings = 0
        while headings < 3:
            headings += process.stdout.readline().startswith(b"SET\t")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_without_a_router_it_is_said_where_none_answers(gcompute: Program) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for command in (["status"], ["history"], ["rollback"], ["set-weight", "b=1"], ["rollout", "status"]):
        done = gcompute("router", *command, "--admin", url)
        assert done.returncode == exits.UNAVAILABLE
        assert f"no router answers at {url}".encode() in done.stderr
        assert b"hint: " in done.stderr
    assert gcompute("router", "status", "--admin", "nonsense").returncode == exits.USAGE


def test_a_release_is_played_through_without_a_router(gcompute: Program, tmp_path: Path) -> None:
    listed = gcompute("router", "simulate", "--list").stdout.decode()
    assert "errors\ta canary that begins to fail" in listed
    rows = gcompute("router", "simulate", "errors").stdout.decode().splitlines()
    assert rows[0].startswith("AT\tPHASE\tSTEP\tWEIGHTS")
    assert "aborted" in rows[-1]
    assert "b 0 %" in rows[-1]
    documents = gcompute("router", "simulate", "--json", "--duration", "60").stdout.splitlines()
    assert json.loads(documents[-1])["phase"] == "holding"
    file = tmp_path / "r.yaml"
    file.write_text(FILE.format(port=1))
    played = gcompute("router", "simulate", "--file", str(file), "--duration", "120").stdout.decode()
    assert "a 90 % b 10 %" in played
    file.write_text(FILE.format(port=1).partition("rollout:")[0])
    done = gcompute("router", "simulate", "--file", str(file))
    assert (done.returncode, b"no `rollout` section" in done.stderr) == (exits.DATA, True)
    assert gcompute("router", "simulate", "eror").returncode == exits.USAGE


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e99", "abc"])
@pytest.mark.parametrize("option", ["--rate", "--duration", "--every"])
def test_a_number_that_no_release_can_have_is_refused_with_the_option_s_name(option: str, value: str) -> None:
    refused = CliRunner().invoke(Command.of("simulate", simulate), [option, value])
    assert isinstance(refused.exception, SystemExit)
    assert f"Invalid value for '{option}'" in refused.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e99", "abc"])
def test_check_refuses_a_rate_that_no_router_can_have(value: str) -> None:
    refused = CliRunner().invoke(Command.of("check", check), ["router.yaml", "--rate", value])
    assert isinstance(refused.exception, SystemExit)
    assert "Invalid value for '--rate'" in refused.stderr


def test_check_and_simulate_take_no_requests_at_all(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.partition("rollout:")[0].format(port=1) + ROLLOUT)
    none = gcompute("router", "check", str(file), "--rate", "0").stdout.decode()
    assert "it would not get through all steps by itself" in none
    assert gcompute("router", "check", str(file), "--rate", "nan").returncode == exits.USAGE
    played = gcompute("router", "simulate", "--rate", "0", "--duration", "60", "--every", "60")
    assert played.returncode == 0


def test_off_this_machine_a_router_needs_a_token(gcompute: Program, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(FILE.format(port=1))
    done = gcompute("router", str(file), "--bind", "127.0.0.1:0", "--admin-bind", "0.0.0.0:0")
    assert done.returncode == exits.CONFIG
    assert b"--admin-token-file" in done.stderr


def test_with_a_token_only_who_knows_it_is_answered(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    with routing(tmp_path, "--admin-token-file", str(token)) as operator:
        refused = operator.complaint("status", code=exits.NOT_ALLOWED)
        assert "hint: give the admin token" in refused
        assert "SET" in operator("status", "--token-file", str(token))
        operator.environment["GC_ADMIN_TOKEN"] = TOKEN
        assert "version 8 is in force" in operator("set-weight", "b=10")
        operator.environment["GC_ADMIN_TOKEN"] = "x" * 32
        operator.complaint("rollout", "start", code=exits.NOT_ALLOWED)
