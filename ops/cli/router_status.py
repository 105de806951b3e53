"""Prints the status of a router: its sets, one a line, under a line about the whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ops.cli import report
from ops.cli.router_admin import AdminError
from ops.cli.router_columns import drawing, milliseconds, percent

if TYPE_CHECKING:
    from rich.console import RenderableType


_HEADING: Final = (
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
"""Shown for a figure that a set does not report."""

_HEALTH_STYLES: Final = {
    "up": "green",
    "slow start": "yellow",
    "ejected": "yellow",
    "draining": "yellow",
    "down": "red",
    "refused": "red",
}

_STATE_STYLES: Final = {"drain": "yellow", "maint": "yellow", "barred": "yellow"}


def status(document: dict[str, Any]) -> None:
    """Print the sets of a router's status, one a line, under a line about the whole."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_drawn(document))
        return
    print("\t".join(_HEADING))
    for row in _rows(document):
        print("\t".join(row))
    for line in (*_remarks(document), rollout_remark(document)):
        if line:
            report.say(line)


def watch(
    ask: Callable[[], dict[str, Any]],
    interval_s: float,
    draw: Callable[[dict[str, Any]], RenderableType] | None = None,
) -> None:
    """Redraw the status (or the result of `draw`) until interrupted.

    While the router does not answer, the last status stays, with the error below it.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    shown: RenderableType = Text("…")
    with Live(shown, auto_refresh=False, screen=False) as live:
        while True:
            try:
                shown = (draw or _drawn)(ask())
                live.update(shown, refresh=True)
            except AdminError as error:
                live.update(Group(shown, Text(str(error), "red")), refresh=True)
            time.sleep(interval_s)


def _rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    barred = {bar["set"] for bar in (document.get("rollout") or {}).get("barred", ())}
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
                # The router drains a barred set; the file's own state may be another.
                "barred" if name in barred and each["state"] == "drain" else each["state"],
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
    """Return cores in use of all cores, and waiting tasks with the longest wait; a set may not report them."""
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
            f"the present file is NOT in force, version {document['version']} is: {document['config_error']}"
        )
    if document.get("missing"):
        named = ", ".join(map(str, document["missing"]))
        found.append(f"of its workers, {named} did not answer: these figures do not include their requests")
    found += [
        f"{name} is saturated: {each['queued']} waiting, all its cores or slots are in use"
        for name, each in document["sets"].items()
        if each.get("saturated")
    ]
    found += map(bar_remark, (document.get("rollout") or {}).get("barred", ()))
    if document["draining"]:
        found.append("the router is stopping")
    if not any(_serves(each) for each in document["sets"].values()):
        found.append("no set takes new requests: each is down, in drain or maint, or has no weight")
    return found


def _serves(each: dict[str, Any]) -> bool:
    from router.choosing.serving import SERVING

    return each["effective_weight"] > 0 and each["state"] == "ready" and each["health"] in SERVING


def rollout_remark(document: dict[str, Any]) -> str:
    """Return a line about the rollout whose weights are in force; empty without one."""
    rollout = document.get("rollout")
    if not rollout or rollout["set"] is None or rollout["phase"] == "idle" or rollout["hands_off"]:
        return ""
    return (
        f"the {'dry run' if rollout['dry_run'] else 'rollout'} of {rollout['set']} is {rollout['phase']}, "
        f"step {rollout['step']} of {rollout['of']}, {position(rollout)}; "
        "see `gcompute router rollout status`"
    )


def bar_remark(bar: dict[str, Any]) -> str:
    """Return what it means that a rollout took a set back, and what readmits the set."""
    name = bar["set"]
    return (
        f"{name} gets no new request, by weight or rule, since its rollout was aborted ({bar['reason']}); another "
        f"build of {name}, another weight for it in the file, `gcompute router rollout start` or "
        "`gcompute router rollout end` readmits it"
    )


def position(rollout: dict[str, Any]) -> str:
    """Return the weight in force, and the one that a dry run would give."""
    if not rollout["dry_run"]:
        return f"at {percent(rollout['now'])}"
    return f"which would be {percent(rollout['weight'])}; in force: {percent(rollout['now'])}"


def _drawn(document: dict[str, Any]) -> RenderableType:
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
    drawn = drawing(_HEADING, right=_HEADING[4:])
    for row in _rows(document):
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
