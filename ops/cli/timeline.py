"""Prints the timeline of a task: each phase as a bar on one scale of time, then the task's moments."""

import shutil
from collections.abc import Mapping
from typing import Any, Final

from ops.cli import report

_WORDS: Final = {
    "earlier_attempt": "earlier attempt",
    "accept": "is accepted",
    "slot_wait": "waits for a slot",
    "input_wait": "input arrives",
    "begin": "program starts",
    "run": "runs",
    "record": "is recorded",
}
_LABEL: Final = 17
_TIME: Final = 10
_BAR_MOST: Final = 100


def draw(timeline: Mapping[str, Any]) -> None:
    """Print a timeline, as wide as the terminal."""
    phases = timeline["phases"]
    ends = [us for phase in phases for us in (phase["from_us"], phase["to_us"]) if us is not None]
    whole_us = max([*ends, 1])
    width = min(_BAR_MOST, max(10, shutil.get_terminal_size().columns - _LABEL - _TIME - 2))
    for phase in phases:
        to_us = phase["to_us"]
        long = "goes on" if to_us is None else report.duration(to_us - phase["from_us"])
        left = min(width - 1, phase["from_us"] * width // whole_us)
        right = width if to_us is None else -(-to_us * width // whole_us)
        bar = " " * left + "█" * max(1, right - left)
        name = report.plain(_WORDS.get(phase["phase"], phase["phase"]))[: _LABEL - 1]
        print(f"{name:<{_LABEL}}{bar:<{width}}  {long:>{_TIME}}")
        if phase["why"]:
            print(f"{'':<{_LABEL}}{report.plain(phase['why'])}")
    print()
    for name, moment in timeline["moments"].items():
        print(f"{report.plain(name.replace('_', ' ')):<{_LABEL}}{report.plain(moment or 'not reached')}")
    if timeline.get("waiting_for"):
        print(f"{'waits for':<{_LABEL}}{report.plain(timeline['waiting_for'])}")
