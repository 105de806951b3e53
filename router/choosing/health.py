"""Tells which sets can take a request now. Pure: results and the time come in, no clock and no I/O here.

Two sources decide. Active checks of `/readyz` take a set down after `fall` failures, and up after `rise` successes.
Passive checks are the requests themselves: 5 failures in a row eject a set for 30 s × times ejected, 300 s at most.
Back-pressure, a set's own `executed: false`, is never reported here as a failure, else overload would eject one set
after another; a set that says it drains gets no new work until a check succeeds.

A restart costs a set connections, not trust: an ejection for lost connections alone ends with the checks, one for bad
answers lasts its full time. But a set that ends unannounced soon after it returned is crashing: from the second such
end on, its return is put off, as long as an ejection and longer each time. Ejections and crashes are forgotten one by
one while the set is well. A set that returns starts slowly: its weight grows back over `slow_start_s`, because its
slots are cold.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Final

from router.routing.policies import HealthPolicy
from router.wire.failure import Failure

FADE_S: Final = 120.0
"""Time in good health, in seconds, after which one ejection and one crash are forgotten."""
REFUSED_PROBE_S: Final = 0.25
SLOW_START_STEPS: Final = 10
"""Steps in which a returning set's weight grows. Each one costs the choice a recalculation."""


class Blame(enum.Enum):
    """The blame that a set gets for a failed request."""

    REFUSED = enum.auto()
    """There was no connection."""
    LOST = enum.auto()
    """A connection ended before the answer."""
    BAD = enum.auto()
    """It is reachable but does not work: it sent no valid answer, or none at all."""


def blame_for(failure: Failure, *, reused: bool) -> Blame | None:
    """Return a set's blame for a failed request; None: it is not to blame.

    A slow algorithm (TIMEOUT) is not its set's fault, and a kept connection may end at any time. NO_ROOM is a lack of
    our own, and `executed: false` is no failure.
    """
    if failure is Failure.CONNECT:
        return Blame.REFUSED
    if failure is Failure.RESET or (failure is Failure.SEND and not reused):
        return Blame.LOST
    if failure in (Failure.BAD_ANSWER, Failure.SILENT):
        return Blame.BAD
    return None


