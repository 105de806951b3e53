"""Makes the further attempts of one request, each at its time. `recovery.py` decides about them."""

from __future__ import annotations

import asyncio
from typing import Protocol

from router.relay.held_answer import HeldAnswer
from router.relay.recovery import Recovery
from router.routing.table import SetEntry
from router.wire.failure import Failure


class Tried(Protocol):
    """The owner of the attempts: an exchange."""

    def begin_again(self, entry: SetEntry, *, fresh: bool) -> None:
        """Make another attempt now; `fresh`: on a new connection."""

    def wait_for_retry(self) -> None:
        """Read nothing more of the client's body until the next attempt begins."""

    def pass_refusal(self, answer: HeldAnswer) -> None:
        """Relay the answer of a set that took nothing of the request."""

    def give_up(self, failure: Failure, detail: str) -> None:
        """Tell the client why the last attempt failed."""


class Retrier:
    """Made at a request's first failure.

    `refused`: the answer of a set that took nothing, for the case that no other set takes the request.
    """

    def __init__(self, tried: Tried, recovery: Recovery, loop: asyncio.AbstractEventLoop) -> None:
        self.recovery = recovery
        self.refused: HeldAnswer | None = None
        self._tried = tried
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def retry(self, entry: SetEntry, failure: Failure, *, reused: bool) -> bool:
        """Make another attempt after a failure at `entry`, now or later; False: there will be none."""
        attempt = self.recovery.next_attempt(entry, failure, reused=reused)
        if attempt is None:
            return False
        if attempt.fresh:
            self._begin(attempt.entry, fresh=True)
        else:
            self._tried.wait_for_retry()
            self._timer = self._loop.call_later(attempt.delay_s, self._due)
        return True

    def _due(self) -> None:
        self._timer = None
        attempt = self.recovery.turn()
        if attempt is None:
            if self.refused is not None and self.recovery.failure is Failure.BACK_PRESSURE:
                self._tried.pass_refusal(self.refused)
            else:
                self._tried.give_up(self.recovery.failure, self.recovery.detail)
        elif attempt.delay_s:
            self._timer = self._loop.call_later(attempt.delay_s, self._due)
        else:
            self._begin(attempt.entry, fresh=False)

    def _begin(self, entry: SetEntry, *, fresh: bool) -> None:
        self.refused = None
        self._tried.begin_again(entry, fresh=fresh)

    def end(self) -> None:
        """The request is over."""
        self.recovery.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
