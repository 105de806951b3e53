"""Feeds a request's body to the program that reads it, and ends an upload that keeps others waiting.

A program that waits for its input holds its slot and its cores, and computes nothing. So each upload may keep its
program waiting for a while, and for longer as more of it comes. One that is slower ends once tasks of other accounts
wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from scheduler.live import LiveTask
from scheduler.task import Reason
from sets.api.body import RequestBody
from sets.api.errors import BodyCutOff, BodyTooLarge, BodyTooSlow

PATIENCE_S: Final = 5.0
"""How long, in seconds, an upload may keep its program waiting, whatever its size."""
LEAST_BYTES_PER_S: Final = 16_384
"""The rate, in bytes per second, at which an upload may go on for as long as it likes. A client on a slow line reaches
it; to hold many slots at this rate costs bandwidth."""
LOOK_AGAIN_S: Final = 1.0
"""How soon, in seconds, an upload that is too slow is looked at again where nobody waited."""


class Upload:
    """The input of one sync task on its way. `others_wait` says whether tasks of other accounts wait for room."""

    def __init__(
        self, live: LiveTask, body: RequestBody, max_bytes: int, others_wait: Callable[[], bool]
    ) -> None:
        self._live = live
        self._body = body
        self._max_bytes = max_bytes
        self._others_wait = others_wait
        self._loop = asyncio.get_running_loop()
        # How long the program has waited for the client, in seconds, and since when it does; None: it does not.
        self._waited_s = 0.0
        self._waits_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._too_slow: BodyTooSlow | None = None
        self._task: asyncio.Task[None] | None = None

    async def feed(self) -> None:
        """Stream the body into the program. A body that ends too early ends the task, never the input.

        Raises `BodyCutOff`, `BodyTooSlow` and `BodyTooLarge`; executed, since the program has seen what came before.
        """
        live, loop = self._live, self._loop
        stdin = live.stdin
        assert stdin is not None
        self._task = asyncio.current_task()
        self._waits_since = loop.time()
        self._timer = loop.call_later(PATIENCE_S, self._look)
        try:
            async for chunk in self._body.chunks(self._max_bytes):
                self._waited_s += loop.time() - self._waits_since
                self._waits_since = None
                live.task.stdin_bytes += len(chunk)
                await stdin.write(chunk)
                self._waits_since = loop.time()
        except BrokenPipeError:
            # The program no longer reads, or has ended: the rest of the body is not wanted.
            return
        except asyncio.CancelledError:
            if self._too_slow is None:
                raise
            raise self._too_slow from None
        except (BodyCutOff, BodyTooLarge) as error:
            live.kill(Reason.CLIENT_GONE)
            error.executed = True
            raise
        finally:
            self._timer.cancel()
        live.input_ended()
        stdin.close()

    def _look(self) -> None:
        """The client may have used up its time."""
        now, since = self._loop.time(), self._waits_since
        waited_s = self._waited_s + (0.0 if since is None else now - since)
        left_s = PATIENCE_S + self._live.task.stdin_bytes / LEAST_BYTES_PER_S - waited_s
        if left_s <= 0.0:
            if since is not None and self._others_wait():
                self._too_slow = BodyTooSlow(self._live.task.stdin_bytes, waited_s)
                self._live.kill(Reason.CLIENT_GONE)
                assert self._task is not None
                self._task.cancel()
                return
            left_s = LOOK_AGAIN_S
        self._timer = self._loop.call_later(left_s, self._look)
