"""What operators read: the table of sets, a difference, the history. Plain columns, parted by tabs, for a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ops.cli import report, router_plan
from ops.cli.router_admin import AdminError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as Drawn

    from router.config.difference import Difference
    from router.routing.table import Table

_STATUS: Final = (
    "SET",
    "BUILD",
    "STATE",
    "HEALTH",
    "WEIGHT",
    "NOW",
    "CORES",
    "QUEUED",
    "IN FLIGHT",
    "REQ/S",
    "ERRORS",
    "P50",
    "P99",
)
NOT_TOLD: Final = "–"
"""What stands for a figure that a set does not tell."""
_HEALTH_STYLES: Final = {
    "up": "green",
    "slow start": "yellow",
    "ejected": "yellow",
    "draining": "yellow",
    "down": "red",
    "refused": "red",
}
_STATE_STYLES: Final = {"drain": "yellow", "maint": "yellow"}


def contents(table: Table) -> str:
    """A table in a few words."""
    shares = ", ".join(f"{name} {percent(share / 100)}" for name, share in table.default.shares.items())
    rules = len(table.rules)
    return f"weights {shares}; {report.counted(len(table.sets), 'set')}, {report.counted(rules, 'rule')}"


def percent(value: float) -> str:
    """5 %, 0.25 %; nothing is rounded to 0 or to 100 that is not."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    if text == "0" and value > 0:
        text = "<0.01"
    return f"{text} %"


def milliseconds(value: float | None) -> str:
    return "" if value is None else report.duration(round(value * 1000))


def status(document: dict[str, Any]) -> None:
    """The sets of a router's status, one a line, under a line about the whole."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_status_drawn(document))
        return
    print("\t".join(_STATUS))
    for row in _status_rows(document):
        print("\t".join(row))
    for line in (*_remarks(document), rollout_remark(document)):
        if line:
            report.say(line)


def watch(
    ask: Callable[[], dict[str, Any]],
    interval_s: float,
    draw: Callable[[dict[str, Any]], RenderableType] | None = None,
) -> None:
    """Draw the status (or what `draw` makes of an answer) anew until interrupted.

    A router that does not answer for a while is told of, and not the end.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    shown: RenderableType = Text("…")
    with Live(shown, auto_refresh=False, screen=False) as live:
        while True:
            try:
                shown = (draw or _status_drawn)(ask())
                live.update(shown, refresh=True)
            except AdminError as error:
                live.update(Group(shown, Text(str(error), "red")), refresh=True)
            time.sleep(interval_s)


def _status_rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, each in document["sets"].items():
        limit = each["max_inflight"]
        health = each["health"]
        if each["ejected_for_s"]:
            health += f" {each['ejected_for_s']:.0f} s"
        rate = each["error_rate"]
        rows.append(
            (
                name,
                each.get("build") or NOT_TOLD,
                each["state"],
                health,
                percent(each["weight"]),
                percent(each["effective_weight"]),
                *_room(each),
                f"{each['inflight']}" + (f"/{limit}" if limit else ""),
                f"{each['requests_per_s']:.1f}",
                "" if rate is None else percent(100 * rate),
                milliseconds(each["p50_ms"]),
                milliseconds(each["p99_ms"]),
            )
        )
    return rows


def _room(each: dict[str, Any]) -> tuple[str, str]:
    """Cores in use of all, and tasks that wait with the longest wait; a set may not tell them."""
    cores = queued = NOT_TOLD
    if each.get("cores") is not None and each.get("cores_busy") is not None:
        cores = f"{each['cores_busy']:g}/{each['cores']:g}"
    if each.get("queued") is not None:
        queued = str(each["queued"])
        if each["queued"] and each.get("oldest_wait_s") is not None:
            queued += f", {report.duration(round(each['oldest_wait_s'] * 1_000_000))}"
    return cores, queued


def _remarks(document: dict[str, Any]) -> list[str]:
    found = []
    if document["config_error"]:
        found.append(
            f"the file as it is now is NOT in force, version {document['version']} is: {document['config_error']}"
        )
    if document.get("missing"):
        named = ", ".join(map(str, document["missing"]))
        found.append(f"of its workers, {named} did not answer: their requests are not in these figures")
    found += [
        f"{name} is saturated: {each['queued']} waiting, all its cores or slots are in use"
        for name, each in document["sets"].items()
        if each.get("saturated")
    ]
    if document["draining"]:
        found.append("the router is stopping")
    if not any(_serves(each) for each in document["sets"].values()):
        found.append("no set takes new requests: each is away, in drain or maint, or without weight")
    return found


