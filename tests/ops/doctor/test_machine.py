"""The checks of a machine: facts in, findings out; and the facts of this machine."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

import pytest

from ops.doctor import machine, machine_probe
from ops.doctor.finding import CannotTell, Finding, Level
from ops.doctor.machine import Cgroups, Processes, Watches

ALL = frozenset({"cpu", "memory", "pids", "io"})


def right(finding: Finding) -> bool:
    return finding.level is Level.OK and finding.mend == ""


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.1.0-37-amd64", (6, 1)), ("5.14.0", (5, 14)), ("6.18.44-fc-v769", (6, 18)), ("plan9", (0, 0))],
)
def test_a_kernels_version_is_read_from_its_release(release: str, version: tuple[int, int]) -> None:
    assert machine.version_of(release) == version


def test_an_old_kernel_is_doubted() -> None:
    assert right(machine.kernel("6.1.0-37-amd64"))
    assert machine.kernel("5.10.0-8").level is Level.WARN
    assert machine.kernel("plan9").level is Level.WARN


def test_epoll_watches_that_a_slot_could_take_all_of_are_told_with_the_command() -> None:
    assert right(machine.epoll_watches(Watches(200_000_000, None)))
    found = machine.epoll_watches(Watches(5_000_000, 197_469_248))
    assert found.level is Level.WARN
    assert "sysctl -w fs.epoll.max_user_watches=197469248" in found.mend


def test_processes_of_all_slots_must_leave_numbers_for_the_machine() -> None:
    assert right(machine.processes(Processes(4_194_304, 190_000, 500)))
    found = machine.processes(Processes(32_768, 190_000, 500))
    assert found.level is Level.WARN
    assert found.mend.startswith("sysctl -w kernel.pid_max=136192, ")
    both = machine.processes(Processes(32_768, 30_000, 500))
    assert "kernel.pid_max=136192 kernel.threads-max=136192" in both.mend


def test_reserved_huge_pages_are_told_with_their_file() -> None:
    assert right(machine.huge_pages({"/proc/sys/vm/nr_hugepages": 0}))
    found = machine.huge_pages({"/proc/sys/vm/nr_hugepages": 0, "/proc/sys/vm/nr_overcommit_hugepages": 7})
    assert found.level is Level.WARN
    assert "nr_overcommit_hugepages is 7" in found.text
    assert "echo 0" in found.mend


def test_a_large_receive_buffer_is_doubted() -> None:
    assert right(machine.receive_buffers(212_992))
    assert machine.receive_buffers(8 << 20).level is Level.WARN


def test_cgroups_without_a_controller_hold_no_limit() -> None:
    assert right(machine.cgroups(Cgroups(1, ALL, "5.15.0")))
    assert right(machine.cgroups(Cgroups(2, ALL, "6.12.1")))
    found = machine.cgroups(Cgroups(2, frozenset({"cpu"}), "6.12.1"))
    assert found.level is Level.FAIL
    assert "lacks memory, pids" in found.text


def test_a_kernel_that_cannot_reset_the_memory_peak_is_told() -> None:
    found = machine.cgroups(Cgroups(2, ALL, "6.1.0-37"))
    assert found.level is Level.WARN
    assert "memory_peak_kib" in found.text


def test_a_clock_that_nobody_sets_is_doubted() -> None:
    assert right(machine.clock(True))
    assert "chrony" in machine.clock(False).mend


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0.4, Level.OK, "agrees"),
        (-9.0, Level.WARN, "9 s behind set a's"),
        (300.0, Level.FAIL, "300 s ahead of"),
    ],
)
def test_clocks_are_compared(ahead_s: float, level: Level, words: str) -> None:
    found = machine.clock_against("set a", ahead_s)
    assert found.level is level
    assert words in found.text


# The facts of this machine.


def test_this_machines_facts_can_be_judged() -> None:
    assert machine_probe.release() == os.uname().release
    assert machine_probe.watches().present > 0
    assert machine_probe.processes(32).pid_max > 0
    assert machine_probe.receive_buffer() > 0
    assert machine_probe.cgroups().version in (1, 2)
    assert machine_probe.synchronised() in (True, False)


def test_numbers_come_from_files_and_a_strange_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "sys/vm").mkdir(parents=True)
    (tmp_path / "sys/vm/nr_hugepages").write_text("12\n")
    size = tmp_path / "sizes/hugepages-2048kB"
    size.mkdir(parents=True)
    (size / "nr_hugepages").write_text("3\n")
    assert list(machine_probe.huge_pages(tmp_path, tmp_path / "sizes").values()) == [12, 3]
    (size / "nr_hugepages").write_text("many\n")
    with pytest.raises(CannotTell, match="holds no number"):
        machine_probe.huge_pages(tmp_path, tmp_path / "sizes")
    with pytest.raises(CannotTell, match="does not say"):
        machine_probe.huge_pages(tmp_path / "nothing", tmp_path / "nothing")


def test_cgroup_trees_are_read_from_the_mounts(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    unified = tmp_path / "unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpu memory pids io\n")
    two = f"cgroup2 {unified} cgroup2 rw,nosuid 0 0\n"
    (tmp_path / "self/mounts").write_text(f"proc /proc proc rw 0 0\n{two}")
    assert machine_probe.cgroups(tmp_path) == Cgroups(2, ALL, os.uname().release)
    (unified / "cgroup.controllers").write_text("\n")
    one = "".join(f"cgroup /x/{each} cgroup rw,relatime,{each} 0 0\n" for each in ("cpu", "memory", "pids"))
    (tmp_path / "self/mounts").write_text(one + two)
    found = machine_probe.cgroups(tmp_path)
    assert found.version == 1
    assert {"cpu", "memory", "pids"} <= found.controllers
    (tmp_path / "self/mounts").write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(CannotTell, match="no cgroup tree"):
        machine_probe.cgroups(tmp_path)


def test_a_date_header_is_compared_with_this_clock() -> None:
    assert abs(machine_probe.seconds_ahead(formatdate(usegmt=True))) < 60
    with pytest.raises(CannotTell, match="no Date"):
        machine_probe.seconds_ahead(None)
    with pytest.raises(CannotTell, match="is no date"):
        machine_probe.seconds_ahead("yesterday")
