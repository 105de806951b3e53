"""The record of a crash run: a later part goes on where an earlier one ended."""

from __future__ import annotations

from pathlib import Path

from tests.crash.record import Record


def test_a_part_goes_on_after_the_last_whole_chapter(tmp_path: Path) -> None:
    file = tmp_path / "var" / "seed-7.json"
    record = Record.of(file, 7)
    assert record.chapters == 0
    record.add(20, 1.5, {"calls": 10, "answers": {"sync 200": 10}, "succeeded": 4})
    record.keep(file)
    record.add(20, 1.0, {"calls": 5})
    # Killed before it could keep this one.
    again = Record.of(file, 7)
    assert (again.chapters, again.rounds, again.minutes) == (1, 20, 1.5)
    again.add(20, 2.5, {"calls": 1, "succeeded": 1})
    again.broken.append("chapter 1: lost: a-1 is queued in the end")
    again.keep(file)
    assert Record.of(file, 7) == again
    assert again.text().splitlines() == [
        "seed 7: 40 rounds in 4 minutes",
        "calls: 11",
        "succeeded: 5",
        "chapter 1: lost: a-1 is queued in the end",
    ]
    assert Record.of(tmp_path / "seed-8.json", 8).chapters == 0, "another seed"
