"""Compares a store that a loss of power left behind with what its process had said before."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from scheduler.errors import SchedulerError
from scheduler.store.blobs import BlobStore
from scheduler.store.contract import Body, DeadLetters, TaskFilter
from scheduler.store.sqlite import SqliteStore
from scheduler.task import State, Task
from tests.scheduler.store.samples import T0_US
from tests.scheduler.store.writes.actor import body_of
from tests.scheduler.store.writes.log import Call, What


class Stage(IntEnum):
    """The stages of a task, each after the ones before it that its kind has."""

    NONE = 0
    SYNC = 1
    ADDED = 2
    ENDED = 3
    DEAD = 4
    REPLAYED = 5
    EXPIRED = 6


@dataclass
class Claim:
    """The stage that was acknowledged, the latest one that was begun, and what goes with them.

    `text` is what its input is made from, and its idempotency key if it is `keyed`.
    """

    did: Stage = Stage.NONE
    will: Stage = Stage.NONE
    text: str = ""
    keyed: bool = True
    stdin_bytes: int = 0
    stdout_bytes: int = 0
    replay: str = ""


def left_open(calls: Sequence[Call]) -> dict[str, int]:
    """The tasks that were not acknowledged after some calls, each with the size of its input."""
    return {
        task_id: claim.stdin_bytes
        for task_id, claim in claims(calls).items()
        if claim.will is Stage.ADDED and not claim.did and claim.keyed
    }


def claims(calls: Sequence[Call]) -> dict[str, Claim]:
    """The claims after some calls, by task."""
    found: dict[str, Claim] = {}
    for call in calls:
        if call.what is What.SAY:
            hear(found, call.data)
    return found


def hear(found: dict[str, Claim], line: bytes) -> None:
    """Add one line of the process."""
    how, task_id, stage, *rest = json.loads(line)
    reached = Stage[stage.upper()]
    claim = found.setdefault(task_id, Claim())
    if how == "did":
        claim.did = reached
        return
    claim.will = max(claim.will, reached)
    match reached:
        case Stage.ADDED:
            claim.stdin_bytes, claim.text, claim.keyed = rest
        case Stage.ENDED:
            claim.stdout_bytes = rest[0]
            if rest[1]:
                # Any client of the actor may let it expire from now on.
                claim.will = Stage.EXPIRED
        case Stage.REPLAYED:
            claim.replay = rest[0]


async def faults(folder: Path, said: dict[str, Claim]) -> list[str]:
    """What is wrong with the store in a folder. It is opened, as a set would after the loss."""
    store = SqliteStore(folder / "tasks.db", min_free_mib=0)
    blobs = BlobStore(folder / "blobs", min_free_mib=0)
    try:
        await store.open()
    except SchedulerError as error:
        return [f"it does not open: {error}"]
    try:
        return [fault async for fault in _faults(store, blobs, said)]
    finally:
        blobs.close()
        await store.close()


async def _faults(store: SqliteStore, blobs: BlobStore, said: dict[str, Claim]) -> AsyncIterator[str]:
    with closing(sqlite3.connect(store.path)) as database:
        (found,) = database.execute("PRAGMA quick_check").fetchone()
        if found != "ok":
            yield f"the database is damaged: {found}"
            return
    for name in await store.blobs_in_use():
        if not blobs.path(name).exists():
            yield f"blob {name} is missing"
    unfinished = [task.id async for task in store.unfinished()]
    if len(set(unfinished)) != len(unfinished):
        yield "an unfinished task comes twice"
    for task_id, claim in said.items():
        async for fault in _faults_of(store, blobs, task_id, claim):
            yield f"{task_id}, acknowledged as {claim.did.name}, begun {claim.will.name}: {fault}"
    dead = await store.page(TaskFilter("acme", dead=True, limit=1_000))
    sizes = [stdin.size_bytes for task in dead if (stdin := await store.stdin(task.id)) is not None]
    if (totals := await store.dead_letters()) != DeadLetters(len(dead), sum(sizes)):
        yield f"dead letters are counted as {totals}, and there are {len(dead)} of {sizes}"


def _stage_of(task: Task | None) -> Stage:
    if task is None:
        return Stage.NONE
    if task.dead:
        return Stage.DEAD
    if task.replayed_as is not None:
        return Stage.REPLAYED
    return {State.QUEUED: Stage.ADDED, State.RUNNING: Stage.ADDED}.get(task.state, Stage.ENDED)


async def _faults_of(store: SqliteStore, blobs: BlobStore, task_id: str, claim: Claim) -> AsyncIterator[str]:
    task = await store.get(task_id)
    if claim.will is Stage.SYNC:
        # Its row may be lost with the power; what comes back must be whole.
        if task is not None and task.cpu_us != 700:
            yield f"it is billed {task.cpu_us} us"
        return
    stage = _stage_of(task)
    if task is None and claim.will is Stage.EXPIRED:
        return
    if not claim.did <= stage <= claim.will:
        yield f"it is {stage.name}"
        return
    if task is None:
        return
    owner = task
    if stage is Stage.REPLAYED:
        if task.replayed_as != claim.replay:
            yield f"it was replayed as {task.replayed_as} and not {claim.replay}"
        new = await store.get(claim.replay)
        if new is None:
            yield "its replay is missing"
            return
        owner = new
    if stage is Stage.ENDED:
        results = await store.results(task_id)
        if results is None or content(blobs, results.stdout) != body_of(
            f"{task_id} stdout", claim.stdout_bytes
        ):
            yield "its result is not the one that it had"
        if await store.stdin(task_id) is not None:
            yield "it still has its input"
    else:
        stdin = await store.stdin(owner.id)
        if stdin is None or content(blobs, stdin) != body_of(claim.text, claim.stdin_bytes):
            yield "its input is not the one that it had"
    if claim.did and claim.keyed:
        keyed = await store.keyed("acme", claim.text, T0_US)
        if keyed is None or keyed.id != task_id:
            yield f"its key belongs to {keyed and keyed.id}"


def content(blobs: BlobStore, body: Body) -> bytes | None:
    """The bytes of a body; None if they are not there."""
    if body.inline is not None:
        return body.inline
    assert body.blob is not None
    path = blobs.path(body.blob)
    return path.read_bytes() if path.exists() else None


def check(folder: Path, said: dict[str, Claim]) -> list[str]:
    """`faults`, in a loop of its own."""
    return asyncio.run(faults(folder, said))
