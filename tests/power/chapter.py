"""Plays some power cuts on one set under load, and compares the books afterwards."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.cluster.books import FINAL, Books
from tests.cluster.clients import Clients
from tests.cluster.clock import boot_s
from tests.cluster.history import faults_in
from tests.cluster.load import ASYNC_ACCOUNT, SYNC_ACCOUNT, Plan
from tests.cluster.parts import all_tasks, until
from tests.power.machine import IMAGE, Machine

LOAD_S = 20.0
"""Longest time under load before a cut, once the set has accepted new tasks."""
BURST_TASKS = 10
"""Tasks of a burst that the set has accepted when the cut comes, at least."""
BURST_S = 0.5
"""Longest time, in seconds, from then to the cut: its writes are under way."""
SETTLE_S = 900.0
SYNC_LOSS_S = 30.0
"""Longest time before a cut, in seconds, from which the usage of a sync task may be lost: five times what a set
promises, for an emulated machine that is slow to keep it."""

Say = Callable[[str], None]


class Chapter:
    """`folder` is empty. `root`: the machine's root disk."""

    def __init__(self, root: Path, folder: Path, seed: str) -> None:
        self._dice = random.Random(seed)
        self._machine = Machine(folder, root, f"p{uuid.uuid4().hex[:8]}")
        self._folder = folder
        self._ends: dict[str, dict[str, Any]] = {}
        self._cut_at: list[float] = []
        self._unheard: list[tuple[float, float]] = []

    def play(self, cuts: int, say: Say) -> tuple[Books, list[dict[str, Any]]]:
        """Cut the power so often; wait for all ends, and return the books and a row of numbers for each cut."""
        rows = []
        machine = self._machine
        with ExitStack() as stack:
            stack.callback(machine.stop)
            machine.boot()
            clients = [self._clients(stack, self._plan())]
            for number in range(1, cuts + 1):
                began_at = boot_s()
                self._look_on()
                seen = len(self._ends)
                clients.append(self._clients(stack, self._burst(number)))
                self._until_in_the_midst(number)
                self._cut_at.append(boot_s())
                writes = machine.cut_power(self._dice)
                rows.append({"load_s": round(self._cut_at[-1] - began_at, 1), "ends seen": seen, **writes})
                say(f"cut {number}: {rows[-1]}")
                # Requests of the burst that had no answer are not promised anything.
                clients[-1].end_load()
                machine.boot()
                self._unheard.append((self._cut_at[-1], boot_s()))
            clients[0].end_load()
            told = [each.told() for each in clients]
            calls = [call for each, _ in told for call in each]
            outcomes = [outcome for _, each in told for outcome in each]
            kept = [
                task for account in (SYNC_ACCOUNT, ASYNC_ACCOUNT) for task in all_tasks(machine.ask, account)
            ]
        books = Books(
            calls,
            outcomes,
            kept,
            [],
            self._changed(kept) + [fault for each in clients for fault in faults_in(each.looks)],
            [],
            self._unheard,
        )
        return self._without_the_last_moments(books), rows

    def _clients(self, stack: ExitStack, plan: Plan) -> Clients:
        clients = Clients(plan)
        stack.callback(clients.stop)
        return clients

    def _burst(self, number: int) -> Plan:
        """Many clients without a pause, so that the cut comes while the set writes."""
        machine, name = self._machine, f"burst{number}"
        return Plan(
            *(machine.url, IMAGE, f"{machine.name}-{name}", self._dice.randrange(1 << 30)),
            str(self._folder / f"{name}.json"),
            sync_clients=2,
            async_clients=6,
            pause_s=0.0,
            # The emulated machine measures shorter times too coarsely for the books.
            burn_ms=200,
            rests_ms=(0,),
        )

    def _until_in_the_midst(self, number: int) -> None:
        """Wait until a burst's first tasks are accepted, and a moment longer."""
        prefix = f"{self._machine.name}-burst{number}-"

        def accepted() -> int:
            answer = self._machine.ask("/v1/tasks?limit=50", ASYNC_ACCOUNT)
            tasks = answer.json()["tasks"] if answer is not None and answer.status_code == 200 else []
            return sum((task["name"] or "").startswith(prefix) for task in tasks)

        until(lambda: accepted() >= BURST_TASKS, "a burst's first tasks are accepted", SETTLE_S)
        time.sleep(self._dice.uniform(0, BURST_S))

    def _plan(self) -> Plan:
        machine = self._machine
        file = str(self._folder / "told.json")
        return Plan(
            *(machine.url, IMAGE, machine.name, self._dice.randrange(1 << 30), file),
            sync_clients=2,
            async_clients=3,
            burn_ms=200,
            onlookers=1,
            rests_ms=(0, 0, 200),
        )

    def _look_on(self) -> None:
        """Let the load go on until new tasks have ended, and then until a random moment; note each end that is seen."""
        before = len(self._ends)
        until(lambda: self._look() > before + 2, "tasks end under load", SETTLE_S)
        over_at = time.monotonic() + self._dice.uniform(0, LOAD_S)
        while time.monotonic() < over_at:
            self._look()
            time.sleep(0.2)

    def _look(self) -> int:
        answer = self._machine.ask("/v1/tasks?limit=50", ASYNC_ACCOUNT)
        if answer is not None and answer.status_code == 200:
            for task in answer.json()["tasks"]:
                if task["state"] in FINAL:
                    self._ends.setdefault(task["id"], task)
        return len(self._ends)

    def _changed(self, kept: list[dict[str, Any]]) -> list[str]:
        """Ends that a client saw before a cut, and that are others now."""
        later = {task["id"]: task for task in kept}
        return [
            f"{name} had ended as {task} and is {later.get(name)}"
            for name, task in self._ends.items()
            if later.get(name) != task
        ]

    def _without_the_last_moments(self, books: Books) -> Books:
        """The books without the sync answers whose usage a cut may take."""
        listed = {task["id"] for task in books.kept}
        books.calls = [
            call
            for call in books.calls
            if call.kind != "sync"
            or call.task in listed
            or not any(0 <= at - call.ended_at < SYNC_LOSS_S for at in self._cut_at)
        ]
        return books
