"""Links under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ops.certificates.authority import Authority
from tests.sets.executor.link.played import PlayedSet
from tests.sets.executor.link.rig import Rig


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of certificates: of the sets a and b, of the nodes n1 and n2, and of a node n1 of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder / "authority"), Authority(folder / "stranger")
    authority.make()
    stranger.make()
    for name in ("a", "b"):
        authority.issue_to_set(name, folder / name, 10)
    for node in ("n1", "n2"):
        authority.issue_to_executor(node, folder / node, 10)
    stranger.issue_to_executor("n1", folder / "strange-n1", 10)
    stranger.issue_to_set("a", folder / "strange-a", 10)
    return folder


@pytest.fixture
async def rig(certificates: Path) -> AsyncIterator[Rig]:
    """A set with a link to one node."""
    opened = await Rig(certificates).open()
    yield opened
    await opened.close()


@pytest.fixture
async def at_node() -> AsyncIterator[PlayedSet]:
    """A node's end of a link whose set is played, with a slot that is ready."""
    played = await PlayedSet().begin()
    await played.ready_slot()
    await played.heard()
    yield played
    played.session.end("the test is over")
    await played.session.close()
