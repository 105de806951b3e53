"""A router as a process finds its sets in a registry, and goes on without it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.router.discovery.registry import FakeRegistry, registry_of
from tests.router.rig import eventually
from tests.router.test_server import Process, router, sets


def write(config: Path, registry: FakeRegistry, version: int = 1, weights: str = "{a: 100, b: 0}") -> None:
    config.write_text(
        f"version: {version}\ndiscovery: {{{registry.kind}: '{registry.url}'}}\n"
        "sets: {a: {service: gc-set-a}, b: {service: gc-set-b}}\n"
        f"health: {{interval: 100ms}}\ndefault: {{weights: {weights}}}\n"
    )


IN_A_ROW = 40
"""Connections, one after another, that do not all meet the same worker."""


async def until_answered_by(running: Process, name: str) -> set[int]:
    """Wait until every worker sends its requests there. Returns the statuses of all answers on the way."""
    in_a_row = 0
    statuses = set()
    for _ in range(3000):
        answer = await running.ask()
        statuses.add(answer.status)
        in_a_row = in_a_row + 1 if answer.headers.get("x-set") == name else 0
        if in_a_row == IN_A_ROW:
            return statuses
        await asyncio.sleep(0.01)
    raise AssertionError(f"set {name} does not get every request")


async def until_shown(running: Process, url: str) -> None:
    for _ in range(1000):
        if (await running.status())["sets"]["a"]["url"] == url:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the status never showed {url}")


async def test_sets_are_found_and_followed_by_every_worker(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    state.mkdir()
    async with sets("old", "new") as fakes, registry_of("consul") as registry:
        write(config, registry)
        async with router(config, state, workers=2) as running:
            # Nobody has told an address yet: the router says so itself.
            assert (await running.ask()).status == 503
            registry.register(registry.instance("127.0.0.1", fakes["old"].port))
            await until_answered_by(running, "old")

            registry.register(registry.instance("127.0.0.1", fakes["new"].port))
            await until_answered_by(running, "new")
            await until_shown(running, f"http://127.0.0.1:{fakes['new'].port}")

            # Weights stay in the file, and its edits keep the addresses.
            write(config, registry, 2, "{a: 50, b: 50}")
            await running.until(version=2)
            assert await until_answered_by(running, "new") == {200}


async def test_a_registry_that_is_away_at_the_start_is_not_missed(tmp_path: Path) -> None:
    config, state = tmp_path / "router.yaml", tmp_path / "state"
    state.mkdir()
    async with sets("old") as fakes, registry_of("nomad") as registry:
        write(config, registry)
        registry.register(registry.instance("127.0.0.1", fakes["old"].port))
        async with router(config, state) as running:
            await until_answered_by(running, "old")
        asked = len(registry.asked)
        registry.url = "http://127.0.0.1:1"
        write(config, registry, 2)
        async with router(config, state) as running:
            await until_answered_by(running, "old")
        await eventually(lambda: len(registry.asked) == asked)
