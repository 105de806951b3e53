"""One set on this machine, on an engine of its own, under load while the rounds of a chapter kill its parts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import docker
import httpx
from docker.errors import APIError

from ops.setup.private_engine import PrivateEngine
from scheduler.store.blobs import BlobStore
from scheduler.store.sqlite import SqliteStore
from tests.cluster.books import Books
from tests.cluster.clients import Clients
from tests.cluster.clock import boot_s
from tests.cluster.cluster import LABEL, attempt_image, remains
from tests.cluster.history import faults_in
from tests.cluster.load import ASYNC_ACCOUNT, SYNC_ACCOUNT, Plan
from tests.cluster.parts import all_tasks, restart, until
from tests.cluster.witness import Witness
from tests.conftest import SetProcess
from tests.crash.one_batch import OneBatch
from tests.crash.rounds import Blow, Round
from tests.crash.steps import Death
from tests.scheduler.launchers.rig import ImageMaker

STEP_S = 300.0
"""Longest wait for a step: each comes within a second or two of load on an idle machine."""
SETTINGS = (
    "max_slots: 4\nkeep_idle_s: 1\n"
    # So that the books of a chapter are whole.
    "sync_keep_s: 86400\ndrain_timeout_s: 5\n"
)

TRANSIENT = ("blobs", "slots")
"""Folders of the set's state of which it keeps no file open."""
ENGINE_SOCKETS = 40
"""More than the connections to its engine that a set may keep: one for each thread that calls it."""

Say = Callable[[str], None]


class Victim(SetProcess):
    """A set that may be told to die at a step."""

    def arm(self, death: Death | None) -> None:
        """What counts from the next start on."""
        self.program = ("ops.cli.main", "set") if death is None else ("tests.crash.dying_set", death.words())

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ask(self, path: str, account: str = "default") -> httpx.Response | None:
        try:
            return httpx.get(f"{self.url}{path}", headers={"X-Account": account}, timeout=10, trust_env=False)
        except httpx.HTTPError:
            return None


