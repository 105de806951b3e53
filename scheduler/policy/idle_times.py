"""Learns from a pool's idle times when a slot is worth its memory: until when an idle one is kept, and when one is
started ahead of need. Pure.

`keep_idle_s` is the price of a start: as much as a slot of 512 MiB that idles for that long. A pool of which nothing
is known keeps an idle slot for exactly that time. Where idle times are known, the slot is there in those spans of its
idle time in which the chance that a task comes is worth the wait: a pool that is used once an hour needs a slot for a
few minutes of it.

The histogram is that of "Serverless in the Wild" (Shahrad and others, USENIX ATC 2020). The spans are not cut at fixed
percentiles, as they are there, but follow from the price.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scheduler.pool import PoolKey

CELLS_PER_KEEP: Final = 10
"""How many cells of the histogram `keep_idle_s` has: with ten minutes, a cell is a minute."""
CELLS: Final = 240
"""Number of cells: with ten minutes, idle times of up to four hours are told apart."""
COUNTED_MOST: Final = 1_000
"""Once this many idle times are counted, all counts are halved, so that a pool that changes is learnt again."""
USUAL_MIB: Final = 512
"""A slot of this memory, in MiB, may idle for `keep_idle_s` to save a start; one of twice as much for half as long."""
WORTH_MOST: Final = 4.0
"""A small slot may idle for up to this many times `keep_idle_s` to save a start, a large one for as small a part."""
PRIOR: Final = 1.0
"""How many idle times of an unknown pool are assumed in addition to those that were seen."""
BLURS: Final = (0.04, 0.5)
"""How far, as a share of its length, an idle time stands for others: little where a timer calls, much where people do.
Plans are made with both, and the one that would have cost least so far is followed."""
START_COST: Final = 0.05
"""Cost of a start ahead of need, as a share of one that a task waits for: it takes time of a core."""
MEMORY_OF_COSTS: Final = 0.95
"""Share of the costs summed up so far that is left after another idle time."""
GONE_MOST: Final = 16
"""How many slots that have left are remembered in a pool, the last ones."""
REMEMBERED_MOST: Final = 10_000
"""How many pools without slots are remembered: some 1.5 KB each."""

Spans = tuple[tuple[float, float], ...]


class IdleTimes:
    """The idle times of a pool's slots. Times are seconds of the caller's clock.

    A slot that leaves while it is idle goes on being idle in these books: what is learnt doesn't depend on how long
    slots were kept. `gone`: since when such slots have been idle, the longest first. `spans`: in which parts of an idle
    time a slot should be there, in order.
    """

    __slots__ = (
        "_cell_s",
        "_costs",
        "_counted",
        "_counts",
        "_learnt_at",
        "_plans",
        "_start_s",
        "first_s",
        "gone",
        "spans",
    )

    def __init__(self, keep_s: float, memory_mib: int = USUAL_MIB) -> None:
        # What a start is worth: so many seconds of an idle slot. One that holds more memory is kept for less.
        self._start_s = keep_s * min(max(USUAL_MIB / memory_mib, 1 / WORTH_MOST), WORTH_MOST)
        self.spans: Spans = ((0.0, keep_s),)
        # How long a slot that has just become idle is kept.
        self.first_s = keep_s
        self.gone: list[float] = []
        self._cell_s = keep_s / CELLS_PER_KEEP
        # The last one counts what is longer than all others.
        self._counts = array("H", bytes(2 * (CELLS + 1)))
        self._counted = 0
        self._learnt_at = 0
        # What may be followed, and what each has cost: to keep slots for `keep_s`, and what was learnt.
        self._plans: list[Spans] = [self.spans] * (1 + len(BLURS))
        self._costs = [0.0] * len(self._plans)

    @property
    def is_empty(self) -> bool:
        """True if nothing was seen."""
        return not (self._counted or self.gone)

    @property
    def is_usual(self) -> bool:
        """True if slots are kept from the start of their idle time, and none is started ahead of need."""
        return len(self.spans) == 1 and not self.spans[0][0]

    @property
    def resolution_s(self) -> float:
        """The shortest time that makes a difference, in seconds."""
        return self._cell_s

    def ended(self, idle_s: float) -> None:
        """A slot had been idle for so long when a task took it."""
        cell = int(idle_s / self._cell_s)
        self._counts[cell if cell < CELLS else CELLS] += 1
        self._counted += 1
        if self._counted >= COUNTED_MOST:
            self._counts = array("H", [count // 2 for count in self._counts])
            self._counted = sum(self._counts)
            self._learnt_at = 0
        if cell:
            # For a shorter one, no plan would have cost much.
            for number, spans in enumerate(self._plans):
                self._costs[number] = MEMORY_OF_COSTS * self._costs[number] + self._cost(spans, idle_s)
            self._choose()

    def left(self, idle_since: float) -> None:
        """A slot that has been idle since then is stopped."""
        gone = self.gone
        gone.append(idle_since)
        gone.sort()
        if len(gone) > GONE_MOST:
            del gone[0]

    def missed(self, now: float) -> None:
        """A task has arrived and found no idle slot: the one that left last would have served it."""
        if self.gone:
            self.ended(now - self.gone.pop())

    def wanted(self, now: float) -> int:
        """How many of the slots that have left should be started again now, ahead of need.

        Those that left so long ago that they never will be are forgotten.
        """
        while self.gone and now - self.gone[0] >= self._cell_s * CELLS:
            self.ended(now - self.gone.pop(0))
        return sum(self._is_ahead(now - since) for since in self.gone)

    def returns(self, now: float) -> float | None:
        """Such a slot is started: since when it has been idle in these books; None where no slot should be."""
        for number in range(len(self.gone) - 1, -1, -1):
            if self._is_ahead(now - self.gone[number]):
                return self.gone.pop(number)
        return None

    def is_wanted(self, idle_s: float) -> bool:
        """Return True if a slot should be there that has been idle for so long."""
        return any(begins <= idle_s < ends for begins, ends in self.spans)

    def changes_at(self, idle_since: float, now: float) -> float:
        """When a slot that has been idle since then is wanted no longer, or wanted again; infinite if never."""
        idle_s = now - idle_since
        return next(
            (idle_since + bound for span in self.spans for bound in span if bound > idle_s), float("inf")
        )

    def starts_at(self, now: float) -> float:
        """When `wanted` changes, at the earliest; infinite if it doesn't unless something happens."""
        if self.is_usual:
            return float("inf")
        return min((self.changes_at(since, now) for since in self.gone), default=float("inf"))

    def _is_ahead(self, idle_s: float) -> bool:
        return any(0.0 < begins <= idle_s < ends for begins, ends in self.spans)

    def learn(self) -> None:
        """Make plans from the idle times that were seen, unless hardly any is new."""
        if self._counted - self._learnt_at <= self._counted // 16:
            return
        self._learnt_at = self._counted
        self._plans[1:] = [self._plan(blur) for blur in BLURS]
        self._choose()

    def _choose(self) -> None:
        self.spans = spans = self._plans[self._costs.index(min(self._costs))]
        self.first_s = spans[0][1] if spans and not spans[0][0] else 0.0

    def _cost(self, spans: Spans, idle_s: float) -> float:
        """Return the cost of a plan in an idle time of this length, in seconds of an idle slot."""
        cost_s = self._start_s
        for begins, ends in spans:
            if idle_s < begins:
                break
            cost_s += min(ends, idle_s) - begins
            if begins:
                cost_s += START_COST * self._start_s
            if idle_s < ends:
                cost_s -= self._start_s
        return cost_s

    def _plan(self, blur: float) -> Spans:
        chances = self._chances(blur)
        there = sum(chances) + PRIOR / (CELLS + 1) + self._counts[CELLS]
        worth, gains, starts = self._start_s / self._cell_s, [], []
        for chance in chances:
            # A slot costs a cell for each idle time that goes on; a task that finds it saves a start.
            gains.append((worth + 0.5) * chance - there)
            starts.append(START_COST * worth * there)
            there -= chance
        return _best_spans(gains, starts, self._cell_s)

    def _chances(self, blur: float) -> list[float]:
        """How many idle times end in each cell: those that were seen, blurred, and those of an unknown pool."""
        steps = [0.0] * (CELLS + 1)
        for cell, count in enumerate(self._counts[:CELLS]):
            if count:
                reach = round(blur * cell)
                part = count / (2 * reach + 1)
                steps[cell - reach] += part
                steps[min(cell + reach + 1, CELLS)] -= part
        return [
            PRIOR / ((cell + 1) * (cell + 2)) + seen for cell, seen in enumerate(accumulate(steps[:CELLS]))
        ]


