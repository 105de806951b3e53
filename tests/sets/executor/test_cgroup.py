"""A slot's accounts: where the kernel keeps them on every kind of host, and how they are divided."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sets.executor.cgroup import GUEST_ALLOWANCE_US, CgroupError, CpuAccount, MemoryUse, SlotCgroup
from tests.sets.executor.conftest import FdCheck

PID = 4242
V1_OOM = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"
V2_OOM = "low 0\nhigh 0\nmax 7\noom 3\noom_kill {}\noom_group_kill 9\n"
V2_CPU = "usage_usec {}\nuser_usec 1\nsystem_usec 2\nnr_periods 3\n"


class FakeHost:
    """A /proc and the cgroup trees that it tells of, as files."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.trees = folder / "cgroup"
        self._mounts: list[str] = []
        (self.proc / "self").mkdir(parents=True)
        (self.proc / str(PID)).mkdir()
        self.stands("")
        self._write()

    def mount(self, kind: str, name: str, options: str = "rw", root: str = "/") -> Path:
        target = self.trees / name
        target.mkdir(parents=True, exist_ok=True)
        shown = str(target).replace(" ", "\\040")
        self._mounts.append(f"30 25 0:26 {root} {shown} rw,nosuid shared:9 - {kind} {kind} {options}")
        self._write()
        return target

    def stands(self, cgroups: str) -> None:
        (self.proc / str(PID) / "cgroup").write_text(cgroups)

    def put(self, path: str, text: str) -> None:
        file = self.trees / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self) -> SlotCgroup:
        return SlotCgroup(PID, self.proc)

    def _write(self) -> None:
        lines = ["22 1 254:0 / / rw,relatime - ext4 /dev/vda rw", "23 22 0:5 / /proc rw - proc proc rw"]
        (self.proc / "self/mountinfo").write_text("\n".join([*lines, *self._mounts]) + "\n")


@pytest.fixture
def host(tmp_path: Path, no_fd_leaks: FdCheck) -> FakeHost:
    return FakeHost(tmp_path / "a host")


def check(host: FakeHost, cpu: tuple[str, str], memory: tuple[str, str]) -> None:
    """The slot's accounts are these files; the text that `{}` stands in tells their format."""
    nanoseconds = cpu[1] == "{}\n"
    host.put(cpu[0], cpu[1].format(5_000_999 if nanoseconds else 5_000))
    host.put(memory[0], memory[1].format(2))
    cgroup = host.read()
    assert cgroup.cpu_us() == 5_000
    host.put(cpu[0], cpu[1].format(7_500_000 if nanoseconds else 7_500))
    assert cgroup.cpu_us() == 7_500
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False).oom_kills == 0, "what was before the slot"
    cgroup.begin_task()
    host.put(memory[0], memory[1].format(4))
    assert cgroup.end_task(prestarted=False).oom_kills == 2
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False).oom_kills == 0
    cgroup.close()
    cgroup.close()


def test_version_2_with_systemd(host: FakeHost) -> None:
    host.mount("cgroup2", "unified", "rw,nsdelegate,memory_recursiveprot")
    host.stands("0::/system.slice/docker-ab12.scope\n")
    slot = "unified/system.slice/docker-ab12.scope"
    check(host, (f"{slot}/cpu.stat", V2_CPU), (f"{slot}/memory.events", V2_OOM))


def test_version_2_with_cgroupfs(host: FakeHost) -> None:
    host.mount("cgroup2", "unified")
    host.stands("0::/docker/ab12\n")
    check(host, ("unified/docker/ab12/cpu.stat", V2_CPU), ("unified/docker/ab12/memory.events", V2_OOM))


def test_version_1_with_controllers_together_and_apart(host: FakeHost) -> None:
    host.mount("cgroup", "cpu,cpuacct", "rw,cpu,cpuacct")
    host.mount("cgroup", "memory", "rw,memory")
    host.mount("cgroup", "systemd", "rw,xattr,name=systemd")
    host.stands("5:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n")
    check(
        host,
        ("cpu,cpuacct/docker/ab/cpuacct.usage", "{}\n"),
        ("memory/docker/ab/memory.oom_control", V1_OOM),
    )


