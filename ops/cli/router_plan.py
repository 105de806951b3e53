"""Describes what starting a rollout would do."""

from __future__ import annotations

from typing import Any, Final

from ops.cli import report

WORST: Final = {
    "latency": "if all answers take twice as long",
    "parts": "if everything fails for one image",
}
"""The harm by which a plan tells how soon a check fails; of the other checks: everything fails."""


def lines(document: dict[str, Any]) -> list[str]:
    """Return `next` of `GET /rollout` (see `router.rollout.preview`) in words."""
    name, rate = document["set"], document["requests_per_s"]
    told = [f"a start would release {name}, compared with {', '.join(document['stable']) or 'nobody'}"]
    if document["refused"] is not None:
        told.append(f"but it would be refused: {document['refused']}")
    if document["dry_run"]:
        told.append("dry run: it judges, but changes no weight")
    if document["returning"]:
        told.append(f"{name} carried as much not long ago: it gets that back at once, without the steps")
    if document["lowers"] is not None:
        lowers = document["lowers"]
        how = " move by move, as the other sets can bear it" if lowers["glides"] else ""
        told.append(
            f"{name} goes DOWN first, from {_percent(lowers['from'])} to {_percent(lowers['to'])}{how}"
        )
    for number, step in enumerate(document["steps"], 1):
        if step["pause"]:
            told.append(f"  {number}. a pause, until somebody resumes")
            continue
        text = f"  {number}. {_percent(step['weight'])}"
        text += f" for {span(step['hold_s'])}" if step["hold_s"] else ", no hold"
        shares = ", ".join(f"{each} {_percent(share)}" for each, share in step["effective"].items())
        text += f": {shares}; {step['compared_per_s']:.3g} requests/s of each side compared"
        if step["gate"]:
            text += f"; asks {step['gate']} first"
        if step["starves"]:
            text += f"; TOO FEW to judge in time: it would {document['on_no_data']}"
        elif step["enough_s"] is not None:
            text += f"; enough to judge after {span(step['enough_s'])}"
        if step.get("sick_s") is not None:
            text += f"; back after {span(max(1.0, step['sick_s']))} if every request fails"
        told.append(text)
    about = document["about_s"]
    waits = [report.counted(document[f"{what}s"], what) for what in ("pause", "gate") if document[f"{what}s"]]
    if about is None:
        takes = "it would not get through all steps by itself: there are too few requests to judge by"
    else:
        takes = f"about {span(about)}{', and ' + ' and '.join(waits) if waits else ''}"
    told.append(f"{takes}; at {rate:.3g} requests/s of all sets")
    if document.get("let_through"):
        told.append(f"a canary passes within its margins: {'; '.join(document['let_through'])}")
    told.append(
        f"no step passes before both sides have {report.counted(document['min_requests'], 'request')}; the checks:"
    )
    for check in document["checks"]:
        unit = "points" if check["unit"] == "points" else "%"
        if check["threshold"] is None:
            told.append(f"  {check['name']}: not judged")
            continue
        fails, proves = (
            "never" if needed is None else f"after {report.counted(needed, 'request')} a side"
            for needed in (check["fails_after"], check["proves_after"])
        )
        worst = WORST.get(check["name"], "if everything fails")
        does = "aborts" if check["aborts"] else "reports"
        told.append(
            f"  {check['name']}: {does} above control by {check['threshold']:g} {unit}; {worst}, {fails}"
            + ("" if check["name"] == "parts" else f"; proof that all is well, {proves}")
        )
    return [report.plain(line) for line in told]


def span(seconds: float) -> str:
    """5 s, 10 min, 1 h 43 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def _percent(value: float) -> str:
    return f"{value:g} %"
