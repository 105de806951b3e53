"""The local stack for real: up, up again, something killed, up, down; and nothing left of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.local.parts import Ports
from ops.local.stack import Stack
from ops.setup import processes
from ops.setup.engine import ROOT, PrivateEngine
from ops.setup.errors import StackFailed
from tests.ports import free_port

pytestmark = pytest.mark.docker


def free_ports() -> Ports:
    """Four ports that nobody uses."""
    return Ports(free_port(), free_port(), free_port(), free_port())


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of a checkout of its own, on an engine of its own: the developer's is not touched."""
    root = Path(tempfile.mkdtemp(prefix="gcs"))
    (root / "ops").mkdir()
    shutil.copytree(ROOT / "ops/local", root / "ops/local")
    private = PrivateEngine(root)
    private.start()
    monkeypatch.setenv("DOCKER_HOST", private.layout.host)
    stack = Stack(free_ports(), root)
    yield stack
    stack.down()
    shutil.rmtree(root)


def pids(stack: Stack) -> dict[str, int]:
    return {part.name: part.pid for part in stack.parts}


def load_small_image(stack: Stack, folder: Path) -> None:
    """An image of one static program, compiled here: a build would need a base image."""
    root = folder / "image"
    root.mkdir()
    source = ROOT / "ops/images/ncat/ncat.c"
    flags = ("-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector")
    subprocess.run(["cc", *flags, "-o", root / "ncat", source], check=True)
    archive = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True).stdout
    command = ["docker", "import", "-c", 'ENTRYPOINT ["/ncat"]', "-", "ncat:1"]
    subprocess.run(command, input=archive, check=True, capture_output=True)


def listed_containers() -> set[str]:
    listed = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=True).stdout
    return set(listed.split())


def run_small_task(stack: Stack) -> bytes:
    request = urllib.request.Request(f"{stack.ports.router_url}/v1/run/ncat:1", data=b"through all of it")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def test_up_is_idempotent_mends_what_died_and_down_leaves_nothing(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not stack.runs
    stack.up()
    assert stack.is_up()
    engine = f"DOCKER_HOST={os.environ['DOCKER_HOST']}"
    router = f"GC_URL={stack.ports.router_url} GC_ADMIN_URL=http://127.0.0.1:{stack.ports.admin}"
    assert f"export {engine} {router}\n" in capsys.readouterr().err, (
        "as neither docker nor gcompute looks there"
    )
    load_small_image(stack, tmp_path)
    assert run_small_task(stack) == b"through all of it"

    first = pids(stack)
    stack.up()
    assert pids(stack) == first

    os.kill(first["set-a"], signal.SIGKILL)
    os.kill(first["router"], signal.SIGKILL)
    assert processes.wait_until(lambda: not (pids(stack)["set-a"] or pids(stack)["router"]), 10)
    stack.up()
    assert stack.is_up()
    assert pids(stack)["set-b"] == first["set-b"]
    assert pids(stack)["set-a"] != first["set-a"]
    assert run_small_task(stack) == b"through all of it"

    stack.down()
    assert pids(stack) == {"set-a": 0, "set-b": 0, "router": 0}
    assert all(part.all_pids() == [] for part in stack.parts)
    assert processes.marked(str(stack.parts[0].root)) == []
    stack.down()


def test_up_after_a_pull_restarts_the_sets_in_turn_and_no_request_is_lost(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.up()
    load_small_image(stack, tmp_path)
    before = pids(stack)
    pulled = Stack(stack.ports, stack.parts[0].root, checkout_with_newer_sets(tmp_path / "pulled"))
    capsys.readouterr()

    over = threading.Event()
    answers: list[bytes] = []
    client = threading.Thread(target=lambda: answers.extend(run_until(over, stack)))
    client.start()
    try:
        pulled.up()
    finally:
        over.set()
        client.join()

    assert set(answers) == {b"through all of it"}
    said = capsys.readouterr().err
    assert [name for name in before if f"{name} runs older code" in said] == ["set-a", "set-b"]
    after = pids(stack)
    assert after["set-a"] != before["set-a"]
    assert after["set-b"] != before["set-b"]
    assert after["router"] == before["router"]

    pulled.up()
    assert pids(stack) == after, "nothing is outdated any longer"


def checkout_with_newer_sets(folder: Path) -> Path:
    """Make what `git pull` leaves when only the sets' code has changed."""
    (folder / "sets").mkdir(parents=True)
    (folder / "sets/app.py").write_text("NEWER = True\n")
    for name in ("router", "requirements"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def run_until(over: threading.Event, stack: Stack) -> Iterator[bytes]:
    """Run one task after another; raises if one fails."""
    while not over.is_set():
        yield run_small_task(stack)


def test_up_moves_to_other_ports(stack: Stack) -> None:
    stack.up()
    before = pids(stack)
    moved = Stack(free_ports(), stack.parts[0].root)
    moved.up()
    assert moved.is_up()
    assert not set(pids(moved).values()) & set(before.values())


def test_slots_of_killed_sets_are_removed(stack: Stack, tmp_path: Path) -> None:
    stack.up()
    load_small_image(stack, tmp_path)
    run_small_task(stack)
    for part in stack.parts:
        for pid in part.all_pids():
            os.kill(pid, signal.SIGKILL)
    stack.down(keep_engine=True)
    assert listed_containers() == set()


def test_two_stacks_on_one_engine_leave_each_others_slots_alone(stack: Stack, tmp_path: Path) -> None:
    root = Path(tempfile.mkdtemp(prefix="gcs"))
    (root / "ops").mkdir()
    shutil.copytree(ROOT / "ops/local", root / "ops/local")
    second = Stack(free_ports(), root)
    try:
        stack.up()
        load_small_image(stack, tmp_path)
        assert run_small_task(stack) == b"through all of it"
        slots = listed_containers()
        assert len(slots) == 1
        second.up()
        assert run_small_task(second) == b"through all of it"
        assert slots < listed_containers()
        for part in second.parts:
            for pid in part.all_pids():
                os.kill(pid, signal.SIGKILL)
        second.down()
        assert listed_containers() == slots
        assert run_small_task(stack) == b"through all of it"
    finally:
        second.down()
        shutil.rmtree(root)


def test_a_part_that_cannot_start_is_told_with_the_end_of_its_log(stack: Stack) -> None:
    (stack.parts[0].root / "ops/local/set-a.yaml").write_text("name: a\nno_such_setting: 1\n")
    with pytest.raises(StackFailed, match=r"(?s)set-a did not become ready: it ended.*no_such_setting"):
        stack.up()