def test_a_hybrid_host_whose_controllers_are_version_1(host: FakeHost) -> None:
    host.mount("cgroup", "cpuacct", "rw,cpuacct")
    host.mount("cgroup", "memory", "rw,memory")
    host.mount("cgroup2", "unified")
    host.stands("4:memory:/docker/ab\n2:cpuacct:/docker/ab\n0::/docker/ab\n")
    host.put("unified/docker/ab/cpu.stat", V2_CPU.format(1))
    check(host, ("cpuacct/docker/ab/cpuacct.usage", "{}\n"), ("memory/docker/ab/memory.oom_control", V1_OOM))


def test_a_hybrid_host_whose_controllers_are_version_2(host: FakeHost) -> None:
    host.mount("cgroup", "systemd", "rw,name=systemd")
    host.mount("cgroup2", "unified")
    host.stands("1:name=systemd:/x\n0::/docker/ab\n")
    check(host, ("unified/docker/ab/cpu.stat", V2_CPU), ("unified/docker/ab/memory.events", V2_OOM))


@pytest.mark.parametrize("root", ["/docker/outer", "/docker/outer/"])
def test_a_set_in_a_container_that_sees_a_part_of_the_tree(host: FakeHost, root: str) -> None:
    host.mount("cgroup", "cpuacct", "rw,cpuacct", root=root)
    host.mount("cgroup", "memory", "rw,memory", root=root)
    host.stands("4:memory:/docker/outer/docker/ab\n2:cpuacct:/docker/outer/docker/ab\n")
    check(host, ("cpuacct/docker/ab/cpuacct.usage", "{}\n"), ("memory/docker/ab/memory.oom_control", V1_OOM))


@pytest.mark.parametrize("path", ["/../../docker/ab", "/..", "/docker/other/ab", "/docker/outermost"])
def test_a_cgroup_outside_of_what_is_mounted(host: FakeHost, path: str) -> None:
    root = "/" if path.startswith("/..") else "/docker/outer"
    host.mount("cgroup2", "unified", root=root)
    host.stands(f"0::{path}\n")
    with pytest.raises(CgroupError, match="run the set in the host's cgroup namespace"):
        host.read()


def test_a_host_without_the_memory_controller(host: FakeHost) -> None:
    host.mount("cgroup2", "unified")
    host.stands("0::/a\n")
    host.put("unified/a/cpu.stat", V2_CPU.format(5))
    cgroup = host.read()
    assert cgroup.cpu_us() == 5
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False) == MemoryUse(0, 0)
    cgroup.close()


@pytest.mark.parametrize("cgroups", ["", "0::/gone\n", "nonsense\n", "4:memory:/a\n"])
def test_what_cannot_be_read(host: FakeHost, cgroups: str) -> None:
    host.mount("cgroup2", "unified")
    host.stands(cgroups)
    with pytest.raises(CgroupError, match="the cgroup of process 4242 cannot be read"):
        host.read()


@pytest.mark.parametrize("text", ["", "usage_usec", "usage_usec x\n", "user_usec 5\n"])
def test_an_account_of_another_form(host: FakeHost, text: str) -> None:
    host.mount("cgroup2", "unified")
    host.stands("0::/a\n")
    host.put("unified/a/cpu.stat", text)
    with pytest.raises(CgroupError, match="cannot be read"):
        host.read()


def test_a_process_that_is_gone(host: FakeHost) -> None:
    with pytest.raises(CgroupError, match="process 7 cannot be read"):
        SlotCgroup(7, host.proc)


def test_a_slot_that_is_closed_has_no_account(host: FakeHost) -> None:
    host.mount("cgroup2", "unified")
    host.stands("0::/a\n")
    host.put("unified/a/cpu.stat", V2_CPU.format(5))
    cgroup = host.read()
    cgroup.close()
    with pytest.raises(CgroupError):
        cgroup.cpu_us()


def test_this_very_process(no_fd_leaks: FdCheck) -> None:
    """On the real kernel, whichever version it has: the account counts what is burnt here."""
    cgroup = SlotCgroup(os.getpid())
    before, own = cgroup.cpu_us(), time.process_time()
    while time.process_time() < own + 0.05:
        pass
    # The kernel may not yet have written down the running slice, a tick or two.
    assert cgroup.cpu_us() - before >= 30_000
    assert cgroup.end_task(prestarted=False).oom_kills == 0
    cgroup.close()


# -- the CPU while the next program loads


