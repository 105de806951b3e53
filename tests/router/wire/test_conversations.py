"""Slow clients and sets (each time-out), resets and ends at every point, early answers, 1xx: acted out step by step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.router.wire.cases import CONVERSATIONS
from tests.router.wire.conversation import play


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
async def test_conversation(path: Path) -> None:
    await play(path)


def test_the_conversations_are_there() -> None:
    assert len(CONVERSATIONS) >= 50
