"""A small model of an account's asynchronous tasks: what a client may see of them. It shares no code with the set."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MAX_ATTEMPTS = 3
"""Attempts that the platform may lose of a task before it gives it up."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Program(StrEnum):
    """What a task's program does, as its input says."""

    COPIES = "copies its input"
    FAILS = "ends with 1"
    LOSES_ONE = "loses its slot the first time"
    LOSES_ALL = "loses its slot each time"
    STAYS = "runs until it is told to end"
    FAILS_ONCE = "ends with 1 the first time, and may fail twice"
    FAILS_ALWAYS = "ends with 1 each time, and may fail once"
    FAILS_OTHERWISE = "ends with 1, and may fail with 7"


RETRIES: dict[Program, tuple[int, tuple[int, ...]]] = {
    Program.FAILS_ONCE: (2, ()),
    Program.FAILS_ALWAYS: (1, (1, 2)),
    Program.FAILS_OTHERWISE: (2, (7,)),
}
"""How often a task asks to be run again after a failure of its own, and for which exit codes (none: any)."""


@dataclass
class Expected:
    """A task as the model has it. A `STAYS` task is running as soon as it is accepted; all others end by themselves."""

    program: Program
    state: str
    attempts: int = 0
    dead: bool = False
    replayed_as: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass
class Model:
    """All tasks by id, and the tasks and requests behind idempotency keys."""

    tasks: dict[str, Expected] = field(default_factory=dict)
    keys: dict[str, tuple[Program, str]] = field(default_factory=dict)

    def known(self, key: str | None) -> str | None:
        """The task that a key has made."""
        return self.keys[key][1] if key in self.keys else None

    def conflicts(self, key: str | None, program: Program) -> bool:
        """True if another request was made under the key."""
        return key in self.keys and self.keys[key][0] is not program

    def accept(self, task_id: str, program: Program, key: str | None = None) -> None:
        """A new task, which has an id of its own. It runs at once, and to its end where it ends by itself."""
        assert task_id not in self.tasks
        if key is not None:
            self.keys[key] = (program, task_id)
        self.tasks[task_id] = {
            Program.COPIES: Expected(program, "succeeded", 1),
            Program.FAILS: Expected(program, "failed", 1),
            Program.LOSES_ONE: Expected(program, "succeeded", 2),
            Program.LOSES_ALL: Expected(program, "failed", MAX_ATTEMPTS, dead=True),
            Program.STAYS: Expected(program, "running", 1),
            Program.FAILS_ONCE: Expected(program, "succeeded", 2),
            Program.FAILS_ALWAYS: Expected(program, "failed", 2),
            Program.FAILS_OTHERWISE: Expected(program, "failed", 1),
        }[program]

    def end(self, task_id: str) -> None:
        """A program that stayed is told to end."""
        self.tasks[task_id].state = "succeeded"

    def cancel(self, task_id: str) -> None:
        """One that has ended stays as it is."""
        task = self.tasks[task_id]
        if not task.ended:
            task.state = "cancelled"

    def kill(self) -> None:
        """The set is killed and starts again: each running attempt is lost. One that is stopped in order loses none."""
        for task in self.tasks.values():
            if not task.ended:
                if task.attempts == MAX_ATTEMPTS:
                    task.state, task.dead = "failed", True
                else:
                    task.attempts += 1

    def expire(self) -> None:
        """Long after: what has ended is no longer kept, and no key is remembered."""
        self.tasks = {task_id: task for task_id, task in self.tasks.items() if not task.ended}
        self.keys.clear()

    def replay(self, task_id: str, new_id: str) -> None:
        """A dead letter becomes a new task."""
        dead = self.tasks[task_id]
        dead.dead, dead.replayed_as = False, new_id
        self.accept(new_id, dead.program)

    @property
    def running(self) -> list[str]:
        return [task_id for task_id, task in self.tasks.items() if not task.ended]