@pytest.mark.parametrize(("version", "usual", "least"), [(1, "1024\n", "2"), (2, "100\n", "1")])
def test_a_slot_between_two_tasks_takes_the_least_of_the_cpu(
    host: FakeHost, version: int, usual: str, least: str
) -> None:
    if version == 1:
        host.mount("cgroup", "cpu", "rw,cpu,cpuacct")
        host.stands("2:cpu,cpuacct:/s\n")
        host.put("cpu/s/cpuacct.usage", "0\n")
        weight = host.trees / "cpu/s/cpu.shares"
    else:
        host.mount("cgroup2", "unified")
        host.stands("0::/s\n")
        host.put("unified/s/cpu.stat", V2_CPU.format(0))
        weight = host.trees / "unified/s/cpu.weight"
    weight.write_text(usual)
    cgroup = host.read()
    for _ in range(2):
        cgroup.begin_task()
        assert weight.read_text().startswith(usual.strip())
        cgroup.yield_cpu()
        # A real file takes the whole text at once; this one keeps what was there behind it.
        assert weight.read_text()[: len(least)] == least
        weight.write_text(least)
    cgroup.close()


def test_a_weight_that_cannot_be_changed_stays(host: FakeHost) -> None:
    host.mount("cgroup2", "unified")
    host.stands("0::/s\n")
    host.put("unified/s/cpu.stat", V2_CPU.format(0))
    cgroup = host.read()
    cgroup.yield_cpu()
    cgroup.begin_task()
    assert not (host.trees / "unified/s/cpu.weight").exists()
    cgroup.close()


# -- memory


class FakeSlot:
    """A slot's memory files of either version, in which a kernel writes what a test says."""

    def __init__(self, host: FakeHost, version: int) -> None:
        self._host = host
        self._version = version
        if version == 1:
            host.mount("cgroup", "cpuacct", "rw,cpuacct")
            host.mount("cgroup", "memory", "rw,memory")
            host.stands("4:memory:/s\n2:cpuacct:/s\n")
            host.put("cpuacct/s/cpuacct.usage", "0\n")
        else:
            host.mount("cgroup2", "unified")
            host.stands("0::/s\n")
            host.put("unified/s/cpu.stat", V2_CPU.format(0))

    def kernel_killed(self, kills: int) -> None:
        if self._version == 1:
            self._host.put("memory/s/memory.oom_control", V1_OOM.format(kills))
        else:
            self._host.put("unified/s/memory.events", V2_OOM.format(kills))

    @property
    def peak_file(self) -> Path:
        name = "memory/s/memory.max_usage_in_bytes" if self._version == 1 else "unified/s/memory.peak"
        return self._host.trees / name

    def peak(self, kib: int) -> None:
        self.peak_file.write_text(f"{kib << 10}\n")


@pytest.fixture(params=[1, 2])
def fake_slot(host: FakeHost, request: pytest.FixtureRequest) -> FakeSlot:
    slot = FakeSlot(host, request.param)
    slot.kernel_killed(5)
    slot.peak(900)
    return slot


def test_a_kill_between_tasks_is_not_the_next_ones(host: FakeHost, fake_slot: FakeSlot) -> None:
    cgroup = host.read()
    cgroup.begin_task()
    cgroup.end_task(prestarted=False)
    fake_slot.kernel_killed(6)
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False).oom_kills == 0
    # But a program that was started ahead of its task was its task's already.
    fake_slot.kernel_killed(7)
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=True).oom_kills == 1
    # Unless it is gone, and a task starts its own.
    fake_slot.kernel_killed(8)
    assert cgroup.killed_between_tasks()
    assert not cgroup.killed_between_tasks()
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=True).oom_kills == 0
    cgroup.close()


def test_the_peak_is_reset_when_a_task_begins(host: FakeHost, fake_slot: FakeSlot) -> None:
    cgroup = host.read()
    cgroup.begin_task()
    assert fake_slot.peak_file.read_text().startswith("0"), "the kernel takes it for a reset"
    fake_slot.peak(640)
    assert cgroup.end_task(prestarted=False).peak_kib == 640
    cgroup.close()


def test_a_peak_that_cannot_be_reset_is_told_only_where_it_rose(
    host: FakeHost, fake_slot: FakeSlot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 before Linux 6.12: writing fails, and what the file says may be an earlier task's."""

    def refuse(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "pwrite", refuse)
    cgroup = host.read()
    cgroup.begin_task()
    fake_slot.peak(1000)
    assert cgroup.end_task(prestarted=False).peak_kib == 1000
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False).peak_kib == 0
    cgroup.close()


