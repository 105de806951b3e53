"""The checks of a container engine: facts in, findings out; and the facts of the real engine."""

from __future__ import annotations

from typing import Any

import docker
import pytest

from ops.doctor import engine as judges
from ops.doctor import engine_probe
from ops.doctor.engine import PROGRAM_DESCRIPTORS, Engine, MakerLimits
from ops.doctor.finding import CannotTell, Finding, Level

GOOD: dict[str, Any] = {
    "ServerVersion": "28.2.2",
    "Driver": "overlay2",
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SwapLimit": True,
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
    "Runtimes": {"runc": {}, "crun": {}},
    "LiveRestoreEnabled": True,
    "LoggingDriver": "local",
}


def of(runtime: str | None = None, **changed: Any) -> Engine:
    return Engine({**GOOD, **changed}, runtime)


def worst(found: list[Finding]) -> Level:
    return max((each.level for each in found), key=[Level.OK, Level.WARN, Level.FAIL].index)


def test_a_good_engine_has_nothing_to_mend() -> None:
    each_one = (judges.answers, judges.user_namespaces, judges.live_restore, judges.log_driver)
    found = [judge(of()) for judge in each_one] + list(judges.walls(of("crun")))
    assert [each.level for each in found] == [Level.OK] * 5
    assert not any(each.mend for each in found)


@pytest.mark.parametrize("version", ["19.03.15", "", "strange"])
def test_an_old_engine_is_doubted(version: str) -> None:
    assert judges.answers(of(ServerVersion=version)).level is Level.WARN


def test_debians_version_is_read() -> None:
    assert judges.answers(of(ServerVersion="20.10.24+dfsg1")).level is Level.OK


@pytest.mark.parametrize(
    ("changed", "level", "words"),
    [
        ({"PidsLimit": False, "MemoryLimit": False}, Level.FAIL, "a memory limit, a limit of processes"),
        ({"SecurityOptions": []}, Level.FAIL, "no seccomp"),
        ({"SwapLimit": False}, Level.WARN, "cannot limit swap"),
    ],
)
def test_a_wall_that_the_engine_lacks_is_told(changed: dict[str, Any], level: Level, words: str) -> None:
    found = list(judges.walls(of(**changed)))
    assert worst(found) is level
    assert words in found[0].text


def test_a_runtime_that_the_engine_lacks_is_told_with_those_that_it_has() -> None:
    first, *_ = judges.walls(of("gcompute-runc"))
    assert first.level is Level.FAIL
    assert "crun, runc" in first.text


def test_a_runtime_that_leaves_cgroups_writable_is_told() -> None:
    assert worst(list(judges.walls(of("crun", CgroupVersion="2")))) is Level.OK
    first, *_ = judges.walls(of("crun", CgroupVersion="1"))
    assert (first.level, "cgroup version 1" in first.text) == (Level.FAIL, True)


def test_gvisor_without_the_way_to_the_executor_is_told() -> None:
    first, *_ = judges.walls(of("runsc", Runtimes={"runc": {}, "runsc": {"path": "runsc"}}))
    assert (first.level, "--host-uds" in first.text) == (Level.FAIL, True)
    open_to_sockets = {"path": "runsc", "runtimeArgs": ["--host-uds=open"]}
    found = list(judges.walls(of("runsc", Runtimes={"runc": {}, "runsc": open_to_sockets})))
    assert worst(found) is Level.OK


def test_slots_without_user_namespaces_are_doubted_unless_a_runtime_separates_them() -> None:
    plain = ["name=seccomp,profile=builtin"]
    assert judges.user_namespaces(of(SecurityOptions=plain)).level is Level.WARN
    assert judges.user_namespaces(of("gcompute-runc", SecurityOptions=plain)).level is Level.OK


def test_an_engine_that_ends_slots_at_its_restart_is_doubted() -> None:
    found = judges.live_restore(of(LiveRestoreEnabled=False))
    assert found.level is Level.WARN
    assert "live-restore" in found.mend
    assert judges.log_driver(of(LoggingDriver="json-file")).level is Level.WARN


def test_containerds_limits_must_do_for_all_slots() -> None:
    assert worst(list(judges.containerd(MakerLimits(96_365, 1_048_576, 90)))) is Level.OK
    assert worst(list(judges.containerd(MakerLimits(None, None, 10_000)))) is Level.OK
    (few,) = judges.containerd(MakerLimits(96_365, 1_048_576, 200))
    assert few.level is Level.WARN
    assert "LimitSIGPENDING=204800" in few.mend
    closed, _ = judges.containerd(MakerLimits(None, PROGRAM_DESCRIPTORS - 1, 10))
    assert closed.level is Level.FAIL
    assert "LimitNOFILE" in closed.mend


# The real engine.


def test_the_real_engine_tells_its_facts(docker_host: str, engine: docker.DockerClient) -> None:
    found = engine_probe.engine(docker_host, None)
    assert found.info["ServerVersion"] == engine.version()["Version"]
    assert engine_probe.data_root(found).is_dir()


def test_the_real_containerd_is_found_behind_the_engine(docker_host: str) -> None:
    found = engine_probe.engine(docker_host, None)
    limits = engine_probe.maker_limits(found, docker_host, 32)
    assert limits.open_files is None or limits.open_files >= PROGRAM_DESCRIPTORS


def test_an_engine_that_is_away_is_told() -> None:
    with pytest.raises(engine_probe.EngineAway, match="No such file"):
        engine_probe.engine("unix:///nowhere/docker.sock", None)
    with pytest.raises(CannotTell, match="ssh"):
        engine_probe.engine("ssh://host", None)


def test_options_are_read_in_both_forms() -> None:
    words = ["dockerd", "--exec-root", "/x", "--containerd=/y.sock"]
    assert engine_probe.option(words, "--exec-root") == "/x"
    assert engine_probe.option(words, "--containerd") == "/y.sock"
    assert engine_probe.option(words, "--host") is None
