"""Answers for all workers of a router: the worker that accepts an operator's call asks the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from router.admin.counts import Counts, Keeper, added, counts_of, put_back
from router.admin.points import points_since
from router.admin.status import Snapshot, snapshot
from router.counting.curves import STEP_S, Curves
from router.counting.tally import Tally
from router.errors import RouterError
from router.workers.peers import Peers

if TYPE_CHECKING:
    from router.assembly import Router

SAVE_EVERY_S: Final = 5.0
FIRST: Final = 0
"""The worker that draws the curves of all."""

_T = TypeVar("_T")

log = structlog.get_logger()


class WorkerMissing(RouterError):
    """The worker that knows does not answer; ask again."""


class View(msgspec.Struct):
    """The report of one worker about itself."""

    snapshot: Snapshot
    counts: Counts


class Cohorts:
    """The cohorts of all workers, in tallies that grow through a stint, as `Curves` needs them."""

    def __init__(self) -> None:
        self._stint = 0
        self.canary = Tally()
        self.control = Tally()

    def take(self, counts: Counts) -> None:
        if counts.stint != self._stint:
            self._stint, self.canary, self.control = counts.stint, Tally(), Tally()
        for mine, new in ((self.canary, counts.canary), (self.control, counts.control)):
            for name in Tally.__struct_fields__:
                setattr(mine, name, getattr(new, name))


class AllWorkers:
    """This worker and the others. A single worker asks nobody."""

    def __init__(self, router: Router) -> None:
        self._router = router
        group = router.group
        self._keeper: Keeper | None = None
        self._starts = 1
        self._peers: Peers | None = None
        self._curves = router.plane.traffic.curves if group.count == 1 else Curves()
        self._cohorts = Cohorts()
        self._boot = secrets.token_hex(4)
        self._known: dict[int, Counts] = {}
        self._tasks: list[asyncio.Task[None]] = []
        if group.folder is not None:
            self._keeper = _keeper(group.folder, router.index)
            if group.count > 1:
                self._peers = Peers(group.folder, router.index, group.count, self._answer)

    async def start(self) -> None:
        """Go on from the counts of this worker's predecessor, and answer the others. Raises `OSError`."""
        if self._keeper is not None:
            before = self._keeper.read(self._router.group.boot)
            if before is not None:
                put_back(self._router, before)
                self._starts = before.starts + 1
            self._tasks.append(asyncio.create_task(self._save(), name="save counts"))
        if self._peers is not None:
            await self._peers.start()
            if self._router.index == FIRST:
                self._tasks.append(asyncio.create_task(self._draw(), name="curves"))

    async def stop(self) -> None:
        if self._peers is not None:
            self._peers.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._keeper is not None:
            await self._counts()

    # For the admin API.

    async def snapshots(self) -> tuple[list[Snapshot], list[int]]:
        """Return the snapshot of every worker that answers, and the indexes of those that do not."""
        answers = {} if self._peers is None else await self._peers.ask("snapshot")
        found, missing = _decoded(answers, Snapshot)
        return [snapshot(self._router), *found.values()], missing

    async def counted(self) -> tuple[list[Snapshot], Counts, list[int]]:
        """Return the same, and the counts of all workers; of one that does not answer, its last counts."""
        answers = {} if self._peers is None else await self._peers.ask("view")
        found, missing = _decoded(answers, View)
        all_counts = [await self._counts(), *(view.counts for view in found.values())]
        group = self._router.group
        if group.folder is not None:
            for index in missing:
                counts = await asyncio.to_thread(_keeper(group.folder, index).read, group.boot)
                all_counts += [] if counts is None else [counts]
        snapshots = [snapshot(self._router), *(view.snapshot for view in found.values())]
        return snapshots, added(all_counts), missing

    async def rollout_status(self) -> dict[str, Any] | None:
        """Return the rollout's status as its leader knows it, if the leader is one of our workers; None: this router
        has none."""
        rollout = self._router.rollout
        if rollout is None:
            return None
        mine = rollout.status()
        if self._peers is None or mine["leader"]:
            return mine
        for answer in (await self._peers.ask("rollout")).values():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                theirs = json.loads(answer or b"null")
                if theirs["leader"]:
                    return dict(theirs)
        return mine

    async def rollout_document(self) -> dict[str, Any] | None:
        """`rollout_status` with `next`: what a start would do now, at the present rate; None while none is possible."""
        document = await self.rollout_status()
        if document is not None:
            document["next"] = await self._next() if "start" in document["orders"] else None
        return document

    async def _next(self) -> dict[str, Any] | None:
        rollout = self._router.rollout
        if rollout is None:
            return None
        snapshots, _ = await self.snapshots()
        per_s = sum(
            each.sets[name].window.requests_per_s
            for each in snapshots
            for name, share in self._router.plane.traffic.table.default.shares.items()
            if share > 0 and name in each.sets
        )
        return rollout.preview(per_s)

    async def look(self) -> None:
        """Tell the others to put a rollout's order in force now; they would see it within a second."""
        if self._peers is not None:
            await self._peers.ask("look")

    async def curves(self, boot: str, after: int) -> dict[str, Any]:
        """The points after a serial, as `points.points_since` tells them. Raises `WorkerMissing`."""
        if self._peers is None or self._router.index == FIRST:
            return points_since(self._curves, self._router.plane.loop.time(), self._boot, boot, after)
        answer = await self._peers.ask_one(FIRST, f"curves {after} {boot[:64]}")
        if answer is None:
            raise WorkerMissing(f"worker {FIRST}, which draws the curves, does not answer; ask again")
        return dict(json.loads(answer))

    # For the other workers.

    async def _answer(self, question: str) -> bytes:
        word, _, rest = question.partition(" ")
        rollout = self._router.rollout
        match word:
            case "snapshot":
                return msgspec.json.encode(snapshot(self._router))
            case "view":
                return msgspec.json.encode(View(snapshot(self._router), await self._counts()))
            case "counts":
                return msgspec.json.encode(await self._counts())
            case "rollout":
                return json.dumps(None if rollout is None else rollout.status()).encode()
            case "look":
                if rollout is not None:
                    await rollout.turn()
                return b"{}"
            case "curves":
                after, _, boot = rest.partition(" ")
                return json.dumps(await self.curves(boot, int(after))).encode()
        raise ValueError(f"an unknown question: {question[:40]!r}")

    async def _counts(self) -> Counts:
        keeper = self._keeper
        counts = counts_of(self._router, self._starts)
        if keeper is not None:
            await asyncio.to_thread(keeper.write, msgspec.json.encode(counts))
        return counts

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await self._counts()

    async def _draw(self) -> None:
        """Add a point to the curves every few seconds. A worker that does not answer counts as it did last."""
        assert self._peers is not None
        while True:
            found, missing = _decoded(await self._peers.ask("counts"), Counts)
            if missing:
                log.warning("workers do not answer", workers=missing)
            self._known.update(found)
            sum_ = added([await self._counts(), *self._known.values()])
            sets = {name: counts.stats() for name, counts in sum_.sets.items()}
            self._cohorts.take(sum_)
            now = asyncio.get_running_loop().time()
            comparing = self._router.plane.traffic.observer is not None
            self._curves.tick(now, sets, self._cohorts if comparing else None)
            await asyncio.sleep(STEP_S + 0.01)


def _keeper(folder: Path, index: int) -> Keeper:
    return Keeper(folder / f"{index}.counts")


def _decoded(answers: dict[int, bytes | None], kind: type[_T]) -> tuple[dict[int, _T], list[int]]:
    """Return the answers that can be read, and the workers without one."""
    found: dict[int, _T] = {}
    for index, answer in answers.items():
        with contextlib.suppress(msgspec.MsgspecError):
            if answer is not None:
                found[index] = msgspec.json.decode(answer, type=kind)
    return found, sorted(set(answers) - set(found))
