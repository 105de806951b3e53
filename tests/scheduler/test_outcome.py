"""The outcome of a task, from how its program ended: its state, its reason, and its detail."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from scheduler.execution import Ending, How
from scheduler.outcome import conclude
from scheduler.task import Lease, Reason, Resources, State, Task, TaskSpec

KILLED = "the kernel killed 1 of the task's processes for using more memory than memory_mib allows"


def ended(why_killed: Reason | None = None, **facts: Any) -> Task:
    """The task of 64 MiB whose program ended like this."""
    ending = Ending(
        **{
            "lease": Lease("a-1", 1),
            "how": How.EXITED,
            "code": 0,
            "killed": why_killed is not None,
            "oom_kills": 0,
            "wall_us": 9,
            "cpu_us": 8,
            "max_rss_kib": 7,
            "handed_over": False,
            "stdout": b"",
            "stderr": b"",
            "files": [],
            **facts,
        }
    )
    spec = TaskSpec(account="acme", image="cat:1", image_digest="sha256:00", resources=Resources(100, 64))
    task = Task("a-1", spec, created_us=1, state=State.RUNNING)
    conclude(task, ending, why_killed=why_killed, argv0=b"/tool", now_us=5)
    return task


def test_a_program_that_succeeds_has_nothing_to_tell() -> None:
    task = ended(memory_peak_kib=900)
    assert (task.state, task.reason, task.detail) == (State.SUCCEEDED, None, None)
    assert (task.memory_peak_kib, task.max_rss_kib) == (900, 7)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"how": How.SIGNALLED, "code": signal.SIGKILL}, Reason.OUT_OF_MEMORY),
        ({"code": 1}, Reason.OUT_OF_MEMORY),
    ],
)
def test_a_program_that_fails_when_killed_for_memory_fails_for_that(
    facts: dict[str, Any], reason: Reason
) -> None:
    task = ended(oom_kills=1, **facts)
    assert (task.state, task.reason) == (State.FAILED, reason)
    assert task.detail == f"{KILLED} (64 MiB, files in /tmp included)"


@pytest.mark.parametrize(
    ("why_killed", "state", "begins"),
    [
        (None, State.SUCCEEDED, KILLED),
        (Reason.TIMEOUT, State.TIMED_OUT, "the task ran longer than its timeout_s (60 s); " + KILLED),
        (Reason.CANCELLED, State.CANCELLED, "cancelled; " + KILLED),
        (Reason.OUTPUT_TOO_LARGE, State.FAILED, "the output is larger than this set keeps"),
    ],
)
def test_a_kill_for_memory_is_told_whatever_the_end(
    why_killed: Reason | None, state: State, begins: str
) -> None:
    task = ended(why_killed, oom_kills=1)
    assert (task.state, task.reason) == (state, why_killed)
    assert task.detail is not None
    assert task.detail.startswith(begins)
    assert KILLED in task.detail


def test_a_kill_for_the_machines_memory_does_not_blame_the_limit() -> None:
    task = ended(oom_kills=2, memory_peak_kib=20 << 10, how=How.SIGNALLED, code=signal.SIGKILL)
    assert task.reason is Reason.OUT_OF_MEMORY
    assert task.detail == (
        "the kernel killed 2 of the task's processes because the machine's memory was used up: "
        "of memory_mib (64 MiB) it used 20"
    )


def test_a_program_that_kills_itself_is_not_out_of_memory() -> None:
    task = ended(how=How.SIGNALLED, code=signal.SIGKILL)
    assert (task.reason, task.detail) == (Reason.SIGNAL, "ended by SIGKILL")


def test_what_the_executor_noted_joins_the_detail() -> None:
    assert ended(code=3, notes=("the first hint", "the second")).detail == (
        "exit code 3; the first hint; the second"
    )
    assert ended(notes=("a hint",)).detail == "a hint"