class Remembered:
    """The idle times of pools that have neither slots nor tasks, those that were forgotten last."""

    def __init__(self) -> None:
        self._times: dict[PoolKey, IdleTimes] = {}

    def __len__(self) -> int:
        return len(self._times)

    def keep(self, key: PoolKey, times: IdleTimes) -> None:
        """The pool is forgotten."""
        if times.is_empty:
            return
        if len(self._times) >= REMEMBERED_MOST:
            del self._times[next(iter(self._times))]
        self._times[key] = times

    def take(self, key: PoolKey) -> IdleTimes | None:
        """The pool is there again; None where nothing is known of it."""
        return self._times.pop(key, None)


def _best_spans(gains: list[float], starts: list[float], cell_s: float) -> Spans:
    """The cells in which a slot is there so that the sum of their `gains` is the largest, as spans of seconds.

    `starts`: what it costs to begin with a cell later than the first.
    """
    # From the last cell backwards: the best sum from here on, if a slot is there in this cell and if not; and whether
    # it is best to have one in the next cell, in both cases.
    with_it = without = start = 0.0
    stays, begins = [False] * len(gains), [False] * len(gains)
    for cell in range(len(gains) - 1, -1, -1):
        stays[cell], begins[cell] = with_it > without, with_it - start > without
        with_it, without = gains[cell] + max(with_it, without), max(with_it - start, without)
        start = starts[cell]
    spans, there, began = [], with_it > without, 0
    for cell in range(len(gains)):
        after = stays[cell] if there else begins[cell]
        if there and not after:
            spans.append((began * cell_s, (cell + 1) * cell_s))
        elif after and not there:
            began = cell + 1
        there = after
    return tuple(spans)
