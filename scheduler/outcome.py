"""Decides the outcome of a task from how its program ended. Pure."""

from __future__ import annotations

import os
import signal
from typing import Final

from scheduler.excerpt import Excerpt
from scheduler.execution import Ending, How
from scheduler.hints import hints_of
from scheduler.task import Reason, State, Task

MACHINE_FULL_BELOW: Final = 0.9
"""Share of its memory limit that a slot holds when the kernel kills for that limit. Below it, the machine itself had no
memory left."""


def conclude(task: Task, ending: Ending, *, why_killed: Reason | None, argv0: bytes, now_us: int) -> None:
    """Write a run's outcome into its task. `why_killed` is why the platform killed it, if it did.

    The task's detail says why it did not succeed, whether the kernel killed for memory, and what the run's notes say.
    """
    task.ended_us = now_us
    task.duration_us, task.cpu_us = ending.wall_us, ending.cpu_us
    for failed in task.failed_attempts:
        task.duration_us += failed.duration_us
        task.cpu_us += failed.cpu_us
    task.memory_peak_kib = ending.memory_peak_kib
    task.max_rss_kib = ending.max_rss_kib
    task.prestarted = ending.prestarted
    if not ending.handed_over:
        task.stdout, task.stderr = Excerpt.of(ending.stdout), Excerpt.of(ending.stderr)
    if ending.how is How.EXITED:
        task.exit_code = ending.code
    elif ending.how is How.SIGNALLED:
        task.signal = ending.code
    # A program that ended by itself while the KILL was on its way counts as such, unless its output is not kept
    # completely: a part must never be taken for the whole.
    if why_killed is not None and (ending.killed or why_killed is Reason.OUTPUT_TOO_LARGE):
        _killed(task, why_killed)
    elif ending.how is How.NOT_EXECUTED:
        name = argv0.decode(errors="replace")
        _fail(task, Reason.NOT_EXECUTABLE, f"{name!r} could not be executed: {os.strerror(ending.code)}")
    elif ending.how is How.EXITED and ending.code == 0:
        task.move(State.SUCCEEDED)
    elif ending.oom_kills:
        # If one of its processes was killed for memory, a program that fails afterwards fails because of that.
        _fail(task, Reason.OUT_OF_MEMORY, None)
    elif ending.how is How.SIGNALLED:
        _fail(task, Reason.SIGNAL, f"ended by {_signal_name(ending.code)}")
    else:
        _fail(task, Reason.EXIT, f"exit code {ending.code}")
    said = [task.detail, _killed_for_memory(task, ending), *ending.notes]
    if task.reason in (Reason.EXIT, Reason.SIGNAL):
        said += hints_of(task.stderr.head + task.stderr.tail)
    task.detail = "; ".join(filter(None, said)) or None


def _killed_for_memory(task: Task, ending: Ending) -> str | None:
    if not ending.oom_kills:
        return None
    killed = f"the kernel killed {ending.oom_kills} of the task's processes"
    limit_mib = task.spec.resources.memory_mib
    # The peak does not cover all the time of a program that was started ahead.
    if not ending.prestarted and 0 < ending.memory_peak_kib < MACHINE_FULL_BELOW * limit_mib * 1024:
        peak_mib = ending.memory_peak_kib >> 10
        return f"{killed} because the machine's memory was used up: of memory_mib ({limit_mib} MiB) it used {peak_mib}"
    return f"{killed} for using more memory than memory_mib allows ({limit_mib} MiB, files in /tmp included)"


def _killed(task: Task, why: Reason) -> None:
    if why is Reason.TIMEOUT:
        task.move(State.TIMED_OUT)
        task.detail = f"the task ran longer than its timeout_s ({task.spec.timeout_s:g} s)"
    elif why in (Reason.CANCELLED, Reason.CLIENT_GONE):
        task.move(State.CANCELLED)
        task.detail = "cancelled" if why is Reason.CANCELLED else "the client went away"
    elif why is Reason.OUTPUT_TOO_LARGE:
        task.move(State.FAILED)
        task.detail = "the output is larger than this set keeps"
    else:
        task.move(State.FAILED)
        task.detail = "the platform had to end the task"
    task.reason = why


def _fail(task: Task, reason: Reason, detail: str | None) -> None:
    task.move(State.FAILED)
    task.reason = reason
    task.detail = detail


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
