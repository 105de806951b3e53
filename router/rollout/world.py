"""A made-up data plane: sets with tempers, clients with keys, and the real table, chooser, health board, observer and
rollout between them. No I/O, no clock but its own; the same seed gives the same history."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from router.choosing.choice import Choice, Chooser
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.counting.observer import Observer
from router.counting.tally import Answered, Outcome, Tally
from router.rollout.applier import Applier
from router.rollout.glide import Load
from router.rollout.lead import Evidence, Lead
from router.rollout.orders import completed, starting
from router.rollout.progress import advance
from router.rollout.record import GateSaid, Happening, Progress
from router.routing.plan import Plan
from router.routing.table import SetEntry, SetState, Table, Weights
from router.wire.failure import Failure

_RUN: Final = Purpose(Destination.RUN, RequestKind.SYNC_RUN)
MAX_REQUESTS_A_TICK: Final = 500
COLD_START_S: Final = 10.0
BURST_S: Final = 15.0
BURST_EVERY_S: Final = 300.0
WANDER_S: Final = 60.0
"""Time after which a wandering latency remembers only a third of where it was."""


class Temper(msgspec.Struct):
    """How a set behaves: shares of 1, milliseconds, and how many requests fit into it at once (None: any)."""

    error: float = 0.005
    task_failed: float = 0.02
    median_ms: float = 20.0
    spread: float = 0.5
    room: int | None = None
    down: bool = False
    hangs: bool = False
    """It accepts, and never answers: clients leave after `patience_s`."""
    hang_share: float = 0.0
    """The share of requests that it never answers."""
    wander: float = 0.0
    """How far its latency wanders by itself: the standard deviation of the logarithm, over some minutes."""
    burst_error: float = 0.0
    """The share of requests that fail in a burst: one of `BURST_S`, every `BURST_EVERY_S` on average."""
    cold_starts: int = 0
    """How many requests after each growth of its weight wait `COLD_START_S` for a slot."""


class _Caller(msgspec.Struct):
    """The facts of one request: a user's key."""

    user: bytes
    method: str = "POST"
    path: str = "/v1/run/cat"
    account: str = "default"
    image: str | None = "cat"
    client: str = "10.0.0.1"

    @property
    def header(self) -> Callable[[bytes], bytes | None]:
        return lambda name: self.user if name == b"x-user-id" else None


class Served(msgspec.Struct):
    """The requests of one tick: by home, by the set that they reached, and by their outcome for clients."""

    homed: dict[str, int] = msgspec.field(default_factory=dict)
    reached: dict[str, int] = msgspec.field(default_factory=dict)
    ok: int = 0
    failed: int = 0
    moved_at: tuple[Table, Table] | None = None
    """The tables before and after, where the weights in force changed."""


