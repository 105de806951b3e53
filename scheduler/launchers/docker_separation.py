"""The separation of an engine's slots: logged at the start, and checked where it has a limit.

In a user namespace each slot has a count of queued signals of its own. But the sum over all namespaces is bounded by
the limit of the process that made them, as it was then. That process is containerd, or whatever the engine starts its
runtime from, and its children inherit the limit (measured: Linux 6.18, Docker 20.10, runc 1.1.5). Once slots together
reach the sum, one slot's queued signals keep others from queueing any.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import structlog

from scheduler.errors import EngineUnfit
from scheduler.launchers.docker_config import EngineFacts
from scheduler.launchers.docker_engine import Engine
from scheduler.launchers.hardening import ULIMITS

log = structlog.get_logger()

OWN_IDS: Final = "gcompute-runc"
"""The runtime that gives each slot a user namespace with host ids of its own (sets/runtime)."""
_CRUN: Final = "crun"
GVISOR: Final = "runsc"
"""gVisor's runtime: a kernel of its own for each slot. Root may write to read-only paths there, and kill process 1."""
_PENDING: Final = re.compile(r"^Max pending signals +(\d+) ", re.MULTILINE)
_ULIMIT: Final = "sigpending"
_WATCH_BYTES: Final = 128
"""Memory, in bytes, that the kernel charges to a slot for one epoll watch, at least (measured: 184; Linux 6.18)."""


def signals_of_all_slots(container: dict[str, Any], proc: Path = Path("/proc")) -> int | None:
    """Return how many signals may be queued in all slots together, given an inspected container that runs.

    None if that has no limit, or if the container's processes are not on this machine.
    """
    try:
        process = proc / str(container["State"]["Pid"])
        # The number may be another machine's.
        if container["Id"] not in (process / "cgroup").read_text():
            return None
        # The name, in parentheses, may hold anything.
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        found = _PENDING.search((proc / parent / "limits").read_text())
    except (OSError, KeyError, IndexError):
        return None
    return int(found[1]) if found else None


def epoll_watches_wanted(proc: Path = Path("/proc")) -> int | None:
    """Return the value of fs.epoll.max_user_watches that no user's slots can reach, if the present one is lower.

    The kernel counts watches per user of the host, and charges each to its slot's memory. With the kernel's default,
    4 % of the machine's memory are enough for all watches of a user: if that user is root, the engine, which is root
    too, can start no slot any more. A limit that would take all memory is never reached, and `memory_mib` bounds each
    slot's watches.
    """
    try:
        present = int((proc / "sys/fs/epoll/max_user_watches").read_text())
        memory_kib = int((proc / "meminfo").read_text().partition("MemTotal:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return None
    wanted = memory_kib * 1024 // _WATCH_BYTES
    return wanted if wanted > present else None


class Separation:
    """Logs what separates the slots of an engine, and warns, once, when there are more than it can keep apart.

    `is_open`: whether it still waits for slots to start.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._signals_each = {**ULIMITS, **engine.settings.ulimits}[_ULIMIT]
        self._slots_apart: int | None = None
        self.is_open = False

    def check(self, facts: EngineFacts) -> None:
        """Raises `EngineUnfit` if the engine lacks the `runtime` of the settings, or slots can't have it."""
        runtime = self._engine.settings.runtime
        if runtime is not None and runtime not in facts.runtimes:
            offered = ", ".join(facts.runtimes) or "none"
            raise EngineUnfit(
                f"runtime: the container engine has no runtime {runtime!r}; it has {offered}. "
                "Add it to the engine's daemon.json and restart the engine, or change the set's `runtime` and restart "
                "the set."
            )
        if runtime == _CRUN and facts.cgroup_version == 1:
            raise EngineUnfit(
                "runtime: crun leaves a slot's /sys/fs/cgroup writable with cgroup version 1, so a task could leave "
                "files there for the next one. Change the set's `runtime`, or boot the machine with cgroup version 2."
            )
        own_ids = runtime == OWN_IDS
        shared = "queued signals, descriptors in flight, pipe pages, epoll watches"
        if own_ids or runtime == GVISOR:
            shared = "none of the kernel's counters"
        elif facts.user_namespaces:
            shared = "descriptors in flight, pipe pages, epoll watches"
        # Without namespaces slots share the count in any case.
        self.is_open = facts.user_namespaces or own_ids
        self._slots_apart = None
        log.info(
            "slots are kept apart",
            user_namespaces=facts.user_namespaces or own_ids,
            runtime=runtime or "the engine's default",
            cgroup_version=facts.cgroup_version,
            shared_by_slots_of_one_uid=shared,
        )
        if not own_ids and runtime != GVISOR and (wanted := epoll_watches_wanted()) is not None:
            log.warning(
                "one USER can use up the epoll watches",
                reason="programs of one USER can take all epoll watches that the kernel allows it; if it is root, "
                "no slot starts any more",
                next=f"run `sysctl -w fs.epoll.max_user_watches={wanted}`, and put it into /etc/sysctl.d",
            )

    async def slot_started(self, name: str, slots: int) -> None:
        """The container `name` runs, one of so many `slots`. Raises `EngineUnavailable`."""
        if self._slots_apart is None:
            signals = signals_of_all_slots(await self._engine.inspect_container(name))
            if signals is None:
                self.is_open = False
                return
            self._slots_apart = signals // self._signals_each
            log.info(
                "queued signals are kept apart",
                slots_kept_apart=self._slots_apart,
                signals_each=self._signals_each,
            )
        if slots > self._slots_apart and self.is_open:
            self.is_open = False
            log.warning(
                "queued signals are shared between slots",
                slots=slots,
                slots_kept_apart=self._slots_apart,
                next=f"set LimitSIGPENDING of containerd to at least {self._signals_each} for each slot of all sets "
                "on this engine, and restart it",
            )
