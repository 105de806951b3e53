"""Tells which tasks are run again after their own failure, and which become dead letters. Pure.

Attempts that the platform lost are another matter: `limits.Retries` bounds them, whatever the task asked for.
"""

from __future__ import annotations

from typing import Final

from scheduler.task import Kind, Reason, State, Task

OWN_FAILURES: Final = frozenset({Reason.EXIT, Reason.SIGNAL, Reason.OUT_OF_MEMORY})
"""Ends after which another attempt may do better. A time limit, an output that is too large and a program that cannot
be executed would end the next attempt as well."""


def runs_again(task: Task) -> bool:
    """Return True if the task, whose attempt has just ended, asked for another one after such an end."""
    spec = task.spec
    if task.state is not State.FAILED or len(task.failed_attempts) >= spec.retries:
        return False
    named = not spec.retry_exit_codes or task.exit_code in spec.retry_exit_codes
    return named and task.reason in OWN_FAILURES


def is_dead_letter(task: Task) -> bool:
    """Return True if the platform gave the task up, so that its input is worth keeping for a replay."""
    return task.spec.kind is Kind.ASYNC and task.state is State.FAILED and task.reason is Reason.PLATFORM
