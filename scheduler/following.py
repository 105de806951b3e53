"""Followers: callers that read the output of a task while it runs. They never slow it down, and are bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Any, Final, Protocol

from scheduler.errors import AccountLimit, Draining, QueueFull, SchedulerError
from scheduler.live import LiveTask
from scheduler.live_output import FellBehind, LiveOutput
from scheduler.roster import Roster
from scheduler.task import State, Task

PIECE_BYTES: Final = 1 << 18
"""Most bytes that a follower is given at a time."""
RETRY_AFTER_S: Final = 5.0
"""When a caller that is one follower too many may try again: no end of another is foreseen."""


class Which(StrEnum):
    """One of a task's outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Cause(StrEnum):
    """Why the answer to a follower was broken off."""

    TASK_FAILED = "task_failed"
    ATTEMPT_LOST = "attempt_lost"
    FELL_BEHIND = "fell_behind"
    NOT_KEPT = "not_kept"
    SET_STOPS = "set_stops"


class FollowBroken(SchedulerError):
    """The output did not end well: the follower lacks some of it, or the task did not succeed."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class FollowLimits(Protocol):
    """Bounds of followers. `follow_buffer_bytes`: how far one of a sync task's output may fall behind its caller."""

    @property
    def max_followers(self) -> int: ...
    @property
    def max_followers_account(self) -> int: ...
    @property
    def follow_buffer_bytes(self) -> int: ...


class Followers:
    """The followers of one set. `broken_off` counts those whose answers did not end well."""

    def __init__(self, limits: FollowLimits, roster: Roster) -> None:
        self.limits = limits
        self.roster = roster
        self.broken_off: Counter[Cause] = Counter()
        self._of_account: Counter[str] = Counter()
        self._open: set[Follower] = set()
        self._drains = False
        self._stops = False

    def __len__(self) -> int:
        return self._of_account.total()

    async def follow(
        self, account: str, task_id: str, which: Which, *, so_far: bool = False
    ) -> Follower | None:
        """Follow an output of a task that waits or runs; None where it has ended. The caller closes the follower.

        `so_far`: only what the task has written by now. Raises `TaskUnknown`, `AccountLimit`, `QueueFull`, `Draining`.
        """
        if self._stops:
            raise Draining("the set stops; ask again when it is back")
        limits = self.limits
        if self._of_account[account] >= limits.max_followers_account:
            raise AccountLimit(
                f"the account follows {limits.max_followers_account} outputs, its limit; end one of them first",
                retry_after_s=RETRY_AFTER_S,
            )
        if len(self) >= limits.max_followers:
            raise QueueFull(
                f"{limits.max_followers} outputs are followed, the set's limit", retry_after_s=RETRY_AFTER_S
            )
        self._of_account[account] += 1
        # Watching begins before looking, so that no end can be missed.
        removal = self.roster.removal_of(task_id)
        follower = None
        try:
            task = await self.roster.get(account, task_id)
            if task.ended:
                return None
            follower = Follower(self, task, which, removal, so_far=so_far)
            if self._drains and not follower.begun:
                raise Draining("the set drains, so the task, which waits, does not begin here now")
            self._open.add(follower)
            return follower
        finally:
            if follower not in self._open:
                self._left(account, task_id, removal)

    def drain(self) -> None:
        """End those that wait for a task to begin, as the set begins none; the others go on."""
        self._drains = True
        for follower in self._open:
            if not follower.begun:
                follower.stop("the set drains, so the task, which waits, does not begin here now")

    def resume(self) -> None:
        """Take followers of waiting tasks again, after `drain`."""
        self._drains = False

    def stop(self) -> None:
        """End all, and take no more: the set stops."""
        self._stops = True
        for follower in self._open:
            follower.stop("the set stops")

    def leave(self, follower: Follower) -> None:
        """A follower's caller has all that it wants, or is gone."""
        if follower in self._open:
            self._open.discard(follower)
            self._left(follower.account, follower.task_id, follower.removal)

    def _left(self, account: str, task_id: str, removal: asyncio.Future[Task | None]) -> None:
        self.roster.forget(task_id, removal)
        self._of_account[account] -= 1
        if not self._of_account[account]:
            del self._of_account[account]


