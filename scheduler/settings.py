"""The settings of a set's task manager."""

from __future__ import annotations

from typing import Final

import msgspec

from scheduler.backoff import Backoff
from scheduler.policy.limits import Limits, Retries
from scheduler.policy.records import PATIENCE_S
from scheduler.policy.storage import StorageLimits

RETRY_BACKOFF_MAX_S: Final = 30.0
"""Longest pause, in seconds, between two attempts of an async task that the platform lost."""
OWN_BACKOFF_MAX_S: Final = 300.0
"""Longest pause, in seconds, between two attempts of a task that failed by itself."""


class ManagerSettings(msgspec.Struct, frozen=True):
    """Times are seconds. `sync_keep_s`, `async_keep_s`, `dead_keep_s`: how long ended tasks and dead letters are kept.

    `file_max_bytes` bounds an output file that is kept, `files_max_bytes` all of a task's together, holes included.
    `max_attempts` bounds how often a task is started, where the platform lost it; async attempts pause
    `retry_backoff_s` (`full_disk_backoff_s` where the disk was full) in between, twice as long each time, and
    `own_backoff_s` where the task failed by itself and asked to be run again.
    `record_patience_s` is how long a sync task's answer waits for its record. `cpu_features` are those of this machine,
    `build` is that of its executor.
    `max_followers` and `max_followers_account` bound the outputs that are followed at the same time.
    `follow_buffer_bytes` is how far a follower of a sync task's output may fall behind.
    Without `own_node` no task runs on it: the executor brings the nodes.
    """

    set_name: str
    limits: Limits = Limits()
    storage: StorageLimits = StorageLimits()
    sync_keep_s: int = 900
    async_keep_s: int = 86_400
    dead_keep_s: int = 86_400
    max_attempts: int = 3
    retry_backoff_s: float = 0.25
    full_disk_backoff_s: float = 5.0
    own_backoff_s: float = 1.0
    slot_start_timeout_s: float = 60.0
    record_patience_s: float = PATIENCE_S
    stdout_max_bytes: int = 4 << 30
    stderr_max_bytes: int = 64 << 20
    file_max_bytes: int = 1 << 30
    files_max_bytes: int = 2 << 30
    cpu_features: frozenset[str] = frozenset()
    build: str = ""
    own_node: bool = True
    expire_every_s: float = 5.0
    max_followers: int = 256
    max_followers_account: int = 32
    follow_buffer_bytes: int = 1 << 20

    def retries(self) -> Retries:
        """How an attempt is made again."""
        return Retries(
            self.max_attempts,
            Backoff(self.retry_backoff_s, RETRY_BACKOFF_MAX_S),
            Backoff(self.full_disk_backoff_s, RETRY_BACKOFF_MAX_S),
            Backoff(self.own_backoff_s, OWN_BACKOFF_MAX_S),
        )
