"""A watcher and a double of each registry: what it tells is in force soon; what it fails to tell changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.backoff import Backoff
from router.config.reader import load
from router.discovery import watcher as watcher_module
from router.discovery.instances import MAX_ANSWER_BYTES
from router.discovery.watcher import Watcher
from router.routing.table import Table
from tests.router.discovery.registry import FakeRegistry, Question, Reply, registry_of
from tests.router.rig import eventually

OLD, NEW = ("10.0.0.1", 8101), ("10.0.0.2", 8101)


@pytest.fixture(params=["consul", "nomad"])
async def registry(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeRegistry]:
    monkeypatch.setattr(watcher_module, "RETRY", Backoff(0.01, 0.05))
    async with registry_of(request.param) as registry:
        yield registry


class Rig:
    """A watcher, and how often it told of a change."""

    def __init__(self, registry: FakeRegistry, path: Path) -> None:
        self.registry = registry
        self.path = path
        self.changes = 0
        self.watcher = Watcher(self._changed, path)

    def _changed(self) -> None:
        self.changes += 1

    def table(self, services: str = "a: {service: gc-set-a}", extra: str = "") -> Table:
        text = (
            f"version: 1\ndiscovery: {{{self.registry.kind}: '{self.registry.url}'{extra}}}\n"
            f"sets: {{{services}}}\ndefault: {{weights: {{a: 100}}}}\n"
        )
        return load(text.encode()).table

    @property
    def address(self) -> tuple[str, int] | None:
        return self.watcher.addresses.get("gc-set-a")

    async def answered(self, more: int = 1) -> None:
        """Wait until the registry has answered so often again."""
        wanted = self.registry.answered + more
        await eventually(lambda: self.registry.answered >= wanted)


@pytest.fixture
async def rig(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(registry, tmp_path / "state" / "addresses.json")
    yield rig
    await rig.watcher.stop()


async def test_a_service_is_found_and_followed(rig: Rig) -> None:
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.address == OLD)
    await eventually(lambda: rig.registry.asked[-1].index == rig.registry.index)
    asked = len(rig.registry.asked)
    rig.registry.register(rig.registry.instance(*NEW))
    await eventually(lambda: rig.address == NEW)
    assert (rig.changes, len(rig.registry.asked) - asked <= 1) == (2, True), (
        "it waits for news, it does not poll"
    )


async def test_a_registry_that_empties_changes_nothing(rig: Rig) -> None:
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.address == OLD)
    rig.registry.register()
    await rig.answered()
    assert (rig.address, rig.changes) == (OLD, 1)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500, content=b"[]"),
        Reply(status=403, content=b"Permission denied"),
        Reply(status=301),
        Reply(content=b"<html>"),
        Reply(content=b"{}"),
        Reply(content=b"null"),
        Reply(content=b"x" * (MAX_ANSWER_BYTES + 1)),
    ],
    ids=lambda reply: f"{reply.status} {reply.content[:8].decode()}",
)
async def test_nor_does_one_that_answers_nonsense_for_a_while(rig: Rig, reply: Reply) -> None:
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.address == OLD)
    rig.registry.reply = lambda question: reply
    rig.registry.register(rig.registry.instance(*NEW))
    await rig.answered(3)
    assert rig.address == OLD
    rig.registry.reply = lambda question: None
    await eventually(lambda: rig.address == NEW)


async def test_nor_does_one_that_breaks_off(rig: Rig) -> None:
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.address == OLD)
    await eventually(lambda: rig.registry.asked[-1].index == rig.registry.index)
    rig.registry.cut()
    await rig.answered()
    assert rig.address == OLD
    rig.registry.register(rig.registry.instance(*NEW))
    await eventually(lambda: rig.address == NEW)


async def test_what_was_found_is_known_at_the_next_start(rig: Rig) -> None:
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.path.exists())
    assert json.loads(rig.path.read_bytes()) == {"gc-set-a": list(OLD)}
    assert Rig(rig.registry, rig.path).address == OLD
    assert [path.name for path in rig.path.parent.iterdir()] == ["addresses.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"gc-set-a": 1}', b"\xff"])
async def test_a_broken_file_of_addresses_is_left_out(
    registry: FakeRegistry, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "addresses.json"
    path.write_bytes(content)
    assert Rig(registry, path).watcher.addresses == {}


async def test_only_services_of_the_table_are_watched(rig: Rig) -> None:
    rig.watcher.follow(rig.table("a: {service: gc-set-a}, b: {service: gc-set-b}"))
    await eventually(
        lambda: (
            {question.path.rpartition("/")[2] for question in rig.registry.asked}
            == {
                "gc-set-a",
                "gc-set-b",
            }
        )
    )
    rig.watcher.follow(rig.table("a: {url: 'http://10.0.0.9:1'}"))
    await eventually(lambda: rig.registry.connections == 0)
    rig.registry.register(rig.registry.instance(*OLD))
    assert rig.watcher.addresses == {}


async def test_the_token_is_read_at_each_question(rig: Rig, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    rig.watcher.follow(rig.table(extra=f", token_file: {token}, namespace: gc"))
    await rig.answered()
    assert (rig.registry.asked[0].token, rig.registry.asked[0].namespace) == ("first", "gc")
    token.write_text("second\n")
    rig.registry.register(rig.registry.instance(*OLD))
    await eventually(lambda: rig.registry.asked[-1].token == "second")


async def test_a_token_file_that_is_away_is_no_end(rig: Rig, tmp_path: Path) -> None:
    token = tmp_path / "token"
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table(extra=f", token_file: {token}"))
    await asyncio.sleep(0)
    token.write_text("late")
    await eventually(lambda: rig.address == OLD)


async def test_a_change_that_cannot_be_put_in_force_does_not_end_the_watch(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    def fail() -> None:
        raise RuntimeError("the data plane is not well")

    rig = Rig(registry, tmp_path / "addresses.json")
    rig.watcher = Watcher(fail, rig.path)
    registry.register(registry.instance(*OLD))
    rig.watcher.follow(rig.table())
    await eventually(lambda: rig.address == OLD)
    registry.register(registry.instance(*NEW))
    await eventually(lambda: rig.address == NEW)
    await rig.watcher.stop()


async def test_a_silent_registry_holds_up_nobody(rig: Rig) -> None:
    def script(question: Question) -> Reply | None:
        return Reply(silent=True) if question.path.endswith("gc-set-b") else None

    rig.registry.reply = script
    rig.registry.register(rig.registry.instance(*OLD))
    rig.watcher.follow(rig.table("a: {service: gc-set-a}, b: {service: gc-set-b}"))
    await eventually(lambda: rig.address == OLD)
