"""Lasting trouble is logged once, then rarely, and its end is logged too."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from scheduler.trouble import AGAIN_S, CHANGED_S, Trouble


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def told(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line["event"], line.get("reason", "")) for line in lines]


def test_an_hour_of_failures_is_a_dozen_lines_and_its_end_one() -> None:
    clock = Clock()
    trouble = Trouble("engine away", "engine back", now=clock)
    with capture_logs() as lines:
        for _ in range(3600):
            trouble.met("no socket")
            clock.now_s += 1
        trouble.over()
        trouble.over()
    assert told(lines) == [("engine away", "no socket")] * 12 + [("engine back", "")]
    assert (lines[0]["tries"], lines[1]["tries"]) == (1, 1 + AGAIN_S)
    assert (lines[-1]["tries"], lines[-1]["for_s"]) == (3600, 3600.0)


def test_another_reason_is_logged_soon() -> None:
    clock = Clock()
    trouble = Trouble("away", "back", now=clock)
    with capture_logs() as lines:
        trouble.met("no socket")
        clock.now_s += CHANGED_S
        trouble.met("refused")
    assert told(lines) == [("away", "no socket"), ("away", "refused")]


def test_trouble_that_comes_and_goes_does_not_fill_the_log() -> None:
    clock = Clock()
    trouble = Trouble("away", "back", now=clock)
    with capture_logs() as lines:
        for _ in range(100):
            trouble.met("closed")
            trouble.over()
            clock.now_s += CHANGED_S / 10
    assert told(lines) == [("away", "closed"), ("back", "")] * 10


def test_what_never_failed_is_never_over() -> None:
    with capture_logs() as lines:
        Trouble("away", "back").over()
    assert lines == []
