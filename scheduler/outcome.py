"""From how a program ended to what became of its task: pure."""

from __future__ import annotations

import os
import signal

from scheduler.execution import Ending, How
from scheduler.task import HEAD_BYTES, Reason, State, Task


def conclude(task: Task, ending: Ending, *, why_killed: Reason | None, argv0: bytes, now_us: int) -> None:
    """Write a run's outcome into its task. `why_killed` is why the platform killed it, if it did."""
    task.ended_us = now_us
    task.duration_us = ending.wall_us
    task.cpu_us = ending.cpu_us
    task.memory_peak_kib = ending.max_rss_kib
    task.prestarted = ending.prestarted
    if not ending.handed_over:
        task.stdout_bytes, task.stdout_head = len(ending.stdout), ending.stdout[:HEAD_BYTES]
        task.stderr_bytes, task.stderr_head = len(ending.stderr), ending.stderr[:HEAD_BYTES]
    if ending.how is How.EXITED:
        task.exit_code = ending.code
    elif ending.how is How.SIGNALLED:
        task.signal = ending.code
    # A program that ended by itself while the KILL was on its way has ended by itself, but for one whose output is
    # not kept whole: nobody must take a part for all.
    if why_killed is not None and (ending.killed or why_killed is Reason.OUTPUT_TOO_LARGE):
        _killed(task, why_killed)
    elif ending.how is How.NOT_EXECUTED:
        name = argv0.decode(errors="replace")
        _fail(task, Reason.NOT_EXECUTABLE, f"{name!r} could not be executed: {os.strerror(ending.code)}")
    elif ending.how is How.EXITED and ending.code == 0:
        task.move(State.SUCCEEDED)
    elif ending.out_of_memory:
        limit_mib = task.spec.resources.memory_mib
        _fail(
            task,
            Reason.OUT_OF_MEMORY,
            f"the program used more memory than memory_mib allows ({limit_mib} MiB)",
        )
    elif ending.how is How.SIGNALLED:
        _fail(task, Reason.SIGNAL, f"ended by {_signal_name(ending.code)}")
    else:
        _fail(task, Reason.EXIT, f"exit code {ending.code}")


def _killed(task: Task, why: Reason) -> None:
    if why is Reason.TIMEOUT:
        task.move(State.TIMED_OUT)
        task.detail = f"the task ran longer than its timeout_s ({task.spec.timeout_s:g} s)"
    elif why in (Reason.CANCELLED, Reason.CLIENT_GONE):
        task.move(State.CANCELLED)
        task.detail = "cancelled" if why is Reason.CANCELLED else "the client went away"
    elif why is Reason.OUTPUT_TOO_LARGE:
        task.move(State.FAILED)
        task.detail = "the output is larger than this set keeps; only its beginning was kept"
    else:
        task.move(State.FAILED)
        task.detail = "the platform had to end the task"
    task.reason = why


def _fail(task: Task, reason: Reason, detail: str) -> None:
    task.move(State.FAILED)
    task.reason = reason
    task.detail = detail


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
