"""Measures the CPU time of choosing a set, by the number of sets and rules.

    python -m ops.bench.choice

No rule matches, which is the worst case. A fifth of the rules are regular expressions, which cannot be looked up in a
dictionary. Measured with all sets up, and with one ejected.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from router.choosing.choice import Chooser
from router.choosing.health import HealthBoard
from router.choosing.request import Destination, Purpose
from router.choosing.retry import RequestKind
from router.config.reader import load
from router.dialects.native import HeadFacts
from router.routing.policies import EJECT_AFTER_FAILURES
from router.wire.limits import Limits
from router.wire.request_head import parse_request

SIZES: Final = ((2, 0), (10, 50), (1000, 1000))
"""Sets, rules."""
_RUN: Final = Purpose(Destination.RUN, RequestKind.SYNC_RUN)
_HEAD: Final = (
    b"POST /v1/run/cat:1?arg=x HTTP/1.1\r\nHost: h\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nX-Canary: no\r\n"
    b"Authorization: Bearer gc_customer_abcdef0123456789\r\nX-User-Id: u17\r\nContent-Length: 5\r\n\r\n"
)
_RULES: Final = (
    "when: {{account: acme{0}}}",
    "when: {{header: {{x-canary: v{0}}}}}",
    'when: {{image: {{prefix: "ocr{0}/"}}}}',
    'when: {{path: {{regex: "/v1/run/foo{0}.*"}}, method: POST}}',
    "when: {{account: {{in: [x{0}, y{0}]}}, method: POST}}",
)


@dataclass
class _Load:
    inflight: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    sets: int
    rules: int
    well_us: float
    one_ejected_us: float


def figures() -> Iterator[Figure]:
    """Measure each size; take the best of several rounds, as other programs use the machine too."""
    for sets, rules in SIZES:
        chooser = _chooser(sets, rules)
        rounds = 20_000 // (sets + rules)
        well_us = _cost_us(chooser, rounds)
        for _ in range(EJECT_AFTER_FAILURES):
            chooser.board.failed("s1", 1.0)
        yield Figure(sets, rules, well_us, _cost_us(chooser, rounds))


def _chooser(sets: int, rules: int) -> Chooser:
    share, left = divmod(10_000, sets)
    weights = ", ".join(f"s{number}: {(share + left * (number == 0)) / 100:.2f}" for number in range(sets))
    text = [
        "version: 1",
        "sets:",
        *(f'  s{number}: {{url: "http://127.0.0.1:{1 + number}"}}' for number in range(sets)),
        "rules:" if rules else "",
        *(
            f"  - {{name: r{number}, {_RULES[number % len(_RULES)].format(number)}, to: s{number % sets}}}"
            for number in range(rules)
        ),
        f"default: {{weights: {{{weights}}}}}",
    ]
    table = load("\n".join(text).encode()).table
    board = HealthBoard(table.health)
    board.adopt(table.sets, table.health)
    return Chooser(table, board, {name: _Load() for name in table.sets})


def _cost_us(chooser: Chooser, rounds: int) -> float:
    head = parse_request(_HEAD, Limits())
    best = float("inf")
    for _ in range(7):
        started = time.process_time()
        for _ in range(rounds):
            chooser.choose(_RUN, HeadFacts(head, b"10.0.0.1"), None, 1.0)
        best = min(best, (time.process_time() - started) / rounds * 1e6)
    return best


def main() -> None:
    for figure in figures():
        print(
            f"{figure.sets} sets, {figure.rules} rules: {figure.well_us:.1f} µs, "
            f"{figure.one_ejected_us:.1f} µs with a set ejected"
        )


if __name__ == "__main__":
    main()
