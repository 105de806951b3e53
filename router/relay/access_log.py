"""One line of JSON for each request: written in batches, sampled, bounded; what went wrong is there in any case.

    time            when the answer ended, UTC, microseconds
    request_id, traceparent
    client          address of the connection
    method, path    without the query, whose values may be secrets
    task            the id of the task that the path or the answer names
    account         as readable from the request; only the set checks it
    status          0: no answer began
    bytes_in, bytes_out     of the bodies, chunk framing included
    duration_us     from the head to the answer's end
    upstream_us     from the beginning of the last attempt to the head of the set's answer; 0: there was none
    home, chosen    the set by weights alone, and the one that was asked last
    attempts        how often the request was sent
    rule            the rule that placed it
    cohort          canary or control, while a rollout compares them
    executed        whether an algorithm may have run, where the router itself answered
    reason          what went wrong, or why it was sent again

Empty fields are left out. A line is made by hand, mostly of parts that exist already, as soon as its request ends:
making many lines in a row later costs more, and delays the requests of that moment.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.dialects.contract import Dialect
from router.relay.log_writer import LogWriter
from router.routing.log_policy import OFF, AccessLogPolicy
from router.wire.request_head import RequestHead

if TYPE_CHECKING:
    from router.counting.observer import Routed
    from router.wire.problems import Problem

BATCH_BYTES: Final = 64 * 1024
"""Handed to the writer together: some 190 lines."""
FLUSH_EVERY_S: Final = 0.25
MAX_TASK_BYTES: Final = 64
"""Longest task id of a line: no set makes a longer one."""


class AccessLog:
    """One per process. `lines`, `sampled_out` and `errors_dropped` count the requests that ended while the log was on.
    `everything`: all requests that went well are logged."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dialect: Dialect) -> None:
        self._loop = loop
        self._dialect = dialect
        self._policy = AccessLogPolicy()
        self._writer: LogWriter | None = None
        self._batch = bytearray()
        self._batch_lines = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sample = 1.0
        self.everything = True
        self._credit = 0.0
        self._credit_at = 0.0
        self._second = b""
        """The current second as it is written, up to its dot."""
        self._second_at = -math.inf
        """Start of that second, by the monotonic clock."""
        self.lost_before = 0
        """Lines lost by earlier writers."""
        self.lines = 0
        self.sampled_out = 0
        self.errors_dropped = 0

    @property
    def lost(self) -> int:
        """Lines that could not be written, or not in time."""
        return self.lost_before + (self._writer.lost if self._writer is not None else 0)

    def count_on(self, *, lines: int, sampled_out: int, errors_dropped: int, lost: int) -> None:
        """Go on from the counts of the worker before."""
        self.lines, self.sampled_out, self.errors_dropped = lines, sampled_out, errors_dropped
        self.lost_before = lost

    def follow(self, policy: AccessLogPolicy) -> AccessLog | None:
        """Follow the file in force; returns None if nothing is to be logged."""
        if policy != self._policy:
            if policy.to != self._policy.to:
                self.close()
                if policy.to != OFF:
                    self._writer = LogWriter(policy.to)
            self._policy = policy
            self._sample = policy.sample
            self.everything = policy.sample >= 1.0
            self._credit = float(policy.errors_per_s)
        return self if self._writer is not None else None

    def close(self) -> None:
        """Write what waits, within two seconds."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self.lost_before += self._writer.lost
            self._writer = None
            self._policy = AccessLogPolicy()

    def wants(self, *, error: bool) -> bool:
        """Return True if this request is to be logged; one that is not is counted."""
        if error:
            now = monotonic()
            most = float(self._policy.errors_per_s)
            self._credit = min(most, self._credit + (now - self._credit_at) * most)
            self._credit_at = now
            if self._credit < 1.0:
                self.errors_dropped += 1
                return False
            self._credit -= 1.0
            return True
        if self.everything or random.random() < self._sample:
            return True
        self.sampled_out += 1
        return False

    def note(
        self,
        head: RequestHead,
        client: bytes,
        status: int,
        began: float,
        upstream_us: float,
        bytes_in: int,
        bytes_out: int,
        choice: Routed | None,
        chosen: str,
        attempts: int = 1,
        cohort: str = "",
        reason: str = "",
        executed: bool | None = None,
        task_id: bytes = b"",
    ) -> None:
        """Log a request that ended now and began at `began` (`time.monotonic`); ask `wants` before. `task_id`: as the
        answer tells it; a path that names a task has it from there."""
        ended = monotonic()
        into_s = ended - self._second_at
        if not 0.0 <= into_s < 1.0:
            into_s = self._begin_second(ended)
        home = rule = ""
        if choice is None:
            home = chosen
        else:
            if choice.home is not None:
                home = choice.home.name
            if choice.rule is not None:
                rule = choice.rule.name
        request_id = head.request_id
        self._add(
            b'{"time":"%b%bZ","request_id":"%b","traceparent":"%b",%b,"status":%d,"bytes_in":%d,"bytes_out":%d,'
            b'"duration_us":%d,"upstream_us":%d%b%b%b}\n'
            % (
                self._second,
                b"%06d" % (into_s * 1e6),
                request_id if request_id.isalnum() else _json(request_id),
                head.traceparent,
                head.logged or self._about(head, client),
                status,
                bytes_in,
                bytes_out,
                (ended - began) * 1e6,
                upstream_us,
                _placed(home, chosen, attempts, rule, cohort),
                _task(task_id if task_id and not self._dialect.task_named(head) else b""),
                b"" if reason == "" and executed is None else _more(reason, executed),
            )
        )

    def _about(self, head: RequestHead, client: bytes) -> bytes:
        """The fields that all requests with this head share; they come by one connection."""
        about = head.logged = b'"client":"%b","method":"%b","path":"%b","account":%b%b' % (
            client,
            head.method,
            _json(head.path),
            json.dumps(self._dialect.account_of(head)).encode(),
            _task(self._dialect.task_named(head)),
        )
        return about

    def note_unread(self, client: bytes, problem: Problem) -> None:
        """Log bytes that were no valid request; ask `wants` before."""
        now = monotonic()
        into_s = now - self._second_at
        if not 0.0 <= into_s < 1.0:
            into_s = self._begin_second(now)
        more = _more(f"{problem.name}: {problem.detail}", False)
        self._add(
            b'{"time":"%b%06dZ","client":"%b","status":%d%b}\n'
            % (self._second, into_s * 1e6, client, problem.status, more)
        )

    def _add(self, line: bytes) -> None:
        self.lines += 1
        self._batch_lines += 1
        batch = self._batch
        batch += line
        if len(batch) >= BATCH_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_EVERY_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._batch
        if batch:
            lines = self._batch_lines
            self._batch = bytearray()
            self._batch_lines = 0
            if self._writer is not None:
                self._writer.put(batch, lines)

    def _begin_second(self, now: float) -> float:
        """Store the current second of the wall clock, which may have been set; returns how much of the second is
        over."""
        moment = time.time()
        second = int(moment)
        self._second = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        self._second_at = now - (moment - second)
        return moment - second


@lru_cache(maxsize=4096)
def _placed(home: str, chosen: str, attempts: int, rule: str, cohort: str) -> bytes:
    """The fields that tell where a request went."""
    rest = b',"rule":%b' % json.dumps(rule).encode() if rule else b""
    if cohort:
        rest += b',"cohort":"%b"' % cohort.encode()
    return b',"home":"%b","chosen":"%b","attempts":%d%b' % (home.encode(), chosen.encode(), attempts, rest)


def _more(reason: str, executed: bool | None) -> bytes:
    """The fields that most lines do not have, each after a comma."""
    more = b""
    if executed is not None:
        more = b',"executed":true' if executed else b',"executed":false'
    return more + b',"reason":%b' % json.dumps(reason).encode() if reason else more


def _task(task_id: bytes) -> bytes:
    return b',"task":"%b"' % _json(task_id[:MAX_TASK_BYTES]) if task_id else b""


def _json(text: bytes) -> bytes:
    """A part of a head, which holds no control characters, as JSON has it between quotes."""
    if text.isascii() and b'"' not in text and b"\\" not in text:
        return text
    return json.dumps(text.decode("latin-1"))[1:-1].encode()
