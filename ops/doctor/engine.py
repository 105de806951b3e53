"""Judges of a container engine. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ops.doctor.finding import Finding, fail, ok, warn
from scheduler.launchers.hardening import DESCRIPTORS, ULIMITS

OLDEST: Final = (20, 10)
"""The oldest engine that the tests run on (Debian 12)."""
PROGRAM_DESCRIPTORS: Final = ULIMITS[DESCRIPTORS]
"""Open files that the engine must allow a guest: less, and slots do not start."""
SIGNALS_EACH: Final = ULIMITS["sigpending"]
_SEPARATE: Final = ("gcompute-runc", "kata", "runsc")
"""Runtimes under which no two slots share a counter of the kernel."""
_RESTART: Final = "systemctl restart docker"
_LIMITS: Final = {
    "MemoryLimit": "a memory limit",
    "PidsLimit": "a limit of processes",
    "CpuCfsQuota": "a CPU limit",
}


@dataclass(frozen=True)
class Engine:
    """`info` is the engine's answer to `GET /info`."""

    info: Mapping[str, Any]
    runtime: str | None
    """The OCI runtime that the set asks for; None: the engine's default."""


def answers(engine: Engine) -> Finding:
    version = str(engine.info.get("ServerVersion") or "")
    if _version(version) < OLDEST:
        return warn(f"Docker {version or 'of unknown version'}: older than 20.10", "install a newer engine")
    return ok(f"Docker {version}, storage driver {engine.info.get('Driver')}")


def walls(engine: Engine) -> Iterator[Finding]:
    """Yield what the engine cannot give a slot."""
    info = engine.info
    absent = [words for key, words in _LIMITS.items() if info.get(key) is False]
    if absent:
        yield fail(
            f"the engine cannot give a container {', '.join(absent)}",
            "see `cgroup` above, then " + _RESTART,
        )
    if not any("name=seccomp" in option for option in _options(info)):
        yield fail(
            "the engine has no seccomp: slots could call the whole kernel",
            "use a kernel with CONFIG_SECCOMP_FILTER, and an engine that was built with seccomp",
        )
    if not absent and info.get("SwapLimit") is False:
        yield warn(
            "the engine cannot limit swap: slots would use the machine's swap beyond their memory",
            "boot with swapaccount=1, or run without swap",
        )
    runtimes = dict(sorted((info.get("Runtimes") or {}).items()))
    if engine.runtime is not None and engine.runtime not in runtimes:
        yield fail(
            f"the set asks for the runtime {engine.runtime!r}, and the engine has {', '.join(runtimes) or 'none'}",
            f"add it to `runtimes` of /etc/docker/daemon.json and {_RESTART}, or change the set's `runtime`",
        )
    if engine.runtime == "runsc":
        yield from _gvisor(runtimes.get("runsc", {}))
    if engine.runtime == "crun" and str(info.get("CgroupVersion")) == "1":
        yield fail(
            "crun leaves a slot's /sys/fs/cgroup writable with cgroup version 1, and the set refuses to run",
            "change the set's `runtime`, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    if not absent:
        yield ok("the engine limits memory, processes and CPU")


def _gvisor(configured: dict[str, Any]) -> Iterator[Finding]:
    """A sandbox may connect to sockets of the host only where the runtime's arguments say so."""
    if not any(argument.startswith("--host-uds") for argument in configured.get("runtimeArgs") or ()):
        yield fail(
            "the engine runs gVisor without --host-uds=open, and slots could not reach their executor",
            'add "runtimeArgs": ["--host-uds=open", "--network=none"] to runsc in /etc/docker/daemon.json and '
            f"{_RESTART}",
        )


def user_namespaces(engine: Engine) -> Finding:
    if any("name=userns" in option for option in _options(engine.info)):
        return ok("slots have user namespaces (userns-remap)")
    if engine.runtime in _SEPARATE:
        return ok(f"the runtime {engine.runtime} gives each slot ids of its own")
    return warn(
        "slots have no user namespaces: slots of one USER share what the kernel counts by user, such as queued signals",
        '`runtime: gcompute-runc` in the set\'s file (sets/runtime/README.md), or "userns-remap": "default" in '
        f"/etc/docker/daemon.json and {_RESTART}",
    )


def live_restore(engine: Engine) -> Finding:
    if engine.info.get("LiveRestoreEnabled"):
        return ok("live-restore is on")
    return warn(
        "live-restore is off: a restart of the engine ends all slots, and their tasks run again",
        'put "live-restore": true into /etc/docker/daemon.json and run systemctl reload docker',
    )


def log_driver(engine: Engine) -> Finding:
    driver = engine.info.get("LoggingDriver") or "none"
    if driver != "json-file":
        return ok(f"containers log to {driver}; slots log nothing")
    return warn(
        "other containers than slots log to json-file, which grows without bound by default",
        'put "log-driver": "local" into /etc/docker/daemon.json and ' + _RESTART,
    )


@dataclass(frozen=True)
class MakerLimits:
    """Limits of the process that makes containers (containerd). None: unlimited."""

    pending_signals: int | None
    open_files: int | None
    slots: int


def containerd(limits: MakerLimits) -> Iterator[Finding]:
    """Judge the limits that slots inherit."""
    if limits.open_files is not None and limits.open_files < PROGRAM_DESCRIPTORS:
        yield fail(
            f"containerd may open no more files than {limits.open_files}, and programs may have {PROGRAM_DESCRIPTORS}: "
            "no slot starts",
            _unit("LimitNOFILE", "infinity"),
        )
    wanted = limits.slots * SIGNALS_EACH
    if limits.pending_signals is not None and limits.pending_signals < wanted:
        yield warn(
            f"containerd may queue {limits.pending_signals} signals, which keeps so many slots apart: "
            f"{limits.pending_signals // SIGNALS_EACH} of {limits.slots}",
            _unit("LimitSIGPENDING", str(wanted)),
        )
    else:
        yield ok(f"containerd's limits are high enough for as many slots as there may be: {limits.slots}")


def _unit(setting: str, value: str) -> str:
    return (
        f"systemctl edit containerd: [Service] {setting}={value}; then systemctl restart containerd, "
        "when no slot runs"
    )


def _options(info: Mapping[str, Any]) -> list[str]:
    return [str(option) for option in info.get("SecurityOptions") or ()]


def _version(text: str) -> tuple[int, int]:
    parts = text.split("-")[0].split("+")[0].split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return 0, 0
