"""Logs lasting trouble: when it begins, rarely while it goes on, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import structlog

log = structlog.get_logger()

AGAIN_S: Final = 300.0
"""How often, in seconds, the same trouble is logged while it lasts."""
CHANGED_S: Final = 30.0
"""Shortest time, in seconds, between two lines, if the reason changes or the trouble comes and goes."""


class Trouble:
    """One thing that may fail many times in a row. `begins` and `ends` are the texts of its log lines.

    Each line carries `reason`, and how often (`tries`) and for how long (`for_s`) it has failed.
    """

    def __init__(self, begins: str, ends: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._begins = begins
        self._ends = ends
        self._now = now
        self._since_s: float | None = None
        self._logged_s = float("-inf")
        self._reason = ""
        self._tries = 0
        self._known = False

    def met(self, reason: str, **facts: Any) -> None:
        """It failed, again or for the first time."""
        now_s = self._now()
        if self._since_s is None:
            self._since_s, self._tries, self._known = now_s, 0, False
        self._tries += 1
        same = self._known and reason == self._reason
        if now_s - self._logged_s < (AGAIN_S if same else CHANGED_S):
            return
        self._logged_s, self._reason, self._known = now_s, reason, True
        log.warning(
            self._begins, reason=reason, tries=self._tries, for_s=round(now_s - self._since_s, 1), **facts
        )

    def over(self, **facts: Any) -> None:
        """It works again; harmless when nothing had failed."""
        if self._since_s is None:
            return
        since_s, self._since_s = self._since_s, None
        if self._known:
            log.info(self._ends, tries=self._tries, for_s=round(self._now() - since_s, 1), **facts)
