"""Prints the progress of a rollout: its steps, checks and latest events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

from ops.cli import report, router_plan
from ops.cli.router_columns import columns, drawing, percent
from ops.cli.router_plan import span
from ops.cli.router_status import bar_remark, position

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
    lines += map(bar_remark, document.get("barred", ()))
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
        and document["weights"].get(kept["set"], 0.0) != kept["weight"]
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
    lines += _waits(document)
    if document["verdict"]:
        asked = document["requests"]
        lines.append(
            f"verdict: {document['verdict']} ({document['verdict_reason']}); "
            f"{report.counted(asked['canary'], 'request')} of the canary, {asked['control']} of the control"
        )
    lines += _witnesses(document)
    if document["error"]:
        lines.append(f"error: {document['error']}")
    if document["orders"]:
        lines.append(f"you can: {', '.join(_offered(document))}")
    for event in document["events"][-5:]:
        at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
        by = f" ({event['by']})" if event["by"] else ""
        lines.append(f"{at} {event['text']}{by}")
    return [report.plain(line) for line in lines]


def _offered(document: dict[str, Any]) -> list[str]:
    """Return the orders that somebody can give now; `promote` is `skip` repeated, and needs a running router."""
    runs = document["leader"] is not None
    return [
        each
        for order in document["orders"]
        for each in ((order, "promote") if order == "skip" and runs else (order,))
    ]


def _waits(document: dict[str, Any]) -> list[str]:
    """Say what the rollout waits for, and how many requests are open."""
    lines = []
    if (waits := document.get("waits")) is not None:
        most = "" if waits["at_most_s"] is None else f", {span(waits['at_most_s'])} at most"
        lines.append(f"waits for {waits['for']}{most}; then: {waits['then']}")
    if document.get("paused_s"):
        lines.append(f"paused for {span(document['paused_s'])}")
    if (open_ := document.get("open")) is not None:
        sides = [
            f"{side} {told['requests']}"
            + ("" if told["oldest_s"] is None else f", the oldest for {span(told['oldest_s'])}")
            for side, told in open_.items()
        ]
        # From an abort or the end on, the count stays as the checks saw it last.
        when = "yet" if document.get("comparing", True) else "at the last check"
        lines.append(f"requests without an answer {when}: {'; '.join(sides)}")
    if left_out := document.get("left_out"):
        lines.append(
            f"not judged: {report.counted(left_out, 'request')}, as one key or address had its share "
            "(`--trust-front` and `shared_addresses` tell callers apart)"
        )
    return lines


def _witnesses(document: dict[str, Any]) -> list[str]:
    """The requests of the canary that tell most."""
    told = []
    for each in document.get("witnesses", ()):
        image = "" if each["image"] is None else f" ({each['image']})"
        took = report.duration(round(each["duration_s"] * 1e6))
        told.append(
            f"  {each['kind']}: {each['request']}{image} at {each['set']}: {each['status']} after {took}; "
            f"id {each['id']}"
        )
    return ["requests of the canary that tell most:", *told] if told else []


def _check_rows(document: dict[str, Any]) -> list[tuple[str, ...]]:
    def number(value: float | None, unit: str) -> str:
        if value is None:
            return ""
        return report.duration(round(value)) if unit == "µs" else f"{value:.4g} {unit}"

    rows: list[tuple[str, ...]] = []
    for check in document["checks"]:
        unit = "points" if check["unit"] == "points" else "%"
        between = ""
        if check["low"] is not None or check["high"] is not None:
            between = " … ".join(
                "no bound" if bound is None else f"{bound:.4g}" for bound in (check["low"], check["high"])
            )
        # A check without a limit is not judged: that it passes says nothing.
        off = check["threshold"] is None and check["verdict"] == "pass"
        rows.append(
            (
                check["name"],
                ("off" if off else check["verdict"]) + (" (report only)" if check["report_only"] else ""),
                number(check["canary"], check["side_unit"]),
                number(check["control"], check["side_unit"]),
                number(check["difference"], unit),
                between,
                number(check["threshold"], unit),
                check["reason"],
            )
        )
    return rows
