"""The router of a run: the real table, health board and chooser, one choice for each task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ops.simulator.agenda import Agenda
from ops.simulator.scenario import RouterPlan
from ops.simulator.virtual_set import End, VirtualSet, VirtualTask, Watch
from router.choosing.choice import Chooser
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind, may_repeat, within_budget
from router.routing.table import WEIGHT_TOTAL, KeyPart, KeySource, SetEntry, Table, Weights
from router.wire.failure import Failure
from scheduler.errors import Unavailable

_SYNC: Final = Purpose(Destination.RUN, RequestKind.SYNC_RUN)
_ASYNC: Final = Purpose(Destination.RUN, RequestKind.UNSAFE)
_KEYS: Final = {
    "request": (KeyPart(KeySource.HEADER, b"x-user-id"),),
    "account": (KeyPart(KeySource.ACCOUNT),),
    "image": (KeyPart(KeySource.IMAGE),),
}

SETTLE_EVERY_S: Final = 1.0
"""How often the router looks what time alone has mended, in seconds."""


class Request:
    """The facts of the requests of one account for one image."""

    __slots__ = ("account", "client", "image", "method", "path")

    def __init__(self, account: str, image: str) -> None:
        self.account = account
        self.image: str | None = image
        self.method = "POST"
        self.path = f"/v1/run/{image}"
        self.client = "10.0.0.1"

    @property
    def header(self) -> Callable[[bytes], bytes | None]:
        return _no_header


class Load:
    """The requests that a set has in flight."""

    __slots__ = ("inflight",)

    def __init__(self) -> None:
        self.inflight = 0


class Front:
    """Sends each task to the set that the router would choose, with equal weights. `serve` adds the sets.

    `watches`: sets may die. Then the router checks each as often as it does in production; else none is checked, as all
    are healthy.
    """

    def __init__(
        self, agenda: Agenda, names: Sequence[str], plan: RouterPlan, *, watches: bool = False
    ) -> None:
        share, left = divmod(WEIGHT_TOTAL, len(names))
        entries = {name: SetEntry(name, "h", 1, max_inflight=plan.max_inflight) for name in names}
        shares = {name: share + (number < left) for number, name in enumerate(names)}
        table = Table(1, entries, Weights(entries, shares), key_parts=_KEYS[plan.by])
        board = HealthBoard(table.health)
        board.adopt(table.sets, table.health)
        self.loads = {name: Load() for name in names}
        self._board = board
        self._chooser = Chooser(table, board, self.loads)
        # Tasks that were sent to a second set and are not answered yet.
        self._retried: set[str] = set()
        self._attempts = table.retry.attempts
        self._policy = table.retry
        self._agenda = agenda
        self._sets: dict[str, VirtualSet] = {}
        if watches:
            agenda.at(0.0, self._settle)
            for name in names:
                agenda.at(0.0, self._check, name)

    def serve(self, each: VirtualSet) -> None:
        """Add a set."""
        self._sets[each.name] = each

    def send(self, task: VirtualTask, request: Request) -> bool:
        """Send a task to a set; returns False where none takes it."""
        now = self._agenda.now
        purpose = _SYNC if task.steady else _ASYNC
        choice = self._chooser.choose(purpose, request, None, now)
        entry, tried = choice.entry, frozenset[str]()
        while entry is not None:
            load, each = self.loads[entry.name], self._sets[entry.name]
            if each.is_down:
                self._board.failed(entry.name, now, refused=True)
                tried |= {entry.name}
                if len(tried) >= self._attempts or not self._repeats(purpose.kind, Failure.CONNECT):
                    return False
                entry = self._chooser.another(choice, tried, now)
                continue
            # A submission is answered at once, so only a synchronous task is in flight while it runs.
            load.inflight += task.steady
            refusal = each.arrive(task)
            if self._board.uneasy:
                self._board.succeeded(entry.name)
            if refusal is None:
                return True
            load.inflight -= task.steady
            tried |= {entry.name}
            full = isinstance(refusal, Unavailable)
            if not full or len(tried) >= self._attempts:
                return False
            if not may_repeat(purpose.kind, Failure.BACK_PRESSURE, self._policy):
                return False
            entry = self._chooser.another(choice, tried, now)
        return False

    def answered(self, name: str, task: VirtualTask) -> None:
        """The set has answered the task."""
        self.loads[name].inflight -= task.steady
        if self._retried:
            self._retried.discard(task.id)

    def broke_off(self, name: str, tasks: Sequence[VirtualTask]) -> list[VirtualTask]:
        """The connections of these tasks, whose callers wait, have ended with their set: they are sent to others.

        Returns those that are not, as they are more than the router's budget of retries: their callers hear of it.
        """
        self.loads[name].inflight -= len(tasks)
        for _ in tasks:
            self._board.failed(name, self._agenda.now, lost=True)
        given_up = []
        for task in tasks:
            if self._repeats(RequestKind.SYNC_RUN, Failure.RESET):
                self._retried.add(task.id)
                if self.send(task, Request(task.key.account, task.key.image_digest)):
                    continue
                self._retried.discard(task.id)
            given_up.append(task)
        return given_up

    def _repeats(self, kind: RequestKind, failure: Failure) -> bool:
        active = sum(load.inflight for load in self.loads.values())
        return may_repeat(kind, failure, self._policy) and within_budget(
            self._policy, active_requests=active, active_retries=len(self._retried)
        )

    # -- health

    def _check(self, name: str) -> None:
        now = self._agenda.now
        if self._sets[name].is_down:
            self._board.probe_failed(name, now, refused=True)
        else:
            self._board.probe_ok(name, now)
        self._agenda.at(now + self._board.next_probe_s(name), self._check, name)

    def _settle(self, _: object) -> None:
        self._board.settle(self._agenda.now)
        self._agenda.at(self._agenda.now + SETTLE_EVERY_S, self._settle)


class Answered:
    """Tells the router, and then the books, that a task of this set is answered."""

    def __init__(self, front: Front, name: str, books: Watch) -> None:
        self._front = front
        self._name = name
        self._books = books
        self.began = books.began
        self.stopped = books.stopped
        self.slot_ended = books.slot_ended

    def ended(self, task: VirtualTask, how: End) -> None:
        """The task ended."""
        self._front.answered(self._name, task)
        self._books.ended(task, how)


def _no_header(_: bytes) -> bytes | None:
    return None
