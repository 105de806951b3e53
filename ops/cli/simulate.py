"""`gcompute simulate`: plays a scenario in virtual time, and prints how long tasks waited and what cores were used."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from ops.cli import exits, report, router_columns
from ops.cli.command import Argument, BadParameter, Context, Option, UsageError
from ops.cli.router_session import JsonOption, as_json, print_json

if TYPE_CHECKING:
    from ops.simulator.report import Figures, Report

HEADING: Final = (
    "TASKS",
    "PER S",
    "WAIT P50",
    "P95",
    "P99",
    "MAX",
    "COLD",
    "CORES",
    "USED",
    "SHARE",
    "REFUSED",
    "FAILED",
    "LOST",
    "GAVE WAY",
    "WAITING",
    "FAIRNESS",
)


def simulate(
    ctx: Context,
    scenario: Annotated[
        str, Argument(metavar="[SCENARIO]", help="A scenario's file, or the name of one that ships.")
    ] = "",
    seed: Annotated[int | None, Option(help="Seed of the random numbers; by default the scenario's.")] = None,
    length_s: Annotated[
        float | None,
        Option(
            min=1.0,
            max=1e8,
            help="Press the scenario's course into this many seconds; rates and durations stay the same.",
        ),
    ] = None,
    html: Annotated[
        Path | None, Option(metavar="FILE", help="Also write a page with plots, in one file.")
    ] = None,
    list_: Annotated[bool, Option(("--list",), help="List the scenarios that ship and exit.")] = False,
    json_: JsonOption = False,
) -> int:
    """Simulate sets under a scenario: the real task manager's decisions and the real router's choice, in virtual time.

    Exits with 1 when the run misses what its scenario expects.

    Examples:

        gcompute simulate flood

        gcompute simulate pictures --length-s 600 --html pictures.html
    """
    from ops.simulator.scenario import shipped
    from sets.yaml_file import ConfigError

    if list_:
        from ops.simulator.scenario import read

        router_columns.columns(
            ("SCENARIO", "WHAT"), [(name, read(path).about) for name, path in shipped().items()]
        )
        return 0
    known = shipped()
    if not scenario:
        raise UsageError(f"name a scenario: a file, or one of {', '.join(known)}")
    path = known.get(scenario, Path(scenario))
    if scenario not in known and not path.is_file():
        raise BadParameter(
            f"{scenario!r} is neither a file nor one of {', '.join(known)}", param_hint="SCENARIO"
        )
    try:
        found = _play(path, seed, length_s)
    except ConfigError as error:
        report.say(str(error))
        return exits.CONFIG
    if html is not None:
        from ops.simulator.page import page

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            report.say(f"{html}: {error.strerror}")
            return exits.IO
    if as_json(ctx, json_):
        print_json(found.document())
    else:
        _print(found)
    return 0 if found.good else 1


def _play(path: Path, seed: int | None, length_s: float | None) -> Report:
    from msgspec.structs import replace

    from ops.simulator.play import Play
    from ops.simulator.report import check_expectations, report_of
    from ops.simulator.scenario import read, shortened

    scenario = read(path)
    check_expectations(scenario, path)
    if seed is not None:
        scenario = replace(scenario, seed=seed)
    if length_s is not None:
        scenario = shortened(scenario, length_s)
    play = Play(scenario)
    # CPU time: other programs of the machine add little to it.
    began = time.process_time()

    def told(now_s: float) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{100 * now_s / scenario.length_s:3.0f} % ")
            sys.stderr.flush()

    tally = play.run(told)
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    return report_of(path.stem, scenario, tally, time.process_time() - began)


def _print(found: Report) -> None:
    scenario = found.scenario
    print(
        f"{scenario.about}\n{_hours(scenario.length_s)} h, cores: {scenario.cores:,g}, seed: {scenario.seed}\n"
    )
    rows = [(name, *_cells(figures)) for name, figures in found.accounts.items()]
    if len(rows) != 1:
        rows.append(("all", *_cells(found.all)))
    router_columns.columns(("ACCOUNT", *HEADING), rows, right=HEADING)
    print()
    router_columns.columns(
        ("AT", *HEADING),
        [(_hours(each.at_s), *_cells(each.all)) for each in found.rows],
        right=HEADING,
    )
    print()
    for met in found.expected:
        print(f"{'ok    ' if met.good else 'MISSED'}  {met.words}")
    print(f"slots held {found.slots_gib:,.1f} GiB of memory on average, idle ones included")
    per_s = found.all.tasks / found.took_s if found.took_s else 0.0
    print(
        f"{report.counted(found.all.tasks, 'task')} in {found.took_s:.1f} s of CPU time: {per_s:,.0f} a second"
    )


def _cells(figures: Figures) -> tuple[str, ...]:
    return (
        f"{figures.tasks:,}",
        f"{figures.per_s:,.1f}",
        *(
            _wait(each)
            for each in (figures.wait_p50_s, figures.wait_p95_s, figures.wait_p99_s, figures.wait_max_s)
        ),
        router_columns.percent(100 * figures.cold),
        f"{figures.cores:,.1f}",
        f"{100 * figures.utilisation:.1f} %",
        f"{100 * figures.share:.1f} %",
        *(
            f"{each:,}" if each else ""
            for each in (figures.refused, figures.failed, figures.lost, figures.gave_way)
        ),
        f"{figures.waiting:,.0f}",
        "" if figures.fairness is None else f"{figures.fairness:.3f}",
    )


def _wait(seconds: float | None) -> str:
    return "" if seconds is None else report.duration(round(seconds * 1e6))


def _hours(seconds: float) -> str:
    minutes, left_s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left_s:02d}"