class Machine:
    """The engine and the image. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = PrivateEngine(folder)
        self._stack = ExitStack()

    def __enter__(self) -> Machine:
        with ExitStack() as stack:
            stack.callback(self.engine.stop)
            self.engine.start()
            self.docker = docker.DockerClient(base_url=self.engine.layout.host, timeout=120)
            stack.callback(self.docker.close)
            self.image = attempt_image(ImageMaker(self.docker.api), self.folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Chapter:
    """Plays rounds on a set of its own. `folder` is empty; it has the set's log and state afterwards."""

    def __init__(self, machine: Machine, folder: Path, seed: int) -> None:
        self._machine = machine
        self._folder = folder
        self._seed = seed
        name = f"k{uuid.uuid4().hex[:8]}"
        self._set = Victim(folder, name, f"docker_host: {machine.engine.layout.host}\n{SETTINGS}")
        self._deaths = 0
        self._down_since: float | None = None
        self._unheard: list[tuple[float, float]] = []
        self._missed: list[str] = []

    def play(self, rounds: list[Round], say: Say) -> Books:
        """Run the load while the rounds happen; wait for the ends, stop all, and return the books."""
        name = self._set.name
        file = self._folder / "told.json"
        plan = Plan(
            *(self._set.url, self._machine.image, name, self._seed, str(file)),
            pause_s=0.3,
            burn_ms=20,
            onlookers=1,
            rests_ms=(0, 0, 50, 300),
            # So that slots come and go all the time.
            isolations=("shared", "fresh"),
        )
        with Witness(name) as witness, ExitStack() as stack:
            stack.callback(self._end)
            self._start(None)
            fresh = self._held()
            batch = OneBatch(self._set.url, self._machine.image)
            clients = Clients(plan)
            stack.callback(clients.stop)
            for number, each in enumerate(rounds, 1):
                say(f"{number:3}: {each}")
                self._strike(each)
            self._start(None)
            self._until_ready()
            clients.end_load()
            calls, outcomes = clients.told()
            self._missed += faults_in(clients.looks)
            say(f"looks at accepted tasks: {len(clients.looks)}")
            self._missed += batch.faults()
            self._until_quiet()
            kept = [
                task
                for account in (SYNC_ACCOUNT, ASYNC_ACCOUNT)
                for task in all_tasks(self._set.ask, account)
            ]
            left = self._missed + self._still_held(fresh)
            self._set.stop()
            until(lambda: not witness.running(), "no program outlives its set")
        left += self._left()
        frozen = [(began, ended + 1) for began, ended in witness.stalls]
        return Books(calls, outcomes, kept, witness.lives, left, frozen, self._unheard)

    # -- the blows

    def _strike(self, each: Round) -> None:
        if each.blow is Blow.STEP:
            self._die(each)
            return
        self._start(None)
        time.sleep(each.after_s)
        match each.blow:
            case Blow.SET:
                self._kill()
            case Blow.ENGINE:
                restart(self._machine.engine)
            case Blow.GUEST | Blow.CONTAINER:
                until(self._slots, "there is a slot to be hit", STEP_S)
                self._hit(each)

    def _die(self, each: Round) -> None:
        """Have a set die at a step."""
        self._kill()
        self._deaths += 1
        death = Death(each.step, each.before, each.count, str(self._folder / f"death{self._deaths}"))
        self._start(death)
        deadline = time.monotonic() + STEP_S
        while self._set.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        if (died_at := death.died_at()) is None:
            self._missed.append(f"this step was not taken: {each}")
            self._kill()
        elif self._down_since is None:
            self._down_since = died_at

    def _hit(self, each: Round) -> None:
        # It may have ended by itself by now.
        with suppress(APIError, ProcessLookupError, IndexError):
            slot = random.Random(each.dice).choice(self._slots())
            if each.blow is Blow.CONTAINER:
                self._machine.docker.api.remove_container(slot, v=True, force=True)
            elif pid := self._machine.docker.api.inspect_container(slot)["State"]["Pid"]:
                os.kill(pid, signal.SIGKILL)

    def _kill(self) -> None:
        if self._set.alive:
            self._down_since = boot_s()
            self._set.kill()

    def _start(self, death: Death | None) -> None:
        """Start the set, unless it runs; a deadly one may be dead when this returns."""
        if self._set.alive:
            return
        self._set.arm(death)
        try:
            self._set.start()
        except RuntimeError:
            if death is None or death.died_at() is None:
                raise
            return
        if self._down_since is not None:
            self._unheard.append((self._down_since, boot_s()))
            self._down_since = None

    # -- the end

    def _slots(self) -> list[str]:
        label = {"label": f"{LABEL}={self._set.name}"}
        return sorted(each["Id"] for each in self._machine.docker.api.containers(filters=label))

    def _until_ready(self) -> None:
        def ready() -> bool:
            answer = self._set.ask("/readyz")
            return answer is not None and answer.status_code == 200

        until(ready, "the set is ready", STEP_S)

    def _until_quiet(self) -> None:
        wanted = ("gc_slots_running 0.0", "gc_tasks_waiting 0.0", "gc_cores_busy 0.0")

        def quiet() -> bool:
            found = self._set.ask("/metrics")
            idle = found is not None and all(f"\n{line}\n" in found.text for line in wanted)
            return idle and not self._slots()

        until(quiet, "nothing runs or waits, and idle slots are gone", STEP_S)

    def _held(self) -> Counter[str]:
        """The set's descriptors that tasks and slots could leave behind, by kind or path."""
        found: Counter[str] = Counter()
        for each in Path(f"/proc/{self._set.worker_pid()}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(each)
                path = Path(target.removesuffix(" (deleted)"))
                if not target.startswith("/"):
                    found[target.partition(":")[0]] += 1
                elif any(path.is_relative_to(self._set.folder / "state" / name) for name in TRANSIENT):
                    found[target] += 1
        return found

    def _still_held(self, fresh: Counter[str]) -> list[str]:
        """What the set holds of tasks and slots that have ended; `fresh`: what it held before the first one."""
        more = self._held() - fresh
        if more["socket"] <= ENGINE_SOCKETS:
            del more["socket"]
        return [f"{count} more descriptors of {what}" for what, count in more.items()]

    def _left(self) -> list[str]:
        """What remains of slots and bodies once the set has stopped."""
        found = remains(self._machine.docker.api, self._set.name)
        left = [f"container {' '.join(each['Names'])} ({each['Status']})" for each in found]
        slots = self._folder / "state" / "slots"
        left += [str(path) for path in slots.iterdir()] if slots.exists() else []
        return left + asyncio.run(blobs_left(self._folder / "state"))

    def _end(self) -> None:
        if self._set.alive:
            self._set.kill()


async def blobs_left(state: Path) -> list[str]:
    """Bodies that are missing, and files that a set's clean-up would not remove. `state`: the folder of its store."""
    store = SqliteStore(state / "tasks.db", min_free_mib=0)
    blobs = BlobStore(state / "blobs", min_free_mib=0)
    await store.open()
    try:
        in_use = await store.blobs_in_use()
        await blobs.sweep(in_use, older_than_s=-1)
        there = {path.name for path in (state / "blobs").rglob("*") if path.is_file()}
    finally:
        blobs.close()
        await store.close()
    return [f"blob {name} is missing" for name in in_use - there] + [
        f"blob {name}" for name in there - in_use
    ]
