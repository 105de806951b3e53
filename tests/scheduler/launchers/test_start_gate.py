"""Slots start a few at a time, and no account's starts wait behind all those of another."""

from __future__ import annotations

import asyncio

from scheduler.launchers.start_gate import StartGate


class Rig:
    """A gate for two starts at a time; each start of it lasts until `end`."""

    def __init__(self) -> None:
        self.gate = StartGate(2)
        self.under_way: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def ask(self, *names: str) -> list[asyncio.Task[None]]:
        """Starts named by their account and a number: `a1`."""
        tasks = [asyncio.create_task(self._start(name)) for name in names]
        await settle()
        return tasks

    async def _start(self, name: str) -> None:
        async with self.gate.turn(name[0]):
            self.under_way.append(name)
            self._ends[name] = asyncio.Event()
            await self._ends[name].wait()
            self.under_way.remove(name)

    async def end(self, name: str) -> str:
        """The start is over; returns the names of those under way then."""
        self._ends[name].set()
        await settle()
        return " ".join(self.under_way)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_accounts_take_turns_however_many_starts_one_has_asked_for() -> None:
    rig = Rig()
    await rig.ask("a1", "a2", "a3", "a4", "a5", "a6")
    assert rig.under_way == ["a1", "a2"]
    await rig.ask("b1", "c1", "b2")
    assert rig.gate.waiting == 7
    assert await rig.end("a1") == "a2 a3"
    assert await rig.end("a2") == "a3 b1", "after one of each account that waited before"
    assert await rig.end("a3") == "b1 c1"
    assert await rig.end("b1") == "c1 a4"
    assert await rig.end("c1") == "a4 b2"
    assert await rig.end("b2") == "a4 a5"
    assert await rig.end("a4") == "a5 a6"
    assert await rig.end("a5") == "a6"
    await rig.end("a6")
    await rig.ask("d1", "d2", "d3")
    assert rig.under_way == ["d1", "d2"], "both places are free again"


async def test_a_start_that_is_cancelled_gives_its_turn_on() -> None:
    rig = Rig()
    await rig.ask("a1", "a2")
    waiting = await rig.ask("b1", "b2", "c1")
    waiting[0].cancel()
    await settle()
    assert rig.gate.waiting == 2
    assert await rig.end("a1") == "a2 b2"
    # Its turn has come, but it has not seen that yet.
    rig._ends["a2"].set()
    await asyncio.sleep(0)
    assert rig.gate.waiting == 0
    waiting[2].cancel()
    await settle()
    assert await rig.end("b2") == ""
    await rig.ask("d1", "d2")
    assert rig.under_way == ["d1", "d2"], "no place was lost"


async def test_a_start_that_is_cancelled_as_its_turn_comes_keeps_nobody_waiting() -> None:
    rig = Rig()
    await rig.ask("a1", "a2")
    waiting = await rig.ask("b1", "c1")
    rig._ends["a1"].set()
    waiting[0].cancel()
    await settle()
    assert rig.under_way == ["a2", "c1"]
    assert rig.gate.waiting == 0
    assert await rig.end("a2") == "c1"
    await rig.end("c1")
    await rig.ask("d1", "d2")
    assert rig.under_way == ["d1", "d2"], "no place was lost"


async def test_a_start_that_fails_gives_its_turn_on() -> None:
    gate = StartGate(1)
    for _ in range(3):
        try:
            async with gate.turn("a"):
                raise ValueError
        except ValueError:
            pass
    async with gate.turn("b"):
        assert gate.waiting == 0