def _serves(each: dict[str, Any]) -> bool:
    from router.choosing.serving import SERVING

    return each["effective_weight"] > 0 and each["state"] == "ready" and each["health"] in SERVING


def rollout_remark(document: dict[str, Any]) -> str:
    """A line about the rollout whose weights lie over the file's; empty where none has a say."""
    rollout = document.get("rollout")
    if not rollout or rollout["set"] is None or rollout["phase"] == "idle" or rollout["hands_off"]:
        return ""
    return (
        f"the {'dry run' if rollout['dry_run'] else 'rollout'} of {rollout['set']} is {rollout['phase']}, "
        f"step {rollout['step']} of {rollout['of']}, {_stands(rollout)}; "
        "`gcompute router rollout status` tells more"
    )


def _stands(rollout: dict[str, Any]) -> str:
    """Where the set is: what is in force, whatever a dry run would do."""
    if not rollout["dry_run"]:
        return f"at {percent(rollout['now'])}"
    return f"which would be {percent(rollout['weight'])}; in force: {percent(rollout['now'])}"


def _status_drawn(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    change = document["change"]
    about = f" ({change['by']}: {change['why']})" if change["by"] or change["why"] else ""
    head = Text(
        report.plain(
            f"router {document['router']}, version {document['version']}{about}, "
            f"{report.counted(document['active'], 'request')} in work, "
            f"{report.counted(document['connections'], 'connection')}"
        )
    )
    drawn = _table(_STATUS, right=_STATUS[4:])
    for row in _status_rows(document):
        cells: list[RenderableType] = [Text(report.plain(cell)) for cell in row]
        each = document["sets"][row[0]]
        cells[2] = Text(row[2], _STATE_STYLES.get(row[2], ""))
        cells[3] = Text(report.plain(row[3]), _HEALTH_STYLES.get(each["health"], ""))
        if row[4] != row[5]:
            cells[5] = Text(row[5], "yellow")
        if each.get("saturated"):
            cells[6], cells[7] = Text(row[6], "bold yellow"), Text(row[7], "bold yellow")
        drawn.add_row(*cells)
    remarks = [Text(report.plain(line), "bold red") for line in _remarks(document)]
    going = rollout_remark(document)
    return Group(head, drawn, *remarks, *([Text(report.plain(going), "yellow")] if going else []))


def difference(found: Difference) -> None:
    """Who moves, part by part, then everything else that becomes different."""
    if not found.any:
        print("nothing that a router does would change")
        return
    for shift in found.shifts:
        part = "requests that no rule matches" if shift.rule is None else f"rule {shift.rule}"
        if shift.before == shift.after and not shift.moved:
            if shift.rule is None:
                print(f"{part}: nobody moves")
            continue
        more = "" if shift.moved == shift.least else f" ({percent(shift.least)} would do)"
        print(f"{part}: {percent(shift.moved)} of keys move{more}")
        rows = [
            (
                name,
                percent(shift.before.get(name, 0.0)),
                percent(shift.after.get(name, 0.0)),
                percent(shift.gained(name)) if shift.gained(name) else "",
                percent(shift.lost(name)) if shift.lost(name) else "",
            )
            for name in sorted(shift.before.keys() | shift.after.keys())
        ]
        columns(("SET", "BEFORE", "AFTER", "COME", "GO"), rows, right=("BEFORE", "AFTER", "COME", "GO"))
    for line in found.words:
        print(report.plain(line))


def difference_document(found: Difference) -> dict[str, Any]:
    """The same as JSON; shares in percent."""
    return {
        "shifts": [
            {
                "rule": shift.rule,
                "before": shift.before,
                "after": shift.after,
                "moved": round(shift.moved, 4),
                "least": round(shift.least, 4),
                "moves": [
                    {"from": origin, "to": to, "share": round(share, 4)}
                    for (origin, to), share in sorted(shift.moves.items())
                ],
            }
            for shift in found.shifts
        ],
        "other": list(found.words),
    }


def history(document: dict[str, Any]) -> None:
    """Changes, newest first; what is in force is marked."""
    rows = []
    marked = False
    for change in reversed(document["changes"]):
        live = not marked and change["digest"] == document["digest"]
        marked |= live
        what = "weights of the rollout" if change["weights"] is not None else f"version {change['version']}"
        rows.append(
            (
                "*" if live else "",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change["at"])),
                what,
                change["digest"][:10],
                change["by"],
                change["why"],
            )
        )
    columns(("", "SINCE", "WHAT", "DIGEST", "BY", "WHY"), rows)


