"""Nodes in network namespaces of their own, linked to a set by wires that are cut, delayed and lossy.

Needs root and `ip`; the lossy wire needs the kernel's netem, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.certificates.authority import Authority
from tests.conftest import ROOT

HELD_S = 60.0


def can_make_namespaces() -> str:
    """Why not; empty: it can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "namespaces need root and the program ip"
    name = f"gcprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if done.returncode:
        return f"no network namespaces here: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


pytestmark = pytest.mark.skipif(bool(why := can_make_namespaces()), reason=why or "-")


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=HELD_S)


class Wires:
    """A namespace for the set, and one for each node, each on a wire of its own to the set's."""

    def __init__(self, nodes: int) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self.home = f"gc{self.tag}set"
        self.nodes = [f"gc{self.tag}n{number}" for number in range(nodes)]
        self._made: list[str] = []

    def make(self) -> None:
        for name in (self.home, *self.nodes):
            run("ip", "netns", "add", name)
            self._made.append(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for number, node in enumerate(self.nodes):
            ours, theirs = f"w{number}", "home"
            run(
                *(
                    "ip",
                    "-n",
                    self.home,
                    "link",
                    "add",
                    ours,
                    "type",
                    "veth",
                    "peer",
                    "name",
                    theirs,
                    "netns",
                    node,
                )
            )
            run("ip", "-n", self.home, "addr", "add", f"10.77.{number}.1/24", "dev", ours)
            run("ip", "-n", node, "addr", "add", f"10.77.{number}.2/24", "dev", theirs)
            run("ip", "-n", self.home, "link", "set", ours, "up")
            run("ip", "-n", node, "link", "set", theirs, "up")

    def address(self, number: int) -> str:
        return f"10.77.{number}.2"

    def cut(self, number: int) -> None:
        """Nothing passes; both ends believe in their connection."""
        run("ip", "-n", self.home, "link", "set", f"w{number}", "down")

    def heal(self, number: int) -> None:
        run("ip", "-n", self.home, "link", "set", f"w{number}", "up")

    def spoil(self, number: int) -> None:
        """Each way: 20 ms, unevenly, so that packets overtake each other, and one of fifty is lost."""
        ends = ((self.home, f"w{number}"), (self.nodes[number], "home"))
        for name, device in ends:
            netem = ("netem", "delay", "20ms", "10ms", "loss", "2%")
            done = subprocess.run(
                ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", device, "root", *netem],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.skip(f"this kernel has no netem: {done.stderr.strip()}")

    def remove(self) -> None:
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Play:
    """`rehearse.py`, a node or a set, in a namespace: it is told what to do by lines, and says what happens."""

    def __init__(self, namespace: str, *words: str) -> None:
        self.process = subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                namespace,
                sys.executable,
                "-m",
                "tests.sets.executor.link.rehearse",
                *words,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[tuple[float, str]] = []

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def until(self, words: str) -> float:
        """When it said a line that begins so, by the clock of all processes."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            at, _, text = line.strip().partition(" ")
            self.said.append((float(at), text))
            if text.startswith(words):
                return float(at)
        raise AssertionError(f"{words!r} was never said, but {self.said}")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(HELD_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Stage:
    """One set and two nodes."""

    def __init__(self, folder: Path) -> None:
        self.wires = Wires(2)
        authority = Authority(folder / "authority")
        authority.make()
        authority.issue_to_set("a", folder / "a", 10)
        self.folder = folder
        for node in ("n0", "n1"):
            authority.issue_to_executor(node, folder / node, 10)

    def start(self) -> None:
        self.wires.make()
        self.nodes = [
            Play(name, "node", f"n{number}", str(self.folder / f"n{number}"), self.wires.address(number))
            for number, name in enumerate(self.wires.nodes)
        ]
        for node in self.nodes:
            node.until("listening")
        places = [f"n{number}={self.wires.address(number)}" for number in range(2)]
        self.home = Play(self.wires.home, "set", "a", str(self.folder / "a"), *places)
        self.home.until("2 nodes are ready")

    def stop(self) -> None:
        for play in (getattr(self, "home", None), *getattr(self, "nodes", ())):
            if play is not None:
                play.stop()
        self.wires.remove()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    try:
        stage.start()
        yield stage
    finally:
        stage.stop()


def test_a_node_that_is_cut_off_kills_before_its_tasks_are_lost_and_comes_back(stage: Stage) -> None:
    stage.home.tell("run n0")
    stage.home.tell("run n1")
    stage.nodes[0].until("running")
    stage.nodes[1].until("running")
    stage.wires.cut(0)
    lost_at = stage.home.until("lost n0")
    killed_at = stage.nodes[0].until("killed")
    assert killed_at <= lost_at, "the set could have run it elsewhere while it still ran"
    stage.wires.heal(0)
    stage.home.until("ready n0")
    stage.home.tell("run n0")
    stage.nodes[0].until("running")
    stage.nodes[0].tell("end")
    stage.home.until("ended n0")
    # The other node's link never noticed.
    stage.nodes[1].tell("end")
    stage.home.until("ended n1")
    assert not [text for _, text in stage.home.said if text == "lost n1"]


def test_links_hold_over_a_wire_that_delays_reorders_and_loses(stage: Stage) -> None:
    stage.wires.spoil(0)
    stage.home.tell("stream n0 2000000")
    stage.home.until("streamed n0 2000000")
    stage.home.tell("run n0")
    stage.nodes[0].until("running")
    stage.nodes[0].tell("end")
    stage.home.until("ended n0")


def test_a_node_that_freezes_kills_first_when_it_wakes(stage: Stage) -> None:
    stage.home.tell("run n0")
    stage.nodes[0].until("running")
    pid = stage.nodes[0].process.pid
    os.kill(pid, 19)
    try:
        stage.home.until("lost n0")
        stage.nodes[0].tell("end")
    finally:
        woken_at = time.monotonic()
        os.kill(pid, 18)
    assert stage.nodes[0].until("killed") >= woken_at
    stage.home.until("ready n0")
    assert not [text for _, text in stage.home.said if text.startswith("ended")], "a late end does not count"