class Follower:
    """Reads one output of one attempt of a task, at its caller's pace: an async iterator of pieces.

    `attempt` is the number of that attempt's lease, and for a task that waits that of its next; `first_byte` is the
    place of the first piece in the whole output, above 0 only for a sync task. Iterating raises `FollowBroken` unless
    the task succeeds in this very attempt and every byte that it wrote was given. It ends at once with `so_far`.
    """

    def __init__(
        self,
        followers: Followers,
        task: Task,
        which: Which,
        removal: asyncio.Future[Task | None],
        *,
        so_far: bool,
    ) -> None:
        self.account = task.spec.account
        self.task_id = task.id
        self.attempt = task.lease_number + (task.state is State.QUEUED)
        self.removal = removal
        self._followers = followers
        self._roster = followers.roster
        self._which = which
        self._so_far = so_far
        self._stopped: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._why_stopped = ""
        self._live: LiveTask | None = None
        self._output: LiveOutput | None = None
        self._until: int | None = None
        entry = self._roster.entries.get(task.id)
        self._at = 0
        if entry is not None and entry.live is not None and entry.live.run.lease.number == self.attempt:
            self._attach(entry.live)
        self.first_byte = self._at

    @property
    def begun(self) -> bool:
        """True once the attempt that is followed runs."""
        return self._live is not None

    def stop(self, why: str) -> None:
        """The set ends it."""
        if not self._stopped.done():
            self._why_stopped = why
            self._stopped.set_result(None)

    def close(self) -> None:
        """Release what is held; closing twice is fine."""
        if self._output is not None and self._output.tail is not None:
            self._output.tail.let_go()
        self._output = None
        self._followers.leave(self)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._next()
        except FollowBroken as error:
            self._followers.broken_off[error.cause] += 1
            raise
        if not data:
            raise StopAsyncIteration
        return data

    # -- reading

    async def _next(self) -> bytes:
        """The next piece; empty at a good end."""
        if self._live is None:
            if self._so_far:
                return b""
            await self._begins()
        live, output = self._live, self._output
        if live is None or output is None:
            return await self._ended()
        while True:
            seen = output.changes
            ended = output.over and self.removal.done()
            if self._so_far and self._until is None and (live.shown(output) or ended):
                self._until = output.written.size_bytes
            if self._until is not None and self._at >= self._until:
                return b""
            if data := await self._read(live, output):
                return data
            if ended:
                return await self._ended()
            await self._wait(output.next_change(seen), *([self.removal] if output.over else ()))

    async def _begins(self) -> None:
        """Wait until the attempt begins; returns without one where the task ends before."""
        while self._live is None and not self.removal.done():
            entry = self._roster.entries.get(self.task_id)
            if entry is not None and entry.live is not None:
                if entry.live.run.lease.number != self.attempt:
                    raise FollowBroken(Cause.ATTEMPT_LOST, "the attempt was lost before its program began")
                self._attach(entry.live)
                return
            beginning = self._roster.beginning_of(self.task_id)
            try:
                await self._wait(beginning, self.removal)
            finally:
                self._roster.forget(self.task_id, beginning)

    def _attach(self, live: LiveTask) -> None:
        self._live = live
        outputs = live.outputs
        output = self._output = outputs.stdout if self._which is Which.STDOUT else outputs.stderr
        if output.tail is not None:
            first = output.tail.hold(self._followers.limits.follow_buffer_bytes)
            # One that waited for the beginning wants all of it.
            self._at = first if live.handed_over else 0
        live.run.show()

    async def _read(self, live: LiveTask, output: LiveOutput) -> bytes:
        most = PIECE_BYTES if self._until is None else min(PIECE_BYTES, self._until - self._at)
        try:
            data = await output.written.read(self._at, most)
        except FellBehind:
            buffer_kib = self._followers.limits.follow_buffer_bytes >> 10
            message = f"the follower fell more than {buffer_kib} KiB behind the task's own caller"
            raise FollowBroken(Cause.FELL_BEHIND, message) from None
        except SchedulerError as error:
            if live.outputs.lost is None:
                raise FollowBroken(Cause.NOT_KEPT, f"the output is no longer kept: {error}") from error
            data = b""
        if not data and live.outputs.lost is not None:
            raise FollowBroken(Cause.ATTEMPT_LOST, live.outputs.lost)
        self._at += len(data)
        return data

    async def _ended(self) -> bytes:
        """The task is recorded, and all that it wrote was read. Returns no bytes, if that is a good end."""
        try:
            task = await self._roster.get(self.account, self.task_id)
        except SchedulerError as error:
            raise FollowBroken(Cause.NOT_KEPT, f"the task's end is not known: {error}") from error
        if task.state is not State.SUCCEEDED:
            raise FollowBroken(Cause.TASK_FAILED, f"task {task.id} {task.state}: {task.detail}")
        if task.lease_number != self.attempt:
            raise FollowBroken(Cause.ATTEMPT_LOST, "another attempt decided the task's outcome")
        written_bytes = task.stdout_bytes if self._which is Which.STDOUT else task.stderr_bytes
        if self._at < written_bytes:
            message = f"of its {self._which}, {written_bytes} bytes, this set keeps the first {self._at}"
            raise FollowBroken(Cause.NOT_KEPT, message)
        return b""

    async def _wait(self, *news: asyncio.Future[Any]) -> None:
        """Wait for one of these. Raises `FollowBroken` where the set ends the follower."""
        try:
            await asyncio.wait([self._stopped, *news], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in news:
                if future is not self.removal:
                    future.cancel()
        if self._stopped.done():
            raise FollowBroken(Cause.SET_STOPS, self._why_stopped)
