"""`python -m tests.crash.simulated FOLDER SEED ROUNDS [FAULTS]`: kills task managers over a real store; no real slots.

A round is a forked process, which dies at a step of the store or of the recovery, or at a random moment. The next one
opens the same store. After the last round everything runs to its end. Writes the books (`tests.cluster.books`) into
`FOLDER/books.json`, and what the processes log into `FOLDER/log`. Calls that a kill left without an answer are not in
the books, as nothing was promised. FAULTS is the share of the calls of the store and of the launcher that fail.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scheduler.errors import DiskFull, EngineRefused, EngineUnavailable, SchedulerError, StoreError
from scheduler.policy.limits import Limits
from scheduler.store.contract import Idempotency, TaskFilter
from scheduler.task import Task
from tests.cluster.books import Books, Call, Outcome
from tests.crash.machine import blobs_left
from tests.crash.steps import STEPS, Death, arm
from tests.scheduler.conftest import World, until
from tests.scheduler.fakes import FakeRun

OF_THE_STORE = tuple(
    step for step, place in STEPS.items() if place.startswith(("scheduler.store", "scheduler.recovery"))
)
"""Steps that do not need slots on an engine."""
MOST_TIMES = 30
STEP_S = 1.0
"""A round's load, where its step does not come."""
MOMENT_S = 0.4
"""Within so many seconds comes a random moment."""
ATTEMPTS = 6
"""Rounds are short, so that a task meets more kills than in a set's life."""
LARGE_BYTES = 40_000
"""More than a store keeps in a task's row."""
ACCOUNT = "acme"
PAGE = 200


@dataclass
class Told:
    """What clients of all rounds were told. `open`: marks that were submitted and never accepted."""

    calls: list[Call] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def hear(self, line: list[Any]) -> None:
        what, mark, *rest = line
        match what:
            case "submits":
                self.open.add(mark)
            case "accepted":
                self.open.discard(mark)
                self.accepted[mark] = rest[0]
                self.calls.append(Call("async", mark, 0.0, status=202, task=rest[0]))
            case "answered":
                task, cpu_us, own_us, flaw = rest
                self.calls.append(
                    Call("sync", mark, 0, status=200, task=task, cpu_us=cpu_us, own_cpu_us=own_us, flaw=flaw)
                )


def stdin_of(mark: str) -> bytes:
    """The input of a task: from its mark alone."""
    dice = random.Random(mark)
    return dice.randbytes(dice.choice([0, 100, LARGE_BYTES]))


def program(dice: random.Random) -> Callable[[FakeRun], None]:
    """A program whose output names the CPU time of its own attempt, and copies its input. Some slots die under it."""

    under_way = set()

    def run(run: FakeRun) -> None:
        task = asyncio.ensure_future(work(run))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    async def work(run: FakeRun) -> None:
        stdin = run.work.stdin
        if run.stdin is not None:
            pipe = run.stdin
            await until(lambda: pipe.closed)
            stdin = bytes(pipe.data)
        await asyncio.sleep(dice.choice([0, 0, 0.002, 0.01]))
        if dice.random() < 0.02:
            run.lose("its guest is gone")
            return
        own_us = dice.randrange(1_000_000, 9_000_000)
        run.exit(0, b"%d " % own_us + (stdin or b""), cpu_us=own_us)

    return run


def judge(mark: str, task: Task, stdout: bytes) -> tuple[int, str]:
    """The CPU time that an output names, and why it is not the output of this task, or not what it is billed for."""
    own_us, _, copy = stdout.partition(b" ")
    if not own_us.isdigit():
        return 0, f"what came ({len(stdout)} bytes) is no output"
    if copy != stdin_of(mark):
        return 0, "its input was another one"
    if int(own_us) != task.cpu_us:
        return 0, f"its attempt used {int(own_us)} us, and it is billed {task.cpu_us} us"
    return int(own_us), ""


class Clients:
    """Clients of one round, which tell the parent what they are told."""

    def __init__(self, world: World, seed: str, pipe: int) -> None:
        self._world = world
        self._dice = random.Random(seed)
        self._seed = seed
        self._pipe = pipe
        self._number = 0

    async def keep_running(self) -> None:
        while True:
            mark = self._mark()
            try:
                task, stdout = await self._world.run(stdin_of(mark), name=mark)
            except SchedulerError:
                continue
            if task.exit_code == 0:
                self._tell("answered", mark, task.id, task.cpu_us, *judge(mark, task, stdout))
            await asyncio.sleep(self._dice.random() * 0.01)

    async def keep_submitting(self, first: list[str]) -> None:
        """Submit the marks of earlier rounds again, then new ones."""
        for mark in first:
            await self._submit(mark)
        while True:
            await self._submit(self._mark())
            await asyncio.sleep(self._dice.random() * 0.02)

    async def _submit(self, mark: str) -> None:
        """Submit it until it is accepted, as a careful client does."""
        self._tell("submits", mark)
        key = Idempotency(mark, b"one")
        while True:
            body = self._world.blobs.body()
            await body.write(stdin_of(mark))
            try:
                task = await self._world.submit(await body.finish(), key, name=mark)
            except SchedulerError:
                await asyncio.sleep(0.01)
                continue
            self._tell("accepted", mark, task.id)
            return

    def _mark(self) -> str:
        self._number += 1
        return f"{self._seed}-{self._number}"

    def _tell(self, *line: Any) -> None:
        os.write(self._pipe, json.dumps(line).encode() + b"\n")


