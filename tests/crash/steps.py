"""Named steps of a task's life and of a set's start, at which the crash rig kills a set: before each, or after it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.cluster.clock import boot_s

STEPS = {
    "the store opens": "scheduler.store.sqlite:SqliteStore.open",
    "slots of an earlier run are removed": "scheduler.launchers.docker:DockerLauncher.open",
    "an unfinished task is taken up": "scheduler.recovery:Recovery._take_up",
    "a large input becomes a blob": "scheduler.store.blobs:BlobStore.finish",
    "an accepted task is stored": "scheduler.store.sqlite:SqliteStore.add",
    "writes are committed": "scheduler.store.transactions:Transactions.run",
    "a slot is expected": "sets.executor.executor:LocalExecutor.expect",
    "a slot is started": "scheduler.launchers.docker:DockerLauncher.start",
    "a program is handed to a slot": "sets.executor.executor:LocalExecutor.run",
    "a task is noted as running": "scheduler.store.sqlite:SqliteStore.update_later",
    "a program's end comes": "sets.executor.run:SlotRun.end_came",
    "an accepted task's end is stored": "scheduler.store.sqlite:SqliteStore.finish",
    "a sync task's row is stored": "scheduler.store.sqlite:SqliteStore.update",
    "a row goes to the journal": "scheduler.store.journal:Journal.append",
    "the journal's rows are in the database": "scheduler.store.journal:Journal.folded",
    "a slot is stopped": "scheduler.launchers.docker:DockerLauncher.stop",
}
"""Each step by the function that does it."""


@dataclass(frozen=True)
class Death:
    """Kill the set with all its processes when a step is taken for the `count`th time, before or after it.

    `file` gets the time of death, in seconds since the machine's start.
    """

    step: str
    before: bool
    count: int
    file: str

    def words(self) -> str:
        """One argument of a command line."""
        return json.dumps(asdict(self))

    def died_at(self) -> float | None:
        """When the set died of it; None if it did not."""
        file = Path(self.file)
        return float(file.read_text()) if file.exists() else None


def arm(death: Death) -> None:
    """Have this process, and those that it forks, die as told."""
    module, _, place = STEPS[death.step].partition(":")
    owner, _, name = place.partition(".")
    holder = getattr(importlib.import_module(module), owner)
    setattr(holder, name, _deadly(getattr(holder, name), death))


def _deadly(step: Callable[..., Any], death: Death) -> Callable[..., Any]:
    taken = itertools.count(1)

    def die() -> None:
        # A killed process leaves no half file that is read: the rig reads it once the process is gone.
        Path(death.file).write_text(str(boot_s()))
        os.killpg(0, signal.SIGKILL)
        # The signal may reach another thread first.
        signal.pause()

    if asyncio.iscoroutinefunction(step):

        @functools.wraps(step)
        async def later(*arguments: Any, **options: Any) -> Any:
            last = next(taken) == death.count
            if last and death.before:
                die()
            result = await step(*arguments, **options)
            if last:
                die()
            return result

        return later

    @functools.wraps(step)
    def now(*arguments: Any, **options: Any) -> Any:
        last = next(taken) == death.count
        if last and death.before:
            die()
        result = step(*arguments, **options)
        if last:
            die()
        return result

    return now