class SetHealth:
    """The health of one set."""

    __slots__ = (
        "bad_answers",
        "because",
        "crashes",
        "down",
        "ejected_until",
        "ejections",
        "ended",
        "failures",
        "last_away",
        "last_end",
        "leaving",
        "lost",
        "refused",
        "returned",
        "row_since",
        "streak_bad",
        "streak_good",
        "was_up",
    )

    def __init__(self) -> None:
        self.down = False
        """The active checks say so."""
        self.refused = False
        """Its last connection was refused; true until something succeeds."""
        self.leaving = False
        """It said that it is ending and takes no new work; true until a check succeeds."""
        self.streak_bad = 0
        self.streak_good = 0
        self.failures = 0
        """Number of passive failures in a row."""
        self.bad_answers = 0
        """Number of those failures that were bad answers, not lost connections."""
        self.row_since = -math.inf
        """When that row began."""
        self.last_end = -math.inf
        """When it last refused a connection, or said that it ends."""
        self.lost = False
        """The ejection now is for lost connections alone."""
        self.because = ""
        """Reason of the last ejection."""
        self.ejections = 0
        self.crashes = 0
        """How often it ended unannounced; like `ejections`, forgotten while it is well."""
        self.ended = False
        """A check found that it ended unannounced, and it has not returned yet."""
        self.ejected_until = -math.inf
        self.was_up = False
        """It was seen at work: only then can it return."""
        self.returned = -math.inf
        """When it came to life again; never: it was there from the start."""
        self.last_away = -math.inf
        """When a request last had to go elsewhere though it belonged here, as far as this process saw."""

    def alive(self) -> bool:
        """It can be asked, if not for new work."""
        return not self.down and not self.refused

    def ejected(self, now: float) -> bool:
        return now < self.ejected_until

    def takes_work(self) -> bool:
        return not self.down and not self.refused and not self.leaving

    def well(self, now: float) -> bool:
        return not self.down and not self.refused and not self.leaving and now >= self.ejected_until

    def well_since(self) -> float:
        return max(self.returned, self.ejected_until)

    def fade(self, now: float) -> None:
        """Reduce its counts by the time in good health that ends now."""
        if (self.ejections or self.crashes) and self.takes_work():
            times = int(max(0.0, now - self.well_since()) // FADE_S)
            self.ejections = max(0, self.ejections - times)
            self.crashes = max(0, self.crashes - times)

    def word(self, now: float) -> str:
        """One word for people: `up`, `down`, `refused`, `draining` or `ejected`."""
        if self.down:
            return "down"
        if self.refused:
            return "refused"
        if self.leaving:
            return "draining"
        return "ejected" if self.ejected(now) else "up"


class HealthBoard:
    """Health of every set. `now` is any monotonic time in seconds, the same in all calls."""

    def __init__(self, policy: HealthPolicy) -> None:
        self.policy = policy
        self._sets: dict[str, SetHealth] = {}
        self.uneasy = False
        """False: no set has failed since its last success, so successes need not be reported."""
        self.troubled = False
        """False: every set is alive, none is ejected and none starts slowly, so nothing need be asked."""
        self.generation = 0
        """Another number: what `usable` and `part` answer may have changed; see `refresh`."""
        self._due = math.inf
        self._latest = -math.inf
        """Time of the last report."""

    def adopt(self, names: Iterable[str], policy: HealthPolicy) -> None:
        """Follow a new table: what is known of a set that stays is kept; a new set is trusted until
        checked."""
        self.policy = policy
        self._sets = {name: self._sets.get(name) or SetHealth() for name in names}
        self._changed()

    def forget(self, name: str) -> None:
        """Forget a set's health, as its address changed."""
        if name in self._sets:
            self._sets[name] = SetHealth()
            self._changed()

    def of(self, name: str) -> SetHealth:
        return self._sets[name]

    def probe_ok(self, name: str, now: float) -> bool:
        """An active check succeeded. True when this brought the set up."""
        state = self._sets.get(name)
        if state is None:
            return False
        self._latest = now
        took_work = state.takes_work()
        state.refused = state.leaving = False
        state.streak_bad = 0
        state.streak_good += 1
        forgiven = False
        if state.streak_good >= self.policy.rise:
            state.down = False
            forgiven = self._forgive_restart(state, now)
        if state.takes_work() == took_work and not forgiven:
            state.was_up = state.was_up or state.takes_work()
            return False
        self._returned(state, now)
        state.was_up = True
        return True

    def _forgive_restart(self, state: SetHealth, now: float) -> bool:
        """Forget the connections that a restart cost: a refusal meanwhile tells it from a set that loses requests
        while it runs. True when this ended an ejection."""
        if state.last_end < state.row_since:
            return False
        if not state.bad_answers:
            state.failures = 0
        if not (state.lost and state.ejected(now)):
            return False
        state.lost = False
        state.ejected_until = now
        state.ejections = max(0, state.ejections - 1)
        return True

    def probe_failed(self, name: str, now: float, *, refused: bool = False) -> bool:
        """An active check failed; `refused`: there was no connection. True when this took the set down."""
        state = self._sets.get(name)
        if state is None:
            return False
        self._latest = now
        was_alive = state.alive()
        state.streak_good = 0
        state.streak_bad += 1
        if refused or state.streak_bad >= self.policy.fall:
            state.fade(now)
        if refused:
            state.refused = True
            state.last_end = now
            if state.was_up and not state.leaving and not state.ended:
                state.ended = True
                state.crashes += 1
        if state.streak_bad >= self.policy.fall:
            state.down = True
        if state.alive() == was_alive:
            return False
        self._changed()
        return True

    def drains(self, name: str, now: float) -> bool:
        """A set refused a task because it ends: no new work until a check succeeds. True when this is news."""
        state = self._sets.get(name)
        if state is None or state.leaving:
            return False
        self._latest = now
        state.fade(now)
        state.leaving = True
        state.last_end = now
        state.streak_good = 0
        self._changed()
        return True

    def succeeded(self, name: str) -> None:
        """A request was answered by the set itself, at about the time of the last report."""
        state = self._sets.get(name)
        if state is not None:
            state.failures = state.bad_answers = 0
            state.was_up = True
            if state.refused:
                state.refused = False
                if state.takes_work():
                    self._returned(state, self._latest)
            self.uneasy = any(other.failures or other.refused for other in self._sets.values())

    def failed(self, name: str, now: float, *, refused: bool = False, lost: bool = False) -> bool:
        """A request failed: no connection (`refused`), a reset before the answer (`lost`), or a bad answer or none
        (a 502/503/504 without `X-Task-Id`, too). True when this ejected the set."""
        state = self._sets.get(name)
        if state is None:
            return False
        self._latest = now
        if not state.failures:
            state.bad_answers = 0
            if not (state.lost and state.ejected(now)):
                state.row_since = now
        state.failures += 1
        if not refused and not lost:
            state.bad_answers += 1
        self.uneasy = True
        changed = refused and not state.refused
        if refused:
            state.fade(now)
            state.refused = True
            state.last_end = now
            # Checks before it were about the process that has ended.
            state.streak_good = 0
        ejected = False
        if state.failures >= self.policy.eject_after and not state.ejected(now):
            state.fade(now)
            state.ejections += 1
            state.ejected_until = now + self.policy.away_s(state.ejections)
            state.lost = not state.bad_answers
            state.failures = 0
            ejected = changed = True
        if changed:
            self._changed()
        return ejected

    def usable(self, names: Iterable[str], now: float, *, last_resort: bool = True) -> frozenset[str]:
        """Return the sets of `names` that may be chosen now: the healthy ones.

        With `last_resort`, if none is healthy: those that only passive checks ejected (the panic rule: the weights
        count again), then those that can at least be asked; else all, since one of them may just have come back.
        """
        names = tuple(names)
        sets = self._sets
        well = frozenset(name for name in names if sets[name].well(now))
        if well or not last_resort:
            return well
        return (
            frozenset(name for name in names if sets[name].takes_work())
            or frozenset(name for name in names if sets[name].alive())
            or frozenset(names)
        )

    def part(self, name: str, now: float) -> float:
        """How much of its weight a set has now: 0 away, 1 whole, between them while it starts slowly."""
        state = self._sets[name]
        return self._slow_part(state, now) if state.well(now) else 0.0

    def word(self, name: str, now: float) -> str:
        """One word for people: `up`, `slow start`, `down`, `refused` or `ejected`."""
        state = self._sets[name]
        return "slow start" if 0.0 < self.part(name, now) < 1.0 else state.word(now)

    def words(self, now: float) -> dict[str, str]:
        """`word` of every set."""
        return {name: self.word(name, now) for name in self._sets}

    def _slow_part(self, state: SetHealth, now: float) -> float:
        window = self.policy.slow_start_s
        since = now - state.well_since()
        if since >= window:
            return 1.0
        return max(1, int(since / window * SLOW_START_STEPS)) / SLOW_START_STEPS

    def refresh(self, now: float) -> int:
        """The `generation` for this moment: it has grown when an ejection ran out or a slow start went a step on."""
        if now >= self._due:
            self.generation += 1
            self._schedule(now)
        return self.generation

    def passed_over(self, name: str, now: float) -> None:
        """Note that work which belonged to a set had to go elsewhere: it was away, or full."""
        self._sets[name].last_away = now

    def away_since(self, name: str, moment: float) -> bool:
        """Return True if work that belonged to a set may have gone elsewhere after `moment`."""
        return self._sets[name].last_away >= moment

    def settle(self, now: float) -> None:
        """Notice what time alone has mended; call it every second or so."""
        self._latest = now
        if self.troubled:
            self.refresh(now)
            self.troubled = any(not s.well(now) or self._slow_part(s, now) < 1.0 for s in self._sets.values())

    def next_probe_s(self, name: str) -> float:
        """How long until a set is asked again: sooner after a refusal, as a restart takes about a second."""
        state = self._sets.get(name)
        if state is not None and (state.refused or state.leaving):
            return min(REFUSED_PROBE_S, self.policy.interval_s)
        return self.policy.interval_s

    def _returned(self, state: SetHealth, now: float) -> None:
        # A set that is first seen starting, as its router, is not cold beside others.
        if state.was_up:
            state.returned = now
        if state.ended:
            state.ended = False
            if state.crashes > 1:
                state.ejected_until = max(state.ejected_until, now + self.policy.away_s(state.crashes - 1))
                state.because = f"it ended without a word {state.crashes} times"
                state.lost = False
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._due = -math.inf  # The next `refresh` works it out.
        self.troubled = any(
            not s.takes_work() or max(s.returned, s.ejected_until) > -math.inf for s in self._sets.values()
        )
        self.uneasy = self.uneasy or any(s.refused for s in self._sets.values())

    def _schedule(self, now: float) -> None:
        """When `part` of any set changes next by itself."""
        due = math.inf
        for state in self._sets.values():
            if not state.takes_work():
                continue
            if state.ejected(now):
                due = min(due, state.ejected_until)
            elif self._slow_part(state, now) < 1.0:
                due = min(due, now + self.policy.slow_start_s / SLOW_START_STEPS)
        self._due = due