def test_a_kernel_that_keeps_no_peak(host: FakeHost, fake_slot: FakeSlot) -> None:
    fake_slot.peak_file.unlink()
    cgroup = host.read()
    cgroup.begin_task()
    assert cgroup.end_task(prestarted=False).peak_kib == 0
    cgroup.close()


# -- whose time it is


def test_the_guests_share_is_taken_off() -> None:
    account = CpuAccount(1_000)
    assert account.bill(3_000, 150) == 1_850
    assert account.bill(3_000, 0) == 0


def test_what_the_guest_reports_before_the_kernel_does_is_carried_over() -> None:
    account = CpuAccount(0)
    assert account.bill(used_us=100, guest_cpu_us=130) == 0
    assert account.bill(used_us=300, guest_cpu_us=20) == 150


def test_the_guests_time_between_tasks_is_nobodys() -> None:
    account = CpuAccount(0)
    assert account.bill(1_000, 0) == 1_000
    account.guest_used(7_000)
    assert account.bill(9_500, 0) == 1_500


def test_what_a_program_makes_the_guest_do_beyond_its_allowance_is_billed() -> None:
    account = CpuAccount(0)
    assert account.bill(1_000 + 70_000, 70_000) == 1_000 + 60_000
    account.guest_used(300_000)
    assert account.bill(71_000 + 300_000 + 500, 0) == 290_000 + 500


def test_the_clean_up_of_a_slot_that_ends_is_left_over_beyond_its_allowance() -> None:
    account = CpuAccount(0)
    account.bill(5_000, 0)
    assert account.left_over(5_000 + 9_000) == 0, "an ordinary clean-up is free"
    assert account.left_over(5_000 + 50_000) == 40_000, "also one that has not ended"
    account.guest_used(50_000)
    assert account.left_over(5_000 + 50_000) == 30_000


def test_a_program_that_waited_in_vain_is_not_billed_for_the_guests_allowance() -> None:
    account = CpuAccount(0)
    account.bill(5_000, 0)
    account.guest_used(9_000)
    assert account.left_over(5_000 + 9_000 + 2_000, waited=True) == 2_000


def test_what_a_task_spent_has_its_clean_up_and_not_that_of_the_one_before() -> None:
    account = CpuAccount(0)
    assert account.bill(5_000, 0) == account.spent_us == 5_000
    account.guest_used(60_000)
    assert account.spent_us == 55_000
    assert account.bill(5_000 + 60_000 + 1_000, 0) == 51_000, "the bill takes the clean-up later"
    assert account.spent_us == 1_000
    account.guest_used(500)
    assert account.spent_us == 1_000


@given(
    st.lists(
        st.tuples(*[st.integers(0, 10**6)] * 3, st.integers(-500, 500)),
        max_size=30,
    )
)
def test_nothing_is_billed_twice_or_dropped(tasks: list[tuple[int, int, int, int]]) -> None:
    """Whatever the kernel's lag: in the end the bills are what the programs used and made the guest use."""
    account = CpuAccount(0)
    used_us = billed_us = programs_us = written_us = 0
    for program_us, guest_us, cleaning_us, lag_us in tasks:
        programs_us += program_us
        used_us += program_us + guest_us
        written_us = max(written_us, used_us + min(0, lag_us))
        billed_us += account.bill(written_us, guest_us)
        programs_us += max(0, guest_us - GUEST_ALLOWANCE_US) + max(0, cleaning_us - GUEST_ALLOWANCE_US)
        used_us += cleaning_us
        account.guest_used(cleaning_us)
    billed_us += account.bill(used_us, 0)
    assert billed_us >= programs_us - 1
    # Only a lag that nobody used the slot long enough to catch up with is left, and never to the program's cost.
    assert account.bill(used_us + 10**9, 0) + billed_us == programs_us + 10**9


def test_version_1_has_a_limit_for_the_buffers_of_sockets(host: FakeHost) -> None:
    host.mount("cgroup", "cpu", "rw,cpuacct")
    memory = host.mount("cgroup", "memory", "rw,memory")
    host.stands("4:memory:/docker/c1\n3:cpuacct:/docker/c1\n")
    host.put("cpu/docker/c1/cpuacct.usage", "1000\n")
    host.put("memory/docker/c1/memory.oom_control", V1_OOM.format(0))
    limit = memory / "docker/c1/memory.kmem.tcp.limit_in_bytes"
    # Of a kernel without that account nothing is asked.
    host.read().close()
    assert not limit.exists()
    limit.touch()
    host.read().close()
    assert limit.read_text() == str(16 << 20)
