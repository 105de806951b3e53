"""The limit of a slot's CPU, where the launcher leaves it to the executor: cgroup version 1 and 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from sets.executor.cgroup import CgroupError, limit_cpu
from tests.sets.executor.conftest import FdCheck
from tests.sets.executor.test_cgroup import PID, FakeHost

FOLDER = "docker/slot"


@pytest.fixture
def host(tmp_path: Path, no_fd_leaks: FdCheck) -> FakeHost:
    return FakeHost(tmp_path / "a host")


@pytest.fixture
def old(host: FakeHost) -> FakeHost:
    """Version 1, without a limit yet."""
    host.mount("cgroup", "cpu,cpuacct", "rw,cpu,cpuacct")
    host.stands(f"3:cpu,cpuacct:/{FOLDER}\n")
    host.put(f"cpu,cpuacct/{FOLDER}/cpu.cfs_quota_us", "-1\n")
    host.put(f"cpu,cpuacct/{FOLDER}/cpu.cfs_period_us", "50000\n")
    return host


@pytest.fixture
def new(host: FakeHost) -> FakeHost:
    """Version 2, without a limit yet."""
    host.mount("cgroup2", "unified")
    host.stands(f"0::/{FOLDER}\n")
    host.put(f"unified/{FOLDER}/cpu.max", "max 100000\n")
    return host


def test_a_slot_gets_its_share_of_a_core_in_version_1(old: FakeHost) -> None:
    limit_cpu(PID, 150, old.proc)
    folder = old.trees / "cpu,cpuacct" / FOLDER
    assert int((folder / "cpu.cfs_quota_us").read_text()) == 150_000
    assert int((folder / "cpu.cfs_period_us").read_text()) == 100_000


def test_a_slot_gets_its_share_of_a_core_in_version_2(new: FakeHost) -> None:
    limit_cpu(PID, 1, new.proc)
    assert (new.trees / "unified" / FOLDER / "cpu.max").read_text() == "1000 100000"


def test_a_slot_that_nothing_limits_is_refused(old: FakeHost) -> None:
    with pytest.raises(CgroupError, match="its CPU has no limit"):
        limit_cpu(PID, None, old.proc)


def test_a_slot_that_nothing_limits_is_refused_in_version_2(new: FakeHost) -> None:
    with pytest.raises(CgroupError, match="its CPU has no limit"):
        limit_cpu(PID, None, new.proc)


def test_a_slot_that_its_job_has_limited_keeps_that_limit(old: FakeHost) -> None:
    old.put(f"cpu,cpuacct/{FOLDER}/cpu.cfs_quota_us", "20000\n")
    limit_cpu(PID, None, old.proc)
    assert (old.trees / "cpu,cpuacct" / FOLDER / "cpu.cfs_quota_us").read_text() == "20000\n"


def test_a_cgroup_that_cannot_be_found_is_told(host: FakeHost) -> None:
    with pytest.raises(
        CgroupError, match="the CPU of process 4242 cannot be limited: it is not mounted here"
    ):
        limit_cpu(PID, 100, host.proc)
