"""`python -m ops.bench_router`: measure, print the table, exit with 1 if a figure misses its target."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from ops.bench.__main__ import table
from ops.bench.figures import Figure
from ops.bench.stack import BenchFailed
from ops.bench_router.bench import Bench
from ops.bench_router.bodies import bodies
from ops.bench_router.choosing import choosing
from ops.bench_router.delay import latency
from ops.bench_router.idle import idle
from ops.bench_router.small import small
from ops.bench_router.soak import soak
from ops.bench_router.tls import tls

Part = Callable[[Bench, float], Iterator[Figure]]


def _in_rounds(measure: Callable[[Bench, int], Iterator[Figure]], rounds: int) -> Part:
    return lambda bench, factor: measure(bench, max(1, round(rounds * factor)))


PARTS: Final[dict[str, tuple[Part, str]]] = {
    "small": (_in_rounds(small, 7), "small requests, as many as possible"),
    "bodies": (_in_rounds(bodies, 7), "10 MB bodies"),
    "latency": (_in_rounds(latency, 7), "latency at half load"),
    "idle": (_in_rounds(idle, 5), "10,000 idle connections"),
    "tls": (_in_rounds(tls, 5), "TLS for clients"),
    "choice": (_in_rounds(choosing, 3), "choosing a set"),
    # The factor scales its requests, reloads and restarts together.
    "soak": (soak, "1,000,000 requests through reloads and restarts (a quarter of an hour)"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench-router", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--rounds", type=_factor, default=1.0, metavar="F", help="factor for all rounds (0.15: a quick look)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is named {', '.join(unknown)}; there are {', '.join(PARTS)}")
    found: list[Figure] = []
    failed = False
    try:
        with Bench(_say) as bench:
            for name in [part for part in PARTS if part in (options.parts or PARTS)]:
                measure, words = PARTS[name]
                began = time.monotonic()
                print(f"{words} …", file=sys.stderr, flush=True)
                try:
                    found += measure(bench, options.rounds)
                except BenchFailed as error:
                    # Go on with the other parts.
                    failed = True
                    print(f"make bench-router: {name}: {error}", file=sys.stderr)
                _say(f"({time.monotonic() - began:.0f} s)")
    except BenchFailed as error:
        print(f"make bench-router: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps([figure.__dict__ for figure in found], indent=1) + "\n")
    if failed:
        return 2
    return 0 if all(figure.good for figure in found) else 1


def _factor(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError("a number above 0, at most 100")
    return value


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # Stop the processes that this program started, on SIGTERM as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