def made(folder: Path, dice: random.Random, faults: float = 0.0) -> World:
    world = World(folder)
    limits = Limits(start_backoff_s=0.01, patience_s=0.05, cpu_percent=400)
    world.make(max_attempts=ATTEMPTS, limits=limits, record_patience_s=0.2)
    world.executor.program = program(dice)
    if faults:
        refusals = (StoreError("the store fails"), DiskFull())
        for name in ("add", "finish", "update", "expire", "replay"):
            # Of what its caller tries again, it may also fail to say that it was done.
            unsaid = name in ("finish", "update")
            setattr(
                world.store, name, failing(getattr(world.store, name), dice, faults, refusals, unsaid=unsaid)
            )
        refused = (EngineRefused("the engine fails"), EngineUnavailable("the engine is away"))
        world.launcher.start = failing(world.launcher.start, dice, faults, refused)  # type: ignore[method-assign]
    return world


def failing(
    call: Callable[..., Coroutine[Any, Any, Any]],
    dice: random.Random,
    share: float,
    errors: Sequence[Exception],
    *,
    unsaid: bool = False,
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """A call that fails now and then, before it is done, or, if it may be `unsaid`, afterwards."""

    async def tried(*arguments: Any, **options: Any) -> Any:
        if dice.random() < share:
            raise copy.copy(dice.choice(errors))
        result = await call(*arguments, **options)
        if unsaid and dice.random() < share:
            raise copy.copy(dice.choice(errors))
        return result

    return tried


async def live(folder: Path, seed: str, first: list[str], faults: float, pipe: int) -> None:
    """A round, until it is killed."""
    dice = random.Random(seed)
    step = dice.choice([*OF_THE_STORE, ""])
    if step:
        arm(Death(step, dice.random() < 0.5, dice.randint(1, MOST_TIMES), str(folder / "death")))
    asyncio.get_running_loop().call_later(
        STEP_S if step else dice.random() * MOMENT_S, os.kill, os.getpid(), signal.SIGKILL
    )
    world = await made(folder, dice, faults).open()
    clients = Clients(world, seed, pipe)
    await asyncio.gather(
        *(clients.keep_running() for _ in range(2)),
        *(clients.keep_submitting(first[each::2]) for each in range(2)),
    )


def forked(folder: Path, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> list[list[Any]]:
    """Run a coroutine in a process of its own, over the store in `folder`; return the lines that it told."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            # A step kills its whole group.
            os.setpgid(0, 0)
            os.close(reader)
            with (folder / "log").open("ab") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            asyncio.run(work(folder, *arguments, writer))
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(70)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        lines = told.read().splitlines(keepends=True)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a round ended with {os.waitstatus_to_exitcode(status)}")
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def facts_of(task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.spec.name,
        "state": str(task.state),
        "reason": str(task.reason) if task.reason else None,
        "detail": task.detail,
        "cpu_us": task.cpu_us,
    }


async def settle(folder: Path, accepted: dict[str, str], pipe: int) -> None:
    """Run everything to its end, and tell each accepted task's outcome, then each task that is kept."""

    def tell(*line: Any) -> None:
        os.write(pipe, json.dumps(line).encode() + b"\n")

    world = await made(folder, random.Random(0)).open()
    for mark, task_id in accepted.items():
        task = await world.manager.wait(ACCOUNT, task_id, 60.0)
        own_us, flaw = 0, ""
        if task.exit_code == 0:
            own_us, flaw = judge(mark, task, await world.stdout(task))
        tell("outcome", asdict(Outcome(mark, task.id, facts_of(task), own_us, flaw)))
    await until(lambda: not world.facts()["tasks_known"])
    for task in [each async for each in kept(world)]:
        tell("kept", facts_of(task))
    await world.close()


async def kept(world: World) -> AsyncIterator[Task]:
    before = None
    while page := await world.manager.page(TaskFilter(ACCOUNT, before=before, limit=PAGE)):
        for task in page:
            yield task
        before = page[-1].id


def play(folder: Path, seed: int, rounds: int, faults: float = 0.0) -> Books:
    """Play the rounds in `folder`, which is empty, let everything end without faults, and return the books."""
    told = Told()
    for number in range(rounds):
        for line in forked(folder, live, f"{seed}.{number}", sorted(told.open), faults):
            told.hear(line)
    lines = forked(folder, settle, told.accepted)
    outcomes = [Outcome(**facts) for what, facts in lines if what == "outcome"]
    tasks = [facts for what, facts in lines if what == "kept"]
    facts_later = {facts["id"]: facts for facts in tasks}
    for each in outcomes:
        if (later := facts_later.get(each.task, each.facts)) != each.facts:
            each.changed = f"{each.facts} became {later}"
    return Books(told.calls, outcomes, tasks, [], asyncio.run(blobs_left(folder)))


def read(folder: Path) -> Books:
    """The books that a run left in `folder`."""
    found = json.loads((folder / "books.json").read_text())
    calls = [Call(**each) for each in found.pop("calls")]
    outcomes = [Outcome(**each) for each in found.pop("outcomes")]
    return Books(calls, outcomes, **found)


if __name__ == "__main__":
    place, seed, rounds, *share = sys.argv[1:]
    played = play(Path(place), int(seed), int(rounds), *map(float, share))
    (Path(place) / "books.json").write_text(json.dumps(asdict(played)))
