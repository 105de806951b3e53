"""Which sets can take a request now. Pure: results and the time come in, no clock and no I/O here.

Two sources: active checks of `/readyz` (down after `fall` failures, up after `rise` successes) and passive
ones, the requests themselves (5 failures in a row eject a set for 30 s × times ejected, 300 s at most).
Back-pressure, a set's own `executed: false`, is never reported here as a failure: else overload would eject
one set after another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EJECT_AFTER_FAILURES = 5
EJECT_S = 30.0
EJECT_MAX_S = 300.0
FORGIVE_AFTER_S = 300.0
"""After this long without an ejection, the count of ejections starts anew."""
REFUSED_PROBE_S = 0.25


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The `health` section: what is asked, how often, and how many results change a verdict."""

    path: str = "/readyz"
    interval_s: float = 2.0
    fall: int = 3
    rise: int = 2
    timeout_s: float = 2.0


class SetHealth:
    """What is known about one set."""

    __slots__ = (
        "down",
        "ejected_until",
        "ejections",
        "failures",
        "last_ejected",
        "refused",
        "streak_bad",
        "streak_good",
    )

    def __init__(self) -> None:
        self.down = False
        """The active checks say so."""
        self.refused = False
        """Its last connection was refused; true until something succeeds."""
        self.streak_bad = 0
        self.streak_good = 0
        self.failures = 0
        """Passive failures in a row."""
        self.ejections = 0
        self.ejected_until = 0.0
        self.last_ejected = 0.0

    def alive(self) -> bool:
        return not self.down and not self.refused

    def ejected(self, now: float) -> bool:
        return now < self.ejected_until

    def word(self, now: float) -> str:
        """One word for people: `up`, `down`, `refused` or `ejected`."""
        if self.down:
            return "down"
        if self.refused:
            return "refused"
        return "ejected" if self.ejected(now) else "up"


class HealthBoard:
    """Health of every set. `now` is any monotonic time in seconds, the same in all calls."""

    def __init__(self, policy: HealthPolicy) -> None:
        self.policy = policy
        self._sets: dict[str, SetHealth] = {}
        self.uneasy = False
        """False: no set has failed since its last success, so that successes need not be told."""
        self.troubled = False
        """False: every set is alive and none is ejected, so that nothing need be asked."""

    def adopt(self, names: Iterable[str], policy: HealthPolicy) -> None:
        """Follow a new table: what is known of a set that stays is kept; a new set is trusted until
        checked."""
        self.policy = policy
        self._sets = {name: self._sets.get(name) or SetHealth() for name in names}
        self._note()

    def forget(self, name: str) -> None:
        """Start anew with a set, as its address changed."""
        if name in self._sets:
            self._sets[name] = SetHealth()
            self._note()

    def of(self, name: str) -> SetHealth:
        return self._sets[name]

    def probe_ok(self, name: str, now: float) -> bool:
        """An active check succeeded. True when this brought the set up."""
        state = self._sets.get(name)
        if state is None:
            return False
        was_alive = state.alive()
        state.refused = False
        state.streak_bad = 0
        state.streak_good += 1
        if state.down and state.streak_good >= self.policy.rise:
            state.down = False
        self._note()
        return state.alive() and not was_alive

    def probe_failed(self, name: str, now: float, *, refused: bool = False) -> bool:
        """An active check failed; `refused`: there was no connection. True when this took the set down."""
        state = self._sets.get(name)
        if state is None:
            return False
        was_alive = state.alive()
        state.streak_good = 0
        state.streak_bad += 1
        if refused:
            state.refused = True
        if state.streak_bad >= self.policy.fall:
            state.down = True
        self._note()
        return was_alive and not state.alive()

    def succeeded(self, name: str) -> None:
        """A request was answered by the set itself."""
        state = self._sets.get(name)
        if state is not None:
            state.failures = 0
            if state.refused:
                state.refused = False
                self._note()
            self.uneasy = any(other.failures or other.refused for other in self._sets.values())

    def failed(self, name: str, now: float, *, refused: bool = False) -> bool:
        """A request failed: no connection (`refused`), a reset before the answer, or a 502/503/504 without
        `X-Task-Id`. True when this ejected the set."""
        state = self._sets.get(name)
        if state is None:
            return False
        state.failures += 1
        self.uneasy = True
        if refused:
            state.refused = True
        ejected = False
        if state.failures >= EJECT_AFTER_FAILURES and not state.ejected(now):
            if now - state.last_ejected > FORGIVE_AFTER_S + EJECT_MAX_S:
                state.ejections = 0
            state.ejections += 1
            state.ejected_until = now + min(EJECT_MAX_S, EJECT_S * state.ejections)
            state.last_ejected = now
            state.failures = 0
            ejected = True
        self._note()
        return ejected

    def usable(self, names: Iterable[str], now: float, *, last_resort: bool = True) -> frozenset[str]:
        """Which of `names` may be chosen now: the healthy; else those that only passive checks ejected (the
        panic rule: the weights count again); else, as a last resort, all, since one of them may just have
        come back."""
        names = tuple(names)
        alive = [name for name in names if self._sets[name].alive()]
        well = frozenset(name for name in alive if not self._sets[name].ejected(now))
        return well or frozenset(alive) or frozenset(names if last_resort else ())

    def settle(self, now: float) -> None:
        """Notice ejections that ran out; call it every second or so."""
        if self.troubled:
            self.troubled = any(not s.alive() or s.ejected(now) for s in self._sets.values())

    def next_probe_s(self, name: str) -> float:
        """How long until a set is asked again: sooner after a refusal, as a restart takes about a second."""
        state = self._sets.get(name)
        if state is not None and state.refused:
            return min(REFUSED_PROBE_S, self.policy.interval_s)
        return self.policy.interval_s

    def _note(self) -> None:
        self.troubled = any(not s.alive() or s.ejected_until > 0.0 for s in self._sets.values())
        self.uneasy = self.uneasy or any(s.refused for s in self._sets.values())
