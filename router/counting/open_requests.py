"""Requests that wait for their answer: a canary that hangs must be seen before its clients give up.

Only those whose body came whole: a slow upload is not the set's fault. Bounded by the requests in work."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from router.counting.shares import Caller, Shares
from router.counting.tally import bucket_of


class OpenRequest:
    """An open request; call `end` when it has its answer, or gets none."""

    __slots__ = ("_among", "at_s", "caller")

    def __init__(self, among: OpenRequests, at_s: float, caller: Caller) -> None:
        self._among = among
        self.at_s = at_s
        """When it began to wait: seconds of any monotonic clock."""
        self.caller = caller

    def end(self) -> None:
        self._among.ended(self)


class OpenRequests:
    """The open requests of one cohort, while the same weights are in force."""

    __slots__ = ("_by_second", "_shares", "_waiting")

    def __init__(self, ended: Shares) -> None:
        """`ended`: how much counts of each caller's requests that ended."""
        self._by_second: dict[int, int] = {}
        self._shares = Shares(ended)
        self._waiting: dict[OpenRequest, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def began(self, at_s: float, caller: Caller) -> OpenRequest | None:
        """A request is waiting for its answer from now on. None: too many of its caller's wait."""
        if not self._shares.admit(caller):
            return None
        second = int(at_s)
        self._by_second[second] = self._by_second.get(second, 0) + 1
        request = OpenRequest(self, at_s, caller)
        self._waiting[request] = None
        return request

    def ended(self, request: OpenRequest) -> None:
        """A request waits no longer; of no effect the second time."""
        if request not in self._waiting:
            return
        del self._waiting[request]
        self._shares.release(request.caller)
        second = int(request.at_s)
        left = self._by_second[second] - 1
        if left:
            self._by_second[second] = left
        else:
            del self._by_second[second]

    def oldest(self, most: int) -> Iterator[OpenRequest]:
        """Return the requests that wait longest, the oldest first."""
        return islice(self._waiting, most)

    def ages(self, now_s: float) -> dict[int, int]:
        """Latency bucket → requests that have waited this long, at least."""
        found: dict[int, int] = {}
        for second, count in self._by_second.items():
            bucket = bucket_of((now_s - second - 1.0) * 1e6)
            found[bucket] = found.get(bucket, 0) + count
        return found
