"""The right to run tasks when a link breaks: a node has it as long as its set last granted. Pure; times are seconds.

The executor sends its own clock in each BEAT, and the set returns it in a GRANT. The grant lasts for `lease_s` from the
moment that it carries, so a grant that was delayed is worth less, and a wrong clock does no harm: each end compares
its own clock with itself alone. Without a grant the executor kills its tasks. The set waits for a quarter more, for
clocks that run unevenly and for the kill itself; then the tasks may run elsewhere.
"""

from __future__ import annotations

import time
from typing import Final

from sets.executor.link.frames import LinkError

LEASE_S: Final = 2.0
"""How long a grant lasts: with beats four times as often, a broken link is noticed within 3 s."""
BEATS_A_LEASE: Final = 4
KILL_SHARE: Final = 0.25
"""Part of a lease that the node has for killing its tasks."""


def clock_s() -> float:
    """Seconds that never go back, and go on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Grants:
    """The set's side."""

    def __init__(self, lease_s: float, now: float) -> None:
        self.lease_s = lease_s
        self._heard = self._granted = now

    def beat(self, now: float) -> None:
        """A BEAT came and is answered with a GRANT."""
        self._heard = self._granted = now

    @property
    def silent_at(self) -> float:
        """When the link counts as broken, unless a BEAT comes before."""
        return self._heard + self.lease_s

    @property
    def over_at(self) -> float:
        """When no task of this link runs on the node any more, whatever the node knows."""
        return self._granted + self.lease_s * (1 + KILL_SHARE)


class Tenure:
    """The executor's side. `now` is its own clock."""

    def __init__(self, lease_s: float, now: float) -> None:
        self.lease_s = lease_s
        # The clock of the newest BEAT that was answered.
        self._sent_us = self.granted_us = int(now * 1e6)

    def beat(self, now: float) -> int:
        """Return what the BEAT that is sent now carries."""
        self._sent_us = int(now * 1e6)
        return self._sent_us

    def granted(self, clock_us: int) -> None:
        """A GRANT came for the BEAT that carried `clock_us`. Raises `LinkError` for one that was never sent."""
        if not self.granted_us <= clock_us <= self._sent_us:
            raise LinkError("a GRANT for a BEAT that was not sent")
        self.granted_us = clock_us

    @property
    def over_at(self) -> float:
        """When the tasks must be killed, unless a GRANT comes before."""
        return self.granted_us / 1e6 + self.lease_s
