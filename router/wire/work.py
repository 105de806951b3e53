"""The work on a request, as its client's connection sees it."""

from __future__ import annotations

from typing import Protocol

from router.wire.problems import Problem
from router.wire.stream import Piece


class Work(Protocol):
    """The work on a request: an exchange with a set, or a list merged over sets."""

    def start(self, pieces: list[Piece]) -> None: ...
    def send_body(self, pieces: list[Piece], *, last: bool, shared: bool) -> bool: ...
    def on_client_drained(self) -> None: ...
    def cancel(self, problem: Problem | None = None) -> None:
        """End it: the client is gone, or its request broke as `problem` says."""

    def timed_out(self, now: float) -> bool: ...
