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
from router.choosing.retry import RequestKind, may_repeat
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

    Nothing reports failures to the health board, so every set counts as healthy.
    """

    def __init__(self, agenda: Agenda, names: Sequence[str], plan: RouterPlan) -> None:
        share, left = divmod(WEIGHT_TOTAL, len(names))
        entries = {name: SetEntry(name, "h", 1, max_inflight=plan.max_inflight) for name in names}
        shares = {name: share + (number < left) for number, name in enumerate(names)}
        table = Table(1, entries, Weights(entries, shares), key_parts=_KEYS[plan.by])
        board = HealthBoard(table.health)
        board.adopt(table.sets, table.health)
        self.loads = {name: Load() for name in names}
        self._chooser = Chooser(table, board, self.loads)
        self._attempts = table.retry.attempts
        self._policy = table.retry
        self._agenda = agenda
        self._sets: dict[str, VirtualSet] = {}

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
            load = self.loads[entry.name]
            # A submission is answered at once, so only a synchronous task is in flight while it runs.
            load.inflight += task.steady
            refusal = self._sets[entry.name].arrive(task)
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


class Answered:
    """Tells the router's load, and then the books, that a task is answered."""

    def __init__(self, load: Load, books: Watch) -> None:
        self._load = load
        self._books = books
        self.began = books.began
        self.stopped = books.stopped
        self.slot_ended = books.slot_ended

    def ended(self, task: VirtualTask, how: End) -> None:
        """The task ended."""
        self._load.inflight -= task.steady
        self._books.ended(task, how)


def _no_header(_: bytes) -> bytes | None:
    return None
