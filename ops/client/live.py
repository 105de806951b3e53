"""The output of a task while it waits or runs."""

from collections.abc import Iterator
from typing import Final, Self

from ops.client.transport import Transport
from ops.client.wire import Answer, Connection

SILENCE_S: Final = 1000.0
"""Longest time, in seconds, that a follower waits for a byte: longer than a router lets an answer stand still."""


class LiveOutput:
    """The answer to a follower: iterate over it to get the output as it comes.

    `attempt` is the number of the start whose output it is: another attempt has another output. `first_byte` is the
    place of the first byte in the whole output, above 0 where the beginning is no longer held. Iterating raises
    AnswerBroken or Unreachable where the answer was cut: the task did not succeed, its attempt was lost, this reader
    fell too far behind, or the connection broke.
    """

    def __init__(self, transport: Transport, connection: Connection, answer: Answer) -> None:
        self._transport = transport
        self._connection = connection
        self._answer = answer
        self.attempt = int(answer.headers.get("x-attempt", "0"))
        self.first_byte = int(answer.headers.get("x-first-byte", "0"))

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.release(self._connection, self._answer)
