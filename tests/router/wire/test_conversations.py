"""Slow clients and sets (each time-out), resets and ends at every point, early answers, 1xx: acted out step by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.routing.timeouts import NAMES
from tests.router.wire.cases import CONVERSATIONS
from tests.router.wire.conversation import play


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
async def test_conversation(path: Path) -> None:
    await play(path)


def test_the_conversations_are_there() -> None:
    assert len(CONVERSATIONS) >= 50


@pytest.mark.parametrize("name", NAMES)
def test_each_time_out_has_a_conversation(name: str) -> None:
    """One that is shorter than usual, and so runs out or does not in the conversation's course."""
    given = f" {name}_s=0."
    assert [path for path in CONVERSATIONS if given in path.read_text(encoding="utf-8").partition("\n>")[0]]
