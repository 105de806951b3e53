"""What a set answers to bytes that are no request that it takes."""

from __future__ import annotations


class Refusal(Exception):
    """The request is not one that a set takes: `status` and the message say why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
