"""`gcompute router simulate`: plays an invented release and prints it as a table; needs no router or set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from ops.cli import exits, report, router_columns
from ops.cli.command import Argument, BadParameter, Context, Option
from ops.cli.router_look import read_file
from ops.cli.router_session import JsonOption, as_json, operating, print_json

if TYPE_CHECKING:
    from router.rollout.simulate import Row

HEADING: Final = (
    "AT",
    "PHASE",
    "STEP",
    "WEIGHTS",
    "REQUESTS",
    "FAILED",
    "CANARY",
    "CONTROL",
    "P95",
    "HEALTH",
    "WHAT",
)


@operating
def simulate(
    ctx: Context,
    scenario: Annotated[
        str, Argument(metavar="[SCENARIO]", help="The scenario; --list names them.")
    ] = "healthy",
    file: Annotated[
        Path | None,
        Option(
            metavar="FILE", help="Play the `rollout` section of this file, from its weights; else an example."
        ),
    ] = None,
    rate: Annotated[float, Option(min=0.0, max=1000.0, help="Requests a second.")] = 20.0,
    duration_s: Annotated[
        float,
        Option(("--duration",), min=1.0, max=7 * 86400.0, help="Maximum duration in seconds."),
    ] = 3600.0,
    every_s: Annotated[
        float,
        Option(("--every",), min=1.0, max=7 * 86400.0, help="Seconds between rows; events are always shown."),
    ] = 60.0,
    seed: Annotated[int, Option(help="Seed of the random events.")] = 0,
    list_: Annotated[bool, Option(("--list",), help="List the scenarios and exit.")] = False,
    json_: JsonOption = False,
) -> int:
    """Simulate a release: what the automation does when the canary fails, hangs, is slow, or is healthy.

    Examples:

        gcompute router simulate errors

        gcompute router simulate slow --file router.yaml --rate 5
    """
    from msgspec.structs import asdict

    from router.config.reader import load
    from router.rollout.simulate import ABOUT
    from router.rollout.simulate import simulate as play

    if list_:
        router_columns.columns(("SCENARIO", "WHAT"), list(ABOUT.items()))
        return 0
    if scenario not in ABOUT:
        raise BadParameter(f"{scenario!r} is none of {', '.join(ABOUT)}", param_hint="SCENARIO")
    plan = shares = None
    if file is not None:
        text = read_file(file)
        if text is None:
            return exits.NO_INPUT
        table = load(text).table
        plan, shares = table.rollout, table.default.shares
        if plan is None:
            report.say(f"{file} has no `rollout` section to play")
            return exits.DATA
    rows = play(scenario, plan=plan, shares=shares, seed=seed, rate=rate, duration_s=duration_s)
    if as_json(ctx, json_):
        for row in rows:
            print_json(asdict(row))
        return 0
    router_columns.columns(HEADING, map(_cells, _thinned(rows, every_s)))
    return 0


def _thinned(rows: Iterator[Row], every_s: float) -> Iterator[Row]:
    """Select the rows with an event, one row per interval, and the last."""
    shown_at = -every_s
    unseen: Row | None = None
    for row in rows:
        unseen = row
        if row.events or row.at_s - shown_at >= every_s:
            shown_at = row.at_s
            unseen = None
            yield row
    if unseen is not None:
        yield unseen


def _cells(row: Row) -> tuple[str, ...]:
    minutes, seconds = divmod(round(row.at_s), 60)

    def side(requests: int, errors: float | None) -> str:
        return f"{requests}" if errors is None else f"{requests}, {router_columns.percent(100 * errors)} bad"

    latencies = (row.canary_p95_ms, row.control_p95_ms)
    return (
        f"{minutes}:{seconds:02d}",
        row.phase,
        str(row.step),
        " ".join(f"{name} {router_columns.percent(share)}" for name, share in row.effective.items()),
        " ".join(f"{name} {count}" for name, count in row.requests.items()),
        str(row.failed) if row.failed else "",
        side(row.canary_requests, row.canary_errors),
        side(row.control_requests, row.control_errors),
        " / ".join("" if value is None else f"{value:.0f} ms" for value in latencies).strip(" /"),
        " ".join(f"{name} {word}" for name, word in row.health.items() if word != "up") or "all up",
        "; ".join(row.events),
    )