_CHECKS: Final = ("CHECK", "VERDICT", "CANARY", "CONTROL", "DIFFERENCE", "BETWEEN", "LIMIT", "WHY")


def rollout(document: dict[str, Any]) -> None:
    """How a rollout goes: its steps, checks and last events; where none does, what a start would do."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rollout_drawn(document))
        return
    for line in _rollout_lines(document):
        print(line)
    if document["checks"]:
        columns(_CHECKS, _check_rows(document))
    if document.get("next") is not None:
        for line in router_plan.lines(document["next"]):
            print(line)


def rollout_drawn(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    drawn = _table(_CHECKS, right=("CANARY", "CONTROL", "DIFFERENCE", "BETWEEN", "LIMIT"))
    for row in _check_rows(document):
        drawn.add_row(*(Text(report.plain(cell)) for cell in row))
    checks = [drawn] if document["checks"] else []
    ahead = router_plan.lines(document["next"]) if document.get("next") is not None else []
    return Group(*map(Text, _rollout_lines(document)), *checks, *map(Text, ahead))


def _rollout_lines(document: dict[str, Any]) -> list[str]:
    if document["set"] is None:
        return [f"no rollout: {document['reason']}" if document["reason"] else "no rollout yet"]
    dry = ", dry run" if document["dry_run"] else ""
    lines = [
        f"rollout of {document['set']}: {document['phase']}{dry}, step {document['step']} of {document['of']}, "
        + _stands(document)
    ]
    idle = document["phase"] == "idle"
    if idle:
        lines = [f"no rollout; the file's weights count (the last one was of {document['set']})"]
    if document["reason"]:
        lines.append(f"why: {document['reason']}")
    if document["hands_off"]:
        lines.append(
            "the weights were edited by hand: the file's count until somebody resumes, skips or aborts"
        )
    if document["plan_changed"]:
        lines.append("the file's plan has changed since the start; this rollout goes on with the old one")
    kept = document["in_force"]
    if (
        kept is not None
        and "end" in document["orders"]
        and document["weights"].get(kept["set"]) != kept["weight"]
    ):
        lines.append(
            f"the file says {percent(document['weights'].get(kept['set'], 0.0))}: "
            f"`gcompute router set-weight {kept['set']}={kept['weight']:g}` writes what is in force into it, "
            "`rollout end` lets it count"
        )
    if document["leader"] is False and document["led_by"] and not idle:
        lines.append(f"judged over all routers that share its state, by the one at {document['led_by']}")
    steps = []
    for step in document["steps"] if not idle else ():
        text = "pause" if step["pause"] else percent(step["weight"])
        steps.append(f"[{text}]" if step["now"] else f"{text} ✓" if step["done"] else text)
    if steps:
        lines.append("steps: " + "  →  ".join(steps))
    if document["hold_left_s"]:
        lines.append(f"held {document['held_s']:.0f} s, {document['hold_left_s']:.0f} s to go")
    if document["verdict"]:
        asked = document["requests"]
        lines.append(
            f"verdict: {document['verdict']} ({document['verdict_reason']}); "
            f"{report.counted(asked['canary'], 'request')} of the canary, {asked['control']} of the control"
        )
    if document["error"]:
        lines.append(f"error: {document['error']}")
    if document["orders"]:
        lines.append(f"you can: {', '.join(document['orders'])}")
    for event in document["events"][-5:]:
        at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        by = f" ({event['by']})" if event["by"] else ""
        lines.append(f"{at} {event['text']}{by}")
    return [report.plain(line) for line in lines]


def _check_rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    def number(value: float | None, unit: str) -> str:
        if value is None:
            return ""
        return report.duration(round(value)) if unit == "µs" else f"{value:.4g} {unit}"

    rows: list[tuple[str, ...]] = []
    for check in document["checks"]:
        unit = "points" if check["unit"] == "points" else "%"
        between = "" if check["low"] is None else f"{check['low']:.4g} … {check['high']:.4g}"
        rows.append(
            (
                check["name"],
                check["verdict"] + (" (report only)" if check["report_only"] else ""),
                number(check["canary"], check["side_unit"]),
                number(check["control"], check["side_unit"]),
                number(check["difference"], unit),
                between,
                number(check["threshold"], unit),
                check["reason"],
            )
        )
    return rows


def columns(heading: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table: drawn for a terminal; for a pipe, columns parted by tabs and never cut off."""
    plain = [[report.plain(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(heading), *plain]:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.text import Text

    drawn = _table(heading, right)
    for row in plain:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def _table(heading: Sequence[str], right: Sequence[str] = ()) -> Drawn:
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in heading:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=name in ("SET", "SINCE"))
    return drawn
