"""GET /v1/tasks/{id}/timeline: a task's moments and the phases between them, as JSON, or as a page with a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

import falcon
import falcon.asgi

from scheduler.manager import Manager
from scheduler.task import Task
from scheduler.timeline import Phase, moments_of, phases_of
from sets.api.native.callers import Callers
from sets.api.native.querying import one_of_each
from sets.api.native.view import exact_timestamp, send_json

PHASE_WORDS: Final = {
    "earlier_attempt": "earlier attempt",
    "accept": "is accepted",
    "slot_wait": "waits for a slot",
    "input_wait": "input arrives",
    "begin": "program starts",
    "run": "runs",
    "record": "is recorded",
}
_WIDTH: Final = 960
_LEFT: Final = 150
_RIGHT: Final = 110
_ROW: Final = 26
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:960px;padding:0 1rem;color:#1c2330;background:#fff}
svg{width:100%;height:auto;font:13px system-ui,sans-serif}
svg text{fill:currentColor}
svg .frame{stroke:#8884;stroke-width:1}
svg .slot_wait,svg .input_wait{fill:#d99a2b}svg .run{fill:#2f7d4f}svg .accept,svg .begin,svg .record{fill:#5470a8}
svg .earlier_attempt{fill:#b0524a}svg .tick{stroke:currentColor;stroke-width:2}
table{border-collapse:collapse;margin-top:1.5rem}
th,td{text-align:left;padding:.15rem 1.5rem .15rem 0;font-variant-numeric:tabular-nums}
td.us{text-align:right}
@media(prefers-color-scheme:dark){body{color:#dde3ee;background:#14181f}}
"""


class TimelineResource:
    """The timeline of one task."""

    def __init__(self, manager: Manager, callers: Callers, set_name: str) -> None:
        self._manager = manager
        self._callers = callers
        self._set_name = set_name

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, task_id: str) -> None:
        account = self._callers.account_of(req)
        one_of_each(req, ())
        task = await self._manager.get(account, task_id)
        waiting_for = self._manager.waiting_for(task)
        resp.set_header("Vary", "Accept")
        if req.client_prefers((falcon.MEDIA_JSON, falcon.MEDIA_HTML)) == falcon.MEDIA_HTML:
            resp.content_type = "text/html; charset=utf-8"
            resp.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            resp.text = page(task, self._set_name, waiting_for)
        else:
            send_json(resp, timeline_json(task, self._set_name, waiting_for))


def timeline_json(task: Task, set_name: str, waiting_for: str | None) -> dict[str, Any]:
    """The timeline as a JSON object."""
    return {
        "id": task.id,
        "set": set_name,
        "image": task.spec.image,
        "kind": task.spec.kind,
        "state": task.state,
        "reason": task.reason,
        "attempts": task.attempts,
        "cold_start": task.cold_start,
        "waiting_for": waiting_for,
        "moments": {name: exact_timestamp(us) for name, us in moments_of(task).items()},
        "phases": [_phase_json(phase) for phase in phases_of(task)],
    }


def _phase_json(phase: Phase) -> dict[str, Any]:
    return {
        "phase": phase.name,
        "from_us": phase.from_us,
        "to_us": phase.to_us,
        "why": phase.why or None,
    }


def page(task: Task, set_name: str, waiting_for: str | None) -> str:
    """The timeline as a page without scripts."""
    title = f"Task {task.id}"
    phases = phases_of(task)
    facts = [
        task.spec.image,
        task.spec.kind.value,
        f"set {set_name}",
        task.state.value.replace("_", " "),
        *([] if task.reason is None else [task.reason.value.replace("_", " ")]),
        "cold start" if task.cold_start else "",
        f"waits: {waiting_for}" if waiting_for else "",
    ]
    moments = [
        f"<tr><th>{name.replace('_', ' ')}<td>{exact_timestamp(us) or 'not reached'}"
        f"<td class=us>{'' if us is None else length(us - task.created_us)}\n"
        for name, us in moments_of(task).items()
    ]
    return (
        f"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>{escape(title)}: General Compute</title>\n"
        f"<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        f"<p>{escape(', '.join(filter(None, facts)))}</p>\n{picture(task, phases)}{_reasons(phases)}"
        f"<table><tr><th>moment<th>time (UTC)<th>after queued\n{''.join(moments)}</table>\n</html>\n"
    )


def _reasons(phases: Sequence[Phase]) -> str:
    """How each earlier attempt ended, as a list."""
    said = [f"<li>{escape(phase.why)}\n" for phase in phases if phase.name == "earlier_attempt"]
    return f"<p>Earlier attempts:\n<ol>{''.join(said)}</ol>\n" if said else ""


def picture(task: Task, phases: Sequence[Phase]) -> str:
    """The phases as bars on one scale of time, each on a line of its own: SVG to put into a page."""
    known = [us for phase in phases for us in (phase.from_us, phase.to_us) if us is not None]
    whole = max([*known, 1])
    rows = [_row(number, phase, whole) for number, phase in enumerate(phases)]
    height = _ROW * len(phases) + 8
    moments = task.moments
    first = None if moments is None else moments.first_byte
    run = next((number for number, phase in enumerate(phases) if phase.name == "run"), None)
    if first is not None and run is not None:
        x, y = _x(first, whole), run * _ROW + 4
        rows.append(
            f"<line class=tick x1={x} x2={x} y1={y} y2={y + 18}><title>first byte of stdout</title></line>\n"
        )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role=img aria-label="Phases of the task">\n'
        f"<line class=frame x1={_LEFT} x2={_LEFT} y1=0 y2={height} />\n{''.join(rows)}</svg>\n"
    )


def _row(number: int, phase: Phase, whole_us: int) -> str:
    top = number * _ROW + 4
    to_us = whole_us if phase.to_us is None else phase.to_us
    left = _x(phase.from_us, whole_us)
    wide = max(2.0, round(_x(to_us, whole_us) - left, 1))
    long = "goes on" if phase.to_us is None else length(phase.to_us - phase.from_us)
    words = PHASE_WORDS[phase.name] + (f": {phase.why}" if phase.why else "")
    return (
        f"<text x=0 y={top + 14}>{PHASE_WORDS[phase.name]}</text>\n"
        f"<rect class={phase.name} x={left} y={top} width={wide} height=18 rx=2>"
        f"<title>{escape(words)}, {long}</title></rect>\n"
        f"<text x={_WIDTH - _RIGHT + 8} y={top + 14}>{long}</text>\n"
    )


def _x(us: int, whole_us: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * us / whole_us, 1)


def length(us: int) -> str:
    """A time in a suitable unit."""
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.2f} s"
