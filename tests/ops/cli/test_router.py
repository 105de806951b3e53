"""`gcompute router …` as operators run it: real processes, a real router, a real file."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.cli import exits
from tests.ops.cli.conftest import ROOT, Program
from tests.ports import free_port

TOKEN = "0123456789abcdef0123456789abcdef"
FILE = """\
# the release
version: 7   # grows
sets:
  a: {{url: "http://127.0.0.1:{port}", state: ready}}   # the old one
  b: {{url: "http://127.0.0.1:{port}", state: ready}}   # the new one
rules:
  - {{name: early, when: {{account: acme}}, weights: {{a: 50, b: 50}}}}
default:
  weights: {{a: 95, b: 5}}   # percent
rollout: {{set: b, steps: [{{weight: 10, hold: 10m}}]}}
"""


class FakeSet(BaseHTTPRequestHandler):
    """Answers everything with 200; its health check says that it is full."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {
            "build": "0.1.0+abc",
            "cores": 2,
            "cores_busy": 2,
            "tasks_waiting": 10,
            "oldest_wait_seconds": 75,
        }
        body = json.dumps(told).encode() if self.path == "/readyz" else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Operator:
    """Somebody at the command line, beside a router that reads `file`."""

    def __init__(self, program: Program, file: Path, port: int, admin_port: int) -> None:
        self._program = program
        self.file = file
        self.port = port
        self.admin_url = f"http://127.0.0.1:{admin_port}"
        self.environment = {"GC_ADMIN_URL": self.admin_url, "COLUMNS": "160"}

    def __call__(self, *args: str, code: int = 0, stdin: bytes = b"") -> str:
        """Run `gcompute router …`; its standard output."""
        done = self.run(*args, stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout.decode()

    def run(self, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self._program("router", *args, stdin=stdin, env=self.environment)

    def complaint(self, *args: str, code: int) -> str:
        """Run what must fail; its standard error."""
        done = self.run(*args)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stderr.decode()

    def json(self, *args: str) -> dict[str, Any]:
        return dict(json.loads(self(*args, "--json")))

    def weights(self) -> dict[str, float]:
        """As the router has them in force."""
        return {name: each["weight"] for name, each in self.json("status")["sets"].items()}


@contextmanager
def routing(folder: Path, *options: str) -> Iterator[Operator]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), FakeSet)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    file = folder / "router.yaml"
    file.write_text(FILE.format(port=served.server_address[1]))
    port, admin_port = free_port(), free_port()
    command = [
        *(sys.executable, "-m", "ops.cli.main", "router", str(file), "--state-dir", str(folder / "state")),
        *("--bind", f"127.0.0.1:{port}", "--admin-bind", f"127.0.0.1:{admin_port}", *options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/livez", timeout=5):
                    break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield Operator(Program("http://127.0.0.1:1"), file, port, admin_port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        served.shutdown()
        served.server_close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with routing(tmp_path_factory.mktemp("router")) as operator:
        yield operator


@pytest.fixture
def operator(shared: Operator) -> Operator:
    """A router that has the first version in force again."""
    wanted = FILE.format(port=shared.file.read_text().partition("127.0.0.1:")[2].partition('"')[0])
    if shared.file.read_text() != wanted:
        shared.file.write_text(wanted)
        deadline = time.monotonic() + 10
        while (status := shared.json("status"))["version"] != 7 or status["config_error"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    return shared


# Looking.


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


# Changing.


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


# The rollout, and the token.


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
