"""The commands and ports with which the local stack is started."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ops.local import sources, stack
from ops.local.parts import Part, Ports, parts_of
from ops.setup import processes
from ops.setup.errors import StackFailed
from tests.ports import free_port


def test_ports_without_variables_are_the_documented_ones() -> None:
    assert Ports.of({}) == Ports(router=8080, admin=8081, set_a=8101, set_b=8102)
    assert Ports.of({"GC_ROUTER_PORT": ""}) == Ports()


def test_each_port_has_its_variable() -> None:
    variables = {"GC_ROUTER_PORT": "1", "GC_ADMIN_PORT": "2", "GC_SET_A_PORT": "3", "GC_SET_B_PORT": "65535"}
    assert Ports.of(variables) == Ports(1, 2, 3, 65535)


@pytest.mark.parametrize("value", ["0", "65536", "http", "-1", "80 80", "٣"])
def test_what_is_no_port_is_named(value: str) -> None:
    with pytest.raises(StackFailed, match="GC_SET_B_PORT="):
        Ports.of({"GC_SET_B_PORT": value})


def test_two_parts_on_one_port_are_both_named() -> None:
    with pytest.raises(StackFailed, match="GC_ADMIN_PORT and GC_ROUTER_PORT are both 9000"):
        Ports.of({"GC_ROUTER_PORT": "9000", "GC_ADMIN_PORT": "9000"})


def test_the_router_reads_the_operators_own_file_and_is_told_other_addresses_beside_it() -> None:
    root = Path("/srv/gc")
    *_, usual = parts_of(Ports(), root)
    assert "/srv/gc/ops/local/router.yaml" in usual.command
    assert "--set-url" not in usual.command
    *_, other = parts_of(Ports(set_b=9102), root)
    assert "/srv/gc/ops/local/router.yaml" in other.command
    assert other.command[-2:] == ("--set-url", "b=http://127.0.0.1:9102")


def test_the_sets_run_their_slots_with_the_runtime_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GC_RUNTIME", raising=False)
    first, second, router = parts_of(Ports(), Path("/srv/gc"))
    assert "--runtime" not in first.command
    monkeypatch.setenv("GC_RUNTIME", "gcompute-runc")
    first, second, router = parts_of(Ports(), Path("/srv/gc"))
    assert first.command[-2:] == second.command[-2:] == ("--runtime", "gcompute-runc")
    assert "--runtime" not in router.command


def test_a_part_that_runs_with_another_runtime_is_not_as_wanted(tmp_path: Path) -> None:
    program = "import sys; sys.stdin.read()"
    words = (sys.executable, "-c", program, "set-a.yaml")
    (tmp_path / "var/run").mkdir(parents=True)
    environment = {**os.environ, "DOCKER_HOST": "unix:///engine.sock"}
    with subprocess.Popen((*words, "--runtime", "crun"), stdin=subprocess.PIPE, env=environment) as running:
        (tmp_path / "var/run/set-a.pid").write_text(str(running.pid))
        plain, same = (
            Part(tmp_path, "set-a", command, (), "") for command in (words, (*words, "--runtime", "crun"))
        )
        assert processes.wait_until(lambda: same.runs_as_wanted("unix:///engine.sock"), 30)
        assert not plain.runs_as_wanted("unix:///engine.sock")
        running.communicate()


def test_only_changed_contents_make_a_part_outdated(tmp_path: Path) -> None:
    code = tmp_path / "router/wire/head.py"
    code.parent.mkdir(parents=True)
    code.write_text("A = 1\n")
    (tmp_path / "router/notes.md").write_text("not code\n")
    before = sources.digest(tmp_path, sources.OF_ROUTER)

    os.utime(code, (1, 1))
    (tmp_path / "router/notes.md").write_text("still not code\n")
    assert sources.digest(tmp_path, sources.OF_ROUTER) == before

    code.write_text("A = 2\n")
    assert sources.digest(tmp_path, sources.OF_ROUTER) != before
    code.rename(code.with_name("foot.py"))
    code.with_name("foot.py").write_text("A = 1\n")
    assert sources.digest(tmp_path, sources.OF_ROUTER) != before, "a file's name counts, too"


def test_parts_of_two_checkouts_are_told_apart() -> None:
    ours, theirs = parts_of(Ports(), Path("/srv/gc")), parts_of(Ports(), Path("/srv/gc2"))
    marks = {part.mark for part in (*ours, *theirs)}
    assert len(marks) == 6
    assert not any(part.mark in " ".join(other.command) for part in ours for other in theirs)


def test_a_port_that_is_taken_is_told_with_its_variable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        part = Part(tmp_path, "router", ("x", "router", "y"), ((port, "GC_ROUTER_PORT"),), "")
        with pytest.raises(StackFailed, match=rf"127\.0\.0\.1:{port}.*(?s:.*)GC_ROUTER_PORT=NUMBER make up"):
            stack._check_ports(part)


def test_a_port_that_another_checkouts_stack_has_is_told_with_that_checkout(tmp_path: Path) -> None:
    program = (
        "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[2].split(':')[1]))).accept()"
    )
    port = free_port()
    words = ["/elsewhere/ops/local/set-a.yaml", f"127.0.0.1:{port}", "--end"]
    with subprocess.Popen([sys.executable, "-c", program, *words]) as other:
        try:
            assert processes.wait_until(lambda: _listens(port), 30)
            part = Part(tmp_path, "set-a", ("x", "set", "y"), ((port, "GC_SET_A_PORT"),), "")
            told = rf"taken by process {other.pid}, which runs /elsewhere/ops/local/set-a\.yaml: the stack of another"
            with pytest.raises(StackFailed, match=told):
                stack._check_ports(part)
        finally:
            other.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def test_a_full_disk_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(stack: stack.Stack) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/var/run/engine")

    monkeypatch.setattr(stack.Stack, "up", full)
    assert stack.main(["up"]) == 1
    assert capsys.readouterr().err == (
        "stack: /srv/var/run/engine: No space left on device; free some space there and try again\n"
    )


def test_down_waits_for_an_up_that_is_at_work_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "var/run").mkdir(parents=True)
    # Not capsys, which loses what a thread writes while it is read.
    said = io.StringIO()
    with (tmp_path / "var/run/lock").open("w") as lock, contextlib.redirect_stderr(said):
        fcntl.flock(lock, fcntl.LOCK_EX)
        down = threading.Thread(target=stack.Stack(Ports(), tmp_path).down)
        down.start()
        assert processes.wait_until(lambda: "waiting for it" in said.getvalue(), 60)
        assert down.is_alive()
    down.join(60)
    assert not down.is_alive()
