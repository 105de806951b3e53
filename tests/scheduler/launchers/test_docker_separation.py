"""What separates slots: told at the start, and warned of where there are more than the engine can keep apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from scheduler.errors import EngineUnfit
from scheduler.launchers.docker_config import DockerSettings, EngineFacts
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.docker_separation import Separation, epoll_watches_wanted, signals_of_all_slots

CONTAINER = {"Id": "c0ffee", "State": {"Pid": 7}}
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             96364                96364                processes
Max pending signals       {0:<20} {0:<20} signals
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A container's process 7, started by process 5 in two commands' time."""
    for pid in ("5", "7"):
        (tmp_path / pid).mkdir()
    (tmp_path / "7/cgroup").write_text("3:memory:/docker/c0ffee\n")
    (tmp_path / "7/stat").write_text("7 (a ) b) S 5 7 7 0 -1")
    (tmp_path / "5/limits").write_text(LIMITS.format("96364"))
    (tmp_path / "sys/fs/epoll").mkdir(parents=True)
    (tmp_path / "sys/fs/epoll/max_user_watches").write_text("8388608\n")
    (tmp_path / "meminfo").write_text("MemTotal:        1048576 kB\nMemFree:          524288 kB\n")
    return tmp_path


def test_the_limit_is_that_of_the_process_that_started_the_container(proc: Path) -> None:
    assert signals_of_all_slots(CONTAINER, proc) == 96364


def test_no_limit_or_another_machines_container_is_none(proc: Path) -> None:
    assert signals_of_all_slots({"Id": "another", "State": {"Pid": 7}}, proc) is None
    assert signals_of_all_slots({"Id": "c0ffee", "State": {"Pid": 8}}, proc) is None
    assert signals_of_all_slots({}, proc) is None
    (proc / "5/limits").write_text(LIMITS.format("unlimited"))
    assert signals_of_all_slots(CONTAINER, proc) is None


class _Engine:
    """An engine whose containers all run as process 7."""

    def __init__(self, **settings: Any) -> None:
        self.settings = DockerSettings(
            set_name="a", installation="i", guest_binary=Path("/guest"), **settings
        )
        self.inspected = 0

    async def inspect_container(self, name: str) -> dict[str, Any]:
        self.inspected += 1
        return CONTAINER


def separation(engine: _Engine, facts: EngineFacts, proc: Path, patch: pytest.MonkeyPatch) -> Separation:
    patch.setattr(
        "scheduler.launchers.docker_separation.signals_of_all_slots",
        lambda container: signals_of_all_slots(container, proc),
    )
    patch.setattr(
        "scheduler.launchers.docker_separation.epoll_watches_wanted", lambda: epoll_watches_wanted(proc)
    )
    made = Separation(cast(Engine, engine))
    made.check(facts)
    return made


async def test_the_first_slot_too_many_is_warned_of_once(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine()
    with capture_logs() as logs:
        found = separation(engine, EngineFacts(user_namespaces=True), proc, monkeypatch)
        for slots in (1, 94, 95, 96):
            if found.is_open:
                await found.slot_started("slot", slots)
    assert engine.inspected == 1
    assert [(line["event"], line.get("slots"), line.get("slots_kept_apart")) for line in logs] == [
        ("slots are kept apart", None, None),
        ("queued signals are kept apart", None, 94),
        ("queued signals are shared between slots", 95, 94),
    ]
    assert "LimitSIGPENDING of containerd" in logs[-1]["next"]
    assert "at least 1024 for each slot" in logs[-1]["next"]


async def test_a_limit_of_the_operators_own_counts(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _Engine(ulimits={"sigpending": 48_182})
    with capture_logs() as logs:
        found = separation(engine, EngineFacts(user_namespaces=True), proc, monkeypatch)
        await found.slot_started("slot", 3)
    assert (logs[-1]["event"], logs[-1]["slots_kept_apart"]) == ("queued signals are shared between slots", 2)


def test_without_namespaces_there_is_nothing_to_keep_apart(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not separation(_Engine(), EngineFacts(), proc, monkeypatch).is_open


def test_the_runtime_with_host_ids_for_each_slot_leaves_only_the_sum_of_queued_signals(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = EngineFacts(runtimes=("gcompute-runc", "runc"))
    with capture_logs() as logs:
        found = separation(_Engine(runtime="gcompute-runc"), facts, proc, monkeypatch)
    assert found.is_open
    assert (logs[0]["user_namespaces"], logs[0]["runtime"]) == (True, "gcompute-runc")
    assert logs[0]["shared_by_slots_of_one_uid"] == "none of the kernel's counters"


def test_crun_is_refused_where_it_leaves_a_folder_that_nobody_empties(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _Engine(runtime="crun")
    facts = EngineFacts(runtimes=("crun", "runc"), cgroup_version=1)
    with pytest.raises(EngineUnfit, match=r"crun leaves a slot's /sys/fs/cgroup writable.*version 2"):
        separation(engine, facts, proc, monkeypatch)
    with capture_logs() as logs:
        separation(engine, EngineFacts(runtimes=("crun",), cgroup_version=2), proc, monkeypatch)
    assert (logs[0]["event"], logs[0]["runtime"]) == ("slots are kept apart", "crun")


def test_slots_of_gvisor_have_a_kernel_each_and_share_no_counter(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        found = separation(_Engine(runtime="runsc"), EngineFacts(runtimes=("runsc",)), proc, monkeypatch)
    assert not found.is_open
    assert [line["event"] for line in logs] == ["slots are kept apart"]
    assert logs[0]["shared_by_slots_of_one_uid"] == "none of the kernel's counters"


def test_a_limit_of_epoll_watches_that_memory_cannot_reach_needs_no_warning(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert epoll_watches_wanted(proc) is None
    (proc / "sys/fs/epoll/max_user_watches").write_text("8388607\n")
    assert epoll_watches_wanted(proc) == 8_388_608
    with capture_logs() as logs:
        separation(_Engine(), EngineFacts(), proc, monkeypatch)
    assert [line["event"] for line in logs] == [
        "slots are kept apart",
        "one USER can use up the epoll watches",
    ]
    assert "sysctl -w fs.epoll.max_user_watches=8388608" in logs[-1]["next"]


def test_a_machine_that_does_not_tell_its_limit_of_watches_is_not_warned_of(tmp_path: Path) -> None:
    assert epoll_watches_wanted(tmp_path) is None


def test_a_runtime_that_the_engine_lacks_is_refused(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineUnfit, match="no runtime 'kata'; it has runc"):
        separation(_Engine(runtime="kata"), EngineFacts(runtimes=("runc",)), proc, monkeypatch)
