"""One line of JSON for each request: written in batches, sampled, bounded; what went wrong is there in any case.

    time            when the answer ended, UTC, microseconds
    request_id, traceparent
    client          address of the connection
    method, path    without the query, whose values may be secrets
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

Fields that say nothing are left out. A line costs 1.3 µs by itself and 3 to 4 µs in a busy router, so it is put
together by hand; a request that the sample leaves out costs about 1.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

from .log_policy import OFF, AccessLogPolicy
from .log_writer import LogWriter
from .request import account_of
from .wire.request_head import RequestHead

if TYPE_CHECKING:
    from .rollout.observer import Routed
    from .wire.problems import Problem

BATCH_LINES = 512
"""Handed to the writer together …"""
ROUND_LINES = 64
"""… and put into words together, which takes as long as a few requests."""
FLUSH_EVERY_S = 0.25
ERROR_FROM_STATUS = 500


_Noted = tuple[
    float,
    float,
    RequestHead,
    bytes,
    bytes,
    bytes,
    int,
    float,
    int,
    int,
    "Routed | None",
    str,
    int,
    str,
    str,
    bool | None,
]


class AccessLog:
    """One per process. `lines`, `sampled_out`, `errors_dropped` count what became of each request that ended while the
    log was on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._policy = AccessLogPolicy()
        self._writer: LogWriter | None = None
        self._noted: list[_Noted] = []
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._sample = 1.0
        self._everything = True
        self._credit = 0.0
        self._credit_at = 0.0
        self._second = -1
        self._prefix = b""
        self._epoch = time.time() - monotonic()
        self.lost_before = 0
        """Lines lost by earlier writers."""
        self.lines = 0
        self.sampled_out = 0
        self.errors_dropped = 0

    @property
    def lost(self) -> int:
        """Lines that could not be written, or not in time."""
        return self.lost_before + (self._writer.lost if self._writer is not None else 0)

    def follow(self, policy: AccessLogPolicy) -> AccessLog | None:
        """Do as the file in force says; None: nothing is to be logged."""
        if policy != self._policy:
            if policy.to != self._policy.to:
                self.close()
                if policy.to != OFF:
                    self._writer = LogWriter(policy.to)
            self._policy = policy
            self._sample = policy.sample
            self._everything = policy.sample >= 1.0
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
        """Whether this request is logged; where not, that is counted."""
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
        if self._everything or random.random() < self._sample:
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
    ) -> None:
        """Log a request that ended now and began at `began` (`time.monotonic`); ask `wants` before."""
        self.lines += 1
        noted = self._noted
        noted.append(
            (
                monotonic(),
                began,
                head,
                head.request_id,
                head.traceparent,
                client,
                status,
                upstream_us,
                bytes_in,
                bytes_out,
                choice,
                chosen,
                attempts,
                cohort,
                reason,
                executed,
            )
        )
        if len(noted) >= ROUND_LINES:
            self._put_into_words()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_EVERY_S, self._flush)

    def _put_into_words(self) -> None:
        """Make lines of what was noted: many in a row cost less than one by one between requests."""
        noted = self._noted
        self._noted = []
        lines = self._lines
        for (
            ended,
            began,
            head,
            request_id,
            traceparent,
            client,
            status,
            upstream_us,
            bytes_in,
            bytes_out,
            choice,
            chosen,
            attempts,
            cohort,
            reason,
            executed,
        ) in noted:
            moment = ended + self._epoch
            second = int(moment)
            if second != self._second:
                self._begin_second(second)
            more = b""
            home = chosen
            if choice is not None:
                home = "" if choice.home is None else choice.home.name
                if choice.rule is not None:
                    more = b',"rule":%b' % _quoted(choice.rule.name)
            if cohort or reason or executed is not None:
                more += _more(cohort, reason, executed)
            lines.append(
                b'{"time":"%b%06dZ","request_id":%b,"traceparent":"%b","client":"%b",%b,"status":%d,"bytes_in":%d,'
                b'"bytes_out":%d,"duration_us":%d,"upstream_us":%d,"home":"%b","chosen":"%b","attempts":%d%b}\n'
                % (
                    self._prefix,
                    (moment - second) * 1e6,
                    b'"%b"' % request_id if request_id.isalnum() else _json(request_id),
                    traceparent,
                    client,
                    head.logged or _about(head),
                    status,
                    bytes_in,
                    bytes_out,
                    (ended - began) * 1e6,
                    upstream_us,
                    home.encode(),
                    chosen.encode(),
                    attempts,
                    more,
                )
            )
        if len(lines) >= BATCH_LINES:
            self._flush()

    def note_unread(self, client: bytes, problem: Problem) -> None:
        """Log what was no valid request; ask `wants` before."""
        moment = monotonic() + self._epoch
        second = int(moment)
        if second != self._second:
            self._begin_second(second)
        self.lines += 1
        self._put_into_words()
        self._lines.append(
            b'{"time":"%b%06dZ","client":"%b","status":%d%b}\n'
            % (
                self._prefix,
                (moment - second) * 1e6,
                client,
                problem.status,
                _more("", f"{problem.name}: {problem.detail}", False),
            )
        )
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_EVERY_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._noted:
            self._put_into_words()
        lines = self._lines
        if lines:
            self._lines = []
            if self._writer is not None:
                self._writer.put(b"".join(lines), len(lines))

    def _begin_second(self, second: int) -> None:
        self._epoch = time.time() - monotonic()  # The wall clock may have been set.
        self._second = second
        self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()


def _more(cohort: str, reason: str, executed: bool | None) -> bytes:
    """The fields that most lines do not have, each after a comma."""
    more = b',"cohort":"%b"' % cohort.encode() if cohort else b""
    if executed is not None:
        more += b',"executed":true' if executed else b',"executed":false'
    return more + b',"reason":%b' % json.dumps(reason).encode() if reason else more


@lru_cache(maxsize=4096)
def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


def _json(text: bytes) -> bytes:
    """A part of a head, which holds no control characters, as JSON."""
    if text.isascii() and b'"' not in text and b"\\" not in text:
        return b'"%b"' % text
    return json.dumps(text.decode("latin-1")).encode()


_account_of = lru_cache(maxsize=4096)(account_of)


def _about(head: RequestHead) -> bytes:
    """What is the same for every request with this head."""
    account = _account_of(head.get(b"authorization"), head.get(b"x-account"))
    about = head.logged = b'"method":"%b","path":%b,"account":%b' % (
        head.method,
        _json(head.path),
        _quoted(account),
    )
    return about
