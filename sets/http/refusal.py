"""The answer to bytes that are not a valid request."""

from __future__ import annotations


class Refusal(Exception):
    """The request is not valid: `status` and the message say why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
