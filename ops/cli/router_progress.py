"""Prints the progress of a rollout: its steps, checks and latest events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from ops.cli import report, router_plan
from ops.cli.router_columns import columns, drawing, percent
from ops.cli.router_status import position

if TYPE_CHECKING:
    from rich.console import RenderableType


_CHECKS: Final = ("CHECK", "VERDICT", "CANARY", "CONTROL", "DIFFERENCE", "BETWEEN", "LIMIT", "WHY")


def progress(document: dict[str, Any]) -> None:
    """Print the steps, checks and latest events of a rollout; without one, what `start` would do."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(drawn_progress(document))
        return
    for line in _lines(document):
        print(line)
    if document["checks"]:
        columns(_CHECKS, _check_rows(document))
    if document.get("next") is not None:
        for line in router_plan.lines(document["next"]):
            print(line)


def drawn_progress(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    drawn = drawing(_CHECKS, right=("CANARY", "CONTROL", "DIFFERENCE", "BETWEEN", "LIMIT"))
    for row in _check_rows(document):
        drawn.add_row(*(Text(report.plain(cell)) for cell in row))
    checks = [drawn] if document["checks"] else []
    ahead = router_plan.lines(document["next"]) if document.get("next") is not None else []
    return Group(*map(Text, _lines(document)), *checks, *map(Text, ahead))


def _lines(document: dict[str, Any]) -> list[str]:
    if document["set"] is None:
        return [f"no rollout: {document['reason']}" if document["reason"] else "no rollout yet"]
    dry = ", dry run" if document["dry_run"] else ""
    lines = [
        f"rollout of {document['set']}: {document['phase']}{dry}, step {document['step']} of {document['of']}, "
        + position(document)
    ]
    idle = document["phase"] == "idle"
    if idle:
        lines = [f"no rollout; the file's weights are in force (the last one was of {document['set']})"]
    if document["reason"]:
        lines.append(f"why: {document['reason']}")
    for bar in document.get("barred", ()):
        if document["in_force"] is None or bar["set"] != document["in_force"]["set"] or idle:
            lines.append(
                f"{bar['set']} gets no new request, by weight or rule, since its rollout was aborted "
                f"({bar['reason']}); another build, `rollout start` or `rollout end` readmits it"
            )
    if document["hands_off"]:
        lines.append(
            "the weights were edited by hand: the file's are in force until somebody resumes, skips or aborts"
        )
    if document["plan_changed"]:
        lines.append("the file's plan has changed since the start; this rollout keeps the old plan")
    kept = document["in_force"]
    if (
        kept is not None
        and "end" in document["orders"]
        and document["weights"].get(kept["set"]) != kept["weight"]
    ):
        lines.append(
            f"the file says {percent(document['weights'].get(kept['set'], 0.0))}: "
            f"`gcompute router set-weight {kept['set']}={kept['weight']:g}` writes the weight in force into it, "
            "`rollout end` puts the file in force"
        )
    if document["leader"] is False and document["led_by"] and not idle:
        lines.append(f"judged for all routers that share its state by the one at {document['led_by']}")
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
