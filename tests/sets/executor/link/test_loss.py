"""A link that ends: the node kills what runs before the set may run it elsewhere, whichever way the link went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler.errors import EngineUnavailable, SlotLost
from scheduler.execution import NoFile, Output
from scheduler.source import SourceUnreadable
from sets.executor.link.messages import Hello
from sets.executor.link.wire import Wire
from tests.scheduler.conftest import until
from tests.scheduler.fakes import Elsewhere
from tests.sets.executor.link.rig import TOKEN, Rig

LEASE_S = 2.0


@pytest.fixture
async def hasty(certificates: Path) -> AsyncIterator[Rig]:
    """A link with the lease of every day; that of `rig` never ends in a test."""
    opened = await Rig(certificates).open(LEASE_S)
    yield opened
    await opened.close()


async def test_a_silent_link_kills_the_task_before_the_set_counts_it_as_lost(hasty: Rig) -> None:
    slot_id = await hasty.slot()
    run, _ = await hasty.run(slot_id=slot_id)
    node = hasty.executors[-1]
    hasty.relay.stall()
    with pytest.raises(SlotLost, match=r"silent for 2 s"):
        await run.ending()
    assert not node.current, "it still runs on the node"
    assert [each[0] for each in hasty.owner.heard[-2:]] == ["node draining", "node lost"]
    with pytest.raises(EngineUnavailable):
        await hasty.remote.expect("s9", TOKEN, "n1")


async def test_what_a_node_told_too_late_is_never_heard(hasty: Rig) -> None:
    slot_id = await hasty.slot()
    run, there = await hasty.run(slot_id=slot_id)
    hasty.relay.stall()
    there.exit(0, b"too late")
    await until(lambda: hasty.owner.count("node lost"))
    hasty.relay.flow()
    await hasty.linked(2)
    with pytest.raises(SlotLost):
        await run.ending()
    assert hasty.owner.count("freed") == 0


async def test_a_connection_that_breaks_kills_on_the_node_at_once_and_is_made_again(hasty: Rig) -> None:
    run, _ = await hasty.run()
    node = hasty.executors[-1]
    hasty.relay.cut()
    await until(lambda: not node.current)
    await until(lambda: hasty.owner.count("node draining"))
    with pytest.raises(SlotLost):
        await run.ending()
    await hasty.linked(2)
    run, there = await hasty.run()
    there.exit(5)
    assert (await run.ending()).code == 5


async def test_a_node_without_grants_kills_by_itself(hasty: Rig) -> None:
    """The executor alone is cut off: the set's frames are lost, its own arrive."""
    await hasty.run()
    node = hasty.executors[-1]
    hasty.relay.stall()
    await until(lambda: not node.current)


async def test_outputs_and_files_end_with_the_link(hasty: Rig) -> None:
    first, second = await hasty.slot(), await hasty.slot()
    run, there = await hasty.run(slot_id=first)
    there.outgrow(b"head")
    output = await run.first()
    assert isinstance(output, Output)
    other, there = await hasty.run(slot_id=second)
    there.exit(files=[Elsewhere(bytes(100))], clean=False)
    # The work asked for no file.
    with pytest.raises(SlotLost, match="contradicts"):
        await other.ending()
    assert await output.stdout.read() == b""
    with pytest.raises(SlotLost):
        await run.ending()


async def test_a_file_that_is_read_breaks_off_with_the_link(hasty: Rig) -> None:
    work_with_file = hasty.work(outputs=(b"/x",))
    run, there = await hasty.run(work_with_file)
    there.exit(files=[Elsewhere(bytes(100))], clean=False)
    (file,) = (await run.ending()).files
    assert not isinstance(file, NoFile)
    hasty.relay.cut()
    await until(lambda: hasty.owner.count("node lost"))
    with pytest.raises(SourceUnreadable, match="broken"):
        async for _ in file.pieces():
            pass


async def test_an_executor_that_stops_is_lost_at_once(rig: Rig) -> None:
    run, _ = await rig.run()
    node = rig.executors[-1]
    await rig.server.close("an upgrade")
    with pytest.raises(SlotLost, match="an upgrade"):
        await run.ending()
    assert not node.current
    # With its lease of a minute, only a goodbye can have told this.
    assert rig.owner.last("node lost") == ("node lost", "n1", "the executor stopped: an upgrade")


async def test_a_set_that_stops_leaves_nothing_on_the_node(rig: Rig) -> None:
    run, _ = await rig.run()
    node = rig.executors[-1]
    await rig.remote.close()
    with pytest.raises(SlotLost, match="the set stops"):
        await run.ending()
    await until(lambda: not node.current and node.closed)


async def test_a_node_that_drains_ends_its_tasks_first(rig: Rig) -> None:
    run, there = await rig.run()
    draining = rig.spawn(rig.server.drain("maintenance", 60))
    await until(lambda: rig.owner.count("node draining"))
    assert not draining.done()
    there.exit(3)
    assert (await run.ending()).code == 3
    await draining


async def test_a_set_s_next_link_takes_over_once_nothing_of_the_first_runs(rig: Rig) -> None:
    await rig.run()
    before = rig.executors[-1]
    twin = rig.new_remote(rig.port)
    await twin.open(rig.twin)
    await until(lambda: rig.twin.nodes)
    assert not before.current
    assert before.closed
    await twin.close()


@pytest.mark.parametrize("broke_before", [True, False])
async def test_a_set_s_next_link_does_not_begin_while_the_last_one_is_cleaned_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, broke_before: bool
) -> None:
    before = await rig.linked()
    clean, begun = asyncio.Event(), asyncio.Event()
    close, begin = before.close, rig.server._begin

    async def close_late() -> None:
        await clean.wait()
        await close()

    async def noted(wire: Wire, hello: Hello) -> None:
        begun.set()
        await begin(wire, hello)

    monkeypatch.setattr(before, "close", close_late)
    monkeypatch.setattr(rig.server, "_begin", noted)
    if broke_before:
        rig.relay.cut()
        await until(lambda: not rig.server._sessions)
    twin = rig.new_remote(rig.port)
    await twin.open(rig.twin)
    async with asyncio.timeout(60):
        await begun.wait()
    # Both have the set's folder: opened now, it would be emptied under the new link.
    assert rig.executors == [before]
    clean.set()
    await until(lambda: rig.twin.nodes)
    assert before.closed
    await twin.close()


async def test_two_sets_share_a_node_without_a_common_slot(rig: Rig) -> None:
    slot_id = await rig.slot()
    run, there = await rig.run(slot_id=slot_id)
    other = rig.new_remote(rig.port, name="b", certificate="b")
    await other.open(rig.twin)
    await until(lambda: rig.twin.nodes)
    assert rig.twin.nodes["n1"].max_slots == 3, "its own share"
    await other.expect(slot_id, "cd" * 32, "n1")
    assert [executor.expected[slot_id] for executor in rig.executors] == [TOKEN, "cd" * 32]
    other.discard(slot_id)
    await other.close()
    there.exit(4)
    assert (await run.ending()).code == 4