class World:
    """`tick` lets `tick_s` pass: requests, health checks, then the leader's turn. Change `tempers`, `rate` and `clock`
    between ticks as you like, and give orders with `happen`."""

    patience_s = 20.0
    """How long clients wait for an answer."""
    sick_user: bytes | None = None
    """A user whose requests fail at every set, `sick_share` of all."""
    sick_share = 0.05
    slope_per_h = 0.0
    """By how much the latency of all sets grows in an hour, as over a day."""

    def __init__(
        self,
        plan: Plan,
        shares: Mapping[str, int],
        *,
        seed: int = 0,
        rate: float = 10.0,
        users: int = 5_000,
        tick_s: float = 5.0,
        max_inflight: Mapping[str, int] | None = None,
    ) -> None:
        limits = max_inflight or {}
        sets = {
            name: SetEntry(name, "h", port, max_inflight=limits.get(name))
            for port, name in enumerate(shares, 1)
        }
        self.plan = plan
        self.rng = random.Random(seed)
        self.tempers = {name: Temper() for name in shares}
        self.rate = rate
        self.users = users
        self.tick_s = tick_s
        self.at_s = 0.0
        """Time of the simulation; it never jumps."""
        self.clock = 1.7e9
        """Time on the router's wall clock."""
        self.file = Table(version=1, sets=sets, default=Weights(sets, shares), rollout=plan)
        self.table = self.file
        """The one in force."""
        self.progress = Progress()
        self.board = HealthBoard(self.file.health)
        self.loads = {name: InFlight() for name in sets}
        self.builds: dict[str, str] = {}
        """Builds that the sets report."""
        self.users_at: dict[str, set[bytes]] = {name: set() for name in sets}
        """Users whose requests reached each set."""
        self._wandered = dict.fromkeys(sets, 0.0)
        self._bursts = dict.fromkeys(sets, -BURST_S)
        """When each set's last burst of errors began."""
        self._cold = dict.fromkeys(sets, 0)
        self._begin()

    def _begin(self) -> None:
        """As a router's process begins: with what the file and the rollout's progress say."""
        self.observer: Observer | None = None
        """Receives requests while two cohorts are compared."""
        self.watching = Observer()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        """Requests that end later than the tick in which they began: when, and in which order."""
        self._serial = 0
        self._leading = Lead()
        self._applier = Applier(self, self.watching)
        self.adopt(self.file)
        self._apply()

    # What operators do.

    def happen(self, happening: Happening) -> None:
        """An order, or news of the gate. Raises `NotAllowed` where it does not fit."""
        order = completed(happening, self.file, self.progress)
        self.progress, _ = advance(self.progress, order, self.clock)
        self._apply()

    def start(self) -> None:
        self.happen(starting(self.file, self.progress, by="ops", builds=self.builds))

    def edit(self, shares: Mapping[str, int]) -> None:
        """Save other default weights in the file."""
        default = Weights(self.file.sets, shares)
        self.file = replace(self.file, version=self.file.version + 1, default=default)
        self._apply()

    def set_state(self, name: str, state: SetState) -> None:
        sets = {**self.file.sets, name: replace(self.file.sets[name], state=state)}
        default = Weights(sets, self.file.default.shares)
        self.file = replace(self.file, version=self.file.version + 1, sets=sets, default=default)
        self._apply()

    def restart(self) -> None:
        """The router's process ends and begins again: only the state file is left."""
        self.progress = msgspec.json.decode(msgspec.json.encode(self.progress), type=Progress)
        self.board = HealthBoard(self.file.health)
        self._begin()

    # Time.

    def tick(self, *, leader: bool = True) -> Served:
        """Let time pass. `leader` False: nobody's clock runs, as while a lease changes hands."""
        served = Served()
        self.at_s += self.tick_s
        self.clock += self.tick_s
        for name, temper in self.tempers.items():
            for _ in range(math.ceil(self.tick_s / self.board.policy.interval_s)):
                if temper.down:
                    self.board.probe_failed(name, self.at_s, refused=True)
                else:
                    self.board.probe_ok(name, self.at_s)
        self.board.settle(self.at_s)
        while self._later and self._later[0][0] <= self.at_s:
            heapq.heappop(self._later)[2]()
        for name, temper in self.tempers.items():
            if temper.burst_error and self.rng.random() < self.tick_s / BURST_EVERY_S:
                self._bursts[name] = self.at_s
            if temper.wander:
                kept = math.exp(-self.tick_s / WANDER_S)
                fresh = self.rng.gauss(0.0, temper.wander * math.sqrt(1 - kept * kept))
                self._wandered[name] = kept * self._wandered[name] + fresh
        for _ in range(min(MAX_REQUESTS_A_TICK, self._arrivals())):
            self._request(served)
        for name, load in self.loads.items():
            temper = self.tempers[name]
            hold_s = self.patience_s if temper.hangs else temper.median_ms / 1000
            hold_s += temper.hang_share * self.patience_s
            load.inflight = int(served.reached.get(name, 0) / self.tick_s * hold_s)
        before = self.table
        if leader:
            self._lead()
        if self.table.default is not before.default:
            served.moved_at = (before, self.table)
        return served

    def _lead(self) -> None:
        self.progress, asked = self._leading.turn(
            self.progress, self.file, self._seen, self.clock, self.builds
        )
        for question in asked:
            self.progress, _ = advance(self.progress, GateSaid(question.serial, True), self.clock)
        self._apply()

    def _seen(self, stint: int) -> Evidence:
        loads = {
            name: Load(load.inflight, self.file.sets[name].max_inflight) for name, load in self.loads.items()
        }
        if self.watching.stint != stint:
            return Evidence(Tally(), Tally(), loads)
        return Evidence(*self.watching.seen(self.at_s), loads)

    def _apply(self) -> None:
        self._applier.apply(self.file, self.progress)

    def adopt(self, table: Table) -> None:
        """Choose by another table from now on."""
        for name, share in table.default.shares.items():
            if share > self.table.default.shares.get(name, 0):
                self._cold[name] = self.tempers[name].cold_starts
        self.board.adopt(table.sets, table.health)
        self.chooser = Chooser(table, self.board, self.loads)
        self.table = table

    # One request.

    def _arrivals(self) -> int:
        mean = self.rate * self.tick_s
        if mean <= 0:
            return 0
        return max(0, round(self.rng.gauss(mean, math.sqrt(mean))))

    def _request(self, served: Served) -> None:
        rng = self.rng
        user = b"user-%d" % rng.randrange(self.users)
        if self.sick_user is not None and rng.random() < self.sick_share:
            user = self.sick_user
        caller = _Caller(user)
        now = self.at_s
        choice = self.chooser.choose(_RUN, caller, None, now)
        self.chooser.tell_passed_over(choice, self.watching, now)
        if choice.home is not None:
            served.homed[choice.home.name] = served.homed.get(choice.home.name, 0) + 1
        entry = choice.entry
        tried: frozenset[str] = frozenset()
        while entry is not None and len(tried) < 2:
            served.reached[entry.name] = served.reached.get(entry.name, 0) + 1
            self.users_at[entry.name].add(user)
            if self._attempt(choice, entry, sick=user == self.sick_user):
                served.ok += 1
                return
            tried |= {entry.name}
            entry = self.chooser.another(choice, tried, now)
        served.failed += 1

    def _attempt(self, choice: Choice, entry: SetEntry, *, sick: bool) -> bool:
        """True: an answer, good or bad, went to the client."""
        temper = self.tempers[entry.name]
        rng, board, now = self.rng, self.board, self.at_s
        if temper.down:
            board.failed(entry.name, now, refused=True)
            self.watching.failed(choice, entry, Failure.CONNECT, 0.001)
            return False
        if temper.hangs or (temper.hang_share and rng.random() < temper.hang_share):
            patience_s = self.patience_s
            self._after(
                patience_s, choice, entry, lambda: self.watching.client_left(choice, entry, patience_s)
            )
            return True
        if temper.room is not None and self.loads[entry.name].inflight >= temper.room:
            self.watching.failed(choice, entry, Failure.BACK_PRESSURE, 0.001)
            return False
        latency_s = temper.median_ms / 1000 * math.exp(rng.gauss(0.0, temper.spread))
        latency_s *= math.exp(self._wandered[entry.name]) * (1 + self.slope_per_h * now / 3600.0)
        if self._cold[entry.name]:
            self._cold[entry.name] -= 1
            latency_s += COLD_START_S
        chance = rng.random()
        error = temper.error
        if temper.burst_error and now - self._bursts[entry.name] < BURST_S:
            error = max(error, temper.burst_error)
        if sick or chance < error:
            board.failed(entry.name, now)
            answer = Answered(Outcome.ERROR, 502)
        else:
            if board.uneasy:
                board.succeeded(entry.name)
            failed = chance < error + (1 - error) * temper.task_failed
            answer = Answered(Outcome.TASK_FAILED if failed else Outcome.OK)
        self._after(
            latency_s, choice, entry, lambda: self.watching.answered(choice, entry, answer, latency_s)
        )
        return True

    def _after(self, delay_s: float, choice: Choice, entry: SetEntry, event: Callable[[], None]) -> None:
        """End a request: at once where it takes less than a tick, else it is open until then."""
        if delay_s < self.tick_s:
            event()
            return
        began = self.at_s
        waiting = self.watching.began(choice, entry, began)

        def end() -> None:
            if waiting is not None:
                waiting.end()
            event()

        self._serial += 1
        heapq.heappush(self._later, (began + delay_s, self._serial, end))


class InFlight:
    """A set's requests in flight, as the chooser asks for it."""

    __slots__ = ("inflight",)

    def __init__(self) -> None:
        self.inflight = 0
