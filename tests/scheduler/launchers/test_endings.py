"""How a slot's container ended, in words for the set's log."""

from __future__ import annotations

import pytest

from scheduler.launchers.endings import how_it_ended


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (None, "its container ended"),
        (137, "its container was killed (exit code 137)"),
        (3, "its container ended with exit code 3"),
    ],
)
def test_an_end_in_words(exit_code: int | None, words: str) -> None:
    assert how_it_ended(exit_code) == words


def test_a_guest_that_could_not_start_says_what_to_change() -> None:
    """The container's own words on stderr are kept nowhere."""
    words = how_it_ended(2)
    assert "`limits.ulimits.nofile`" in words
    assert "LimitNOFILE=" in words
    assert "(exit code 2)" in words
