"""A follower's answer: the output of a task that waits or runs, as it comes."""

from __future__ import annotations

import structlog

from scheduler.errors import BadRequest
from scheduler.following import FollowBroken, Follower
from sets.api.errors import AnswerBrokenOff

log = structlog.get_logger()


def read_follow(value: str | None) -> bool | None:
    """Read the parameter `follow`: True for `1`, to the end; False for `0`, what is there. Raises `BadRequest`."""
    if value is None:
        return None
    if value not in ("0", "1"):
        raise BadRequest(
            f"follow: {value[:40]!r} is neither 1 (until the task ends) nor 0 (what it has written so far)",
            field="follow",
        )
    return value == "1"


class FollowedAnswer:
    """The body of the answer (an async iterator that its server closes).

    It begins with an empty piece, so that the answer's head goes out at once. Iterating raises `AnswerBrokenOff` where
    the output does not end well.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._begun = False

    def headers(self) -> dict[str, str]:
        """Facts about the output: which attempt's it is, and the place of its first byte in the whole."""
        return {"X-Attempt": str(self._follower.attempt), "X-First-Byte": str(self._follower.first_byte)}

    def __aiter__(self) -> FollowedAnswer:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            return b""
        try:
            return await anext(self._follower)
        except FollowBroken as error:
            message = f"follower of task {self._follower.task_id}, attempt {self._follower.attempt}: {error}"
            raise AnswerBrokenOff(message) from error

    async def close(self) -> None:
        """Release the follower."""
        self._follower.close()
