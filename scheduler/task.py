"""The task: one run of one image with one input, its states and the legal moves between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Final

import msgspec

from scheduler.clock import wall_us
from scheduler.errors import IllegalMove
from scheduler.excerpt import Excerpt
from scheduler.moments import LOST_KEPT, WHY_CHARS, LostAttempt, Moments


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    SYNC = "sync"
    ASYNC = "async"


class Isolation(StrEnum):
    SHARED = "shared"
    FRESH = "fresh"


class Priority(StrEnum):
    NORMAL = "normal"
    SPARE = "spare"


class Reason(StrEnum):
    """Why a task did not succeed."""

    EXIT = "exit"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_EXECUTABLE = "not_executable"
    OUTPUT_TOO_LARGE = "output_too_large"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CLIENT_GONE = "client_gone"
    GAVE_WAY = "gave_way"
    """A synchronous spare task that gave way, and that could not run again."""
    PLATFORM = "platform"


LEGAL_MOVES: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    # Back to the queue when the platform lost the attempt, or the task failed and asked to be run again.
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.TIMED_OUT: frozenset(),
    State.CANCELLED: frozenset(),
}

FINAL_STATES: Final = frozenset(state for state, moves in LEGAL_MOVES.items() if not moves)


class Resources(msgspec.Struct, frozen=True):
    """The resources of one slot. `cpu_percent` is in hundredths of a core."""

    cpu_percent: int = 100
    memory_mib: int = 512


class TaskSpec(msgspec.Struct, frozen=True):
    """The request for a task; never changes. Empty `args` means the image's own CMD.

    `retries`: how often it is run again after it failed by itself; with `retry_exit_codes`, only after these.
    `trace` is the request's `traceparent` (W3C Trace Context), kept only where the set sends traces to a collector.
    """

    account: str
    image: str
    image_digest: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    name: str | None = None
    kind: Kind = Kind.SYNC
    timeout_s: float = 60.0
    resources: Resources = Resources()
    isolation: Isolation = Isolation.SHARED
    cpu_features: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    callback_url: str | None = None
    prestart: bool = False
    retries: int = 0
    retry_exit_codes: tuple[int, ...] = ()
    trace: str | None = None


class Lease(msgspec.Struct, frozen=True):
    """The identity of one attempt of a task. Only the holder of the task's newest lease may decide its outcome.

    `number` is 1 for the first start of the task, rises with each start, and never falls.
    """

    task_id: str
    number: int


class FailedAttempt(msgspec.Struct, frozen=True):
    """An attempt that failed by itself, and was not the last: the task asked for another. It is billed.

    `started_us` is microseconds since the epoch; durations are microseconds.
    """

    reason: Reason
    exit_code: int | None
    signal: int | None
    started_us: int
    duration_us: int
    cpu_us: int


class Task(msgspec.Struct, omit_defaults=True):
    """A task and its facts. Times are microseconds since the epoch, durations are microseconds.

    Facts that are the defaults are left out of its row, which is why a new one needs a default.
    `attempts` counts the starts that count towards the task's limits; `lease_number` counts all of them. `cpu_us` and
    `duration_us` are those of the last attempt and of `failed_attempts` together. `dead`: the platform gave the task up
    and keeps its input for a replay, which is a new task, `replayed_as`; that one's `replay_of` names this one.
    `batch` is the id of its batch, with which it expires.
    `started_us` is when the newest attempt was given its slot; `moments` has the others. `lost` has the last attempts
    that did not count or that the platform lost.

    `memory_peak_kib` is the peak of the slot's memory cgroup while the task ran: its processes, its files in /tmp, the
    pages it read; 0 if unknown. `max_rss_kib` is the resident memory of its largest process. The tail of stdout is kept
    only for tasks that did not succeed.
    """

    id: str
    spec: TaskSpec
    created_us: int
    state: State = State.QUEUED
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str | None = None
    attempts: int = 0
    started_us: int | None = None
    ended_us: int | None = None
    queue_us: int = 0
    duration_us: int = 0
    cpu_us: int = 0
    memory_peak_kib: int = 0
    max_rss_kib: int = 0
    cold_start: bool = False
    prestarted: bool = False
    stdin_bytes: int = 0
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_head: bytes = b""
    stderr_head: bytes = b""
    stdout_tail: bytes = b""
    stderr_tail: bytes = b""
    files: dict[str, int] = {}
    expires_us: int | None = None
    lease_number: int = 0
    failed_attempts: tuple[FailedAttempt, ...] = ()
    dead: bool = False
    replay_of: str | None = None
    replayed_as: str | None = None
    batch: str | None = None
    moments: Moments | None = None
    lost: tuple[LostAttempt, ...] = ()

    @property
    def lease(self) -> Lease:
        """The lease of the newest attempt."""
        return Lease(self.id, self.lease_number)

    @property
    def lost_attempts(self) -> int:
        """How many attempts the platform lost, once the last one has: those that did not fail by themselves."""
        return self.attempts - len(self.failed_attempts)

    def move(self, state: State) -> None:
        """Change the state. Raises `IllegalMove` if `LEGAL_MOVES` does not allow it."""
        if state not in LEGAL_MOVES[self.state]:
            raise IllegalMove(f"task {self.id}: {self.state} → {state} is not a legal move")
        self.state = state

    def begin_attempt(self, now_us: int, *, cold_start: bool) -> None:
        """Start the next attempt, under a new lease. Raises `IllegalMove`."""
        self.move(State.RUNNING)
        self.cold_start = cold_start
        self.attempts += 1
        self.lease_number += 1
        self.started_us = now_us
        self.queue_us = max(0, now_us - self.created_us)

    def want_slot(self, now_us: int) -> None:
        """The task waits for a slot from now on, where it has not waited before."""
        moments = self.moments
        if moments is None:
            moments = self.moments = Moments()
        if moments.slot_wanted is None:
            moments.slot_wanted = max(0, now_us - self.created_us)

    def outcome_written(self, now_us: int) -> None:
        """The write of the task's outcome begins."""
        if self.moments is not None:
            self.moments.recorded = max(0, now_us - self.created_us)

    def requeue(self, now_us: int, why: str, *, attempt_counts: bool) -> None:
        """Put the task back into the queue after an attempt that did not decide its outcome. Raises `IllegalMove`.

        An attempt that does not count leaves the task as many others as it had before. `why` says how it was lost.
        """
        self.move(State.QUEUED)
        attempt = LostAttempt(self.started_us or now_us, now_us, why[:WHY_CHARS])
        self.lost = (*self.lost, attempt)[-LOST_KEPT:]
        self._want_again(now_us)
        self.started_us = None
        if not attempt_counts:
            self.attempts -= 1

    def run_again(self, failed: FailedAttempt) -> None:
        """Put the task back into the queue after an attempt that failed by itself. Raises `IllegalMove`."""
        self.move(State.QUEUED)
        self._want_again(failed.started_us + failed.duration_us)
        self.started_us = None
        self.failed_attempts = (*self.failed_attempts, failed)
        self.duration_us += failed.duration_us
        self.cpu_us += failed.cpu_us

    def _want_again(self, now_us: int) -> None:
        # A new object: the old attempt may still be at work on its own.
        known = self.moments
        self.moments = Moments(None if known is None else known.input_ready)
        self.want_slot(now_us)

    @property
    def ended(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def stdout(self) -> Excerpt:
        return Excerpt(self.stdout_head, self.stdout_tail, self.stdout_bytes)

    @stdout.setter
    def stdout(self, excerpt: Excerpt) -> None:
        self.stdout_head, self.stdout_tail, self.stdout_bytes = excerpt

    @property
    def stderr(self) -> Excerpt:
        return Excerpt(self.stderr_head, self.stderr_tail, self.stderr_bytes)

    @stderr.setter
    def stderr(self, excerpt: Excerpt) -> None:
        self.stderr_head, self.stderr_tail, self.stderr_bytes = excerpt


_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]


class TaskIds:
    """Makes task ids: the set's name, a dash, and 26 characters that sort by time (a ULID in lower case).

    Ids of one process increase strictly; those of two processes differ in 80 random bits. `now_us` is the wall clock.
    """

    def __init__(self, set_name: str, now_us: Callable[[], int] = wall_us) -> None:
        self._prefix = set_name + "-"
        self._now_us = now_us
        self._last_ms = 0
        self._random = 0
        # Seeded by the system once, to save a system call each millisecond: an id is not a secret.
        self._bits = Random(os.urandom(32)).getrandbits

    def new(self) -> str:
        now_ms = self._now_us() // 1000
        if now_ms > self._last_ms:
            self._last_ms = now_ms
            # The top bit stays 0, so that counting up within a millisecond cannot overflow.
            self._random = self._bits(79)
        else:
            self._random += 1
        value = (self._last_ms << 80) | self._random
        pairs = _PAIRS
        return self._prefix + "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])
