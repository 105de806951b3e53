"""A set and an executor over a link: programs run as in the set's own executor."""

from __future__ import annotations

import asyncio
import errno

import pytest

from scheduler.errors import BadRequest, EngineRefused, EngineUnavailable, SlotLost
from scheduler.execution import Ending, How, NoFile, Output, Work
from scheduler.source import SourceUnreadable
from scheduler.task import Lease
from sets.executor.link import messages
from sets.executor.link.flow import WINDOW_BYTES
from tests.scheduler.conftest import until
from tests.scheduler.fakes import Elsewhere
from tests.sets.executor.link.rig import FACTS, HEARD, TOKEN, Rig


async def test_a_node_is_ready_once_it_is_linked(rig: Rig) -> None:
    await rig.linked()
    assert rig.owner.nodes == {"n1": HEARD}


async def test_a_small_task_is_one_message_each_way(rig: Rig) -> None:
    work = Work((b"/cat", b"-u"), (b"A=1",), b"in", (b"/tmp/x",))
    slot_id = await rig.slot()
    run, there = await rig.run(work, slot_id)
    assert there.work == work
    assert there.lease == run.lease == Lease("a-1", 1)
    there.exit(3, b"out", b"err", files=[NoFile(errno.ENOENT)], cpu_us=1234, oom_kills=1)
    ending = await run.ending()
    assert (ending.how, ending.code, ending.stdout, ending.stderr) == (How.EXITED, 3, b"out", b"err")
    assert (ending.cpu_us, ending.wall_us, ending.oom_kills, ending.lease) == (1234, 1000, 1, Lease("a-1", 1))
    assert ending.files == [NoFile(errno.ENOENT)]
    assert await run.first() is ending
    await until(lambda: rig.owner.last("freed") == ("freed", slot_id, 1234))


async def test_a_slot_takes_one_task_after_the_other(rig: Rig) -> None:
    slot_id = await rig.slot()
    for number in range(3):
        run, there = await rig.run(slot_id=slot_id)
        with pytest.raises(SlotLost, match="takes no task now"):
            rig.remote.run(slot_id, there.work, Lease("a-2", 1))
        there.exit(number)
        assert (await run.ending()).code == number
        await until(lambda: rig.owner.count("freed") == number + 1)  # noqa: B023


async def test_work_that_fits_no_message_is_refused_before_it_leaves(rig: Rig) -> None:
    slot_id = await rig.slot()
    with pytest.raises(BadRequest, match="env"):
        rig.remote.run(slot_id, Work((b"/cat",), (b"no-equals-sign",)), Lease("a-1", 1))
    run, there = await rig.run(slot_id=slot_id)
    there.exit()
    await run.ending()


async def test_large_bodies_have_back_pressure_both_ways(rig: Rig) -> None:
    run, there = await rig.run(Work((b"/cat",), stdin=None))
    assert run.stdin is not None
    assert there.stdin is not None
    body = bytes(range(256)) * 40_000
    sent = 0

    async def feed() -> None:
        nonlocal sent
        assert run.stdin is not None
        for at in range(0, len(body), 50_000):
            await run.stdin.write(body[at : at + 50_000])
            sent = at + 50_000
        run.stdin.close()

    # The program on the node does not read: a pipe that takes nothing.
    held = there.stdin.hold()
    feeding = asyncio.create_task(feed())
    await until(lambda: there.stdin is not None and there.stdin.waiting)
    await until(lambda: sent >= WINDOW_BYTES // 2)
    assert sent <= 2 * WINDOW_BYTES + 50_000
    held.set()
    await feeding
    await until(lambda: there.stdin is not None and there.stdin.closed)
    assert bytes(there.stdin.data) == body

    there.outgrow(b"head", b"")
    first = await run.first()
    assert isinstance(first, Output)
    there.stdout.feed(body, end=True)
    there.exit()
    # The end does not wait for a reader that is slow.
    ending = await run.ending()
    assert ending.handed_over
    got = bytearray(first.stdout_head)
    while piece := await first.stdout.read():
        got += piece
    assert bytes(got) == b"head" + body
    assert await first.stderr.read() == b""


async def test_a_program_that_no_longer_reads_breaks_the_pipe(rig: Rig) -> None:
    run, there = await rig.run(Work((b"/true",), stdin=None))
    assert run.stdin is not None
    assert there.stdin is not None
    there.stdin.close()
    with pytest.raises(BrokenPipeError):
        await run.stdin.write(bytes(4 * WINDOW_BYTES))
    there.exit()
    await run.ending()


async def test_a_reader_that_leaves_closes_the_program_s_output(rig: Rig) -> None:
    run, there = await rig.run()
    there.outgrow()
    first = await run.first()
    assert isinstance(first, Output)
    first.stdout.close()
    await until(lambda: there.stdout.closed)
    there.exit(0)
    assert (await run.ending()).code == 0


async def test_output_that_nobody_fetched_is_closed(rig: Rig) -> None:
    run, there = await rig.run()
    there.outgrow()
    there.exit()
    await run.ending()
    assert run.handed_over
    there.stdout.feed(bytes(4 * WINDOW_BYTES))
    del run
    await until(lambda: there.stdout.closed)


async def test_a_killed_program_tells_its_end(rig: Rig) -> None:
    run, there = await rig.run()
    run.kill()
    run.kill()
    ending = await run.ending()
    assert there.killed
    assert (ending.how, ending.killed) == (How.SIGNALLED, True)
    run.kill()


async def test_output_files_are_read_across_the_link_and_hold_their_slot(rig: Rig) -> None:
    work = Work((b"/make",), outputs=(b"/a", b"/b", b"/c"))
    slot_id = await rig.slot()
    run, there = await rig.run(work, slot_id)
    data = bytes(range(256)) * 10_000
    sources = [Elsewhere(data), Elsewhere(data, breaks_at=100_000)]
    there.exit(files=[sources[0], NoFile(errno.ELOOP), sources[1]], clean=False)
    ending = await run.ending()
    whole, missing, broken = ending.files
    assert missing == NoFile(errno.ELOOP)
    assert not isinstance(whole, NoFile)
    assert not isinstance(broken, NoFile)
    assert whole.fileno() is None
    assert b"".join([piece async for piece in whole.pieces()]) == data
    assert b"".join([piece async for piece in whole.pieces(1000, 70_000)]) == data[1000:71_000]
    with pytest.raises(SourceUnreadable, match="its node is gone"):
        async for _ in broken.pieces():
            pass
    assert not sources[0].closed
    ending.close_files()
    await until(lambda: sources[0].closed and sources[1].closed)
    with pytest.raises(SourceUnreadable, match="given back"):
        async for _ in whole.pieces():
            pass
    assert rig.owner.count("freed") == 0


async def test_a_slot_that_is_let_go_takes_its_program_along(rig: Rig) -> None:
    slot_id = await rig.slot()
    run, there = await rig.run(slot_id=slot_id)
    rig.remote.discard(slot_id)
    with pytest.raises(SlotLost, match="retired"):
        await run.ending()
    node = rig.executors[-1]
    await until(lambda: slot_id not in node.current)
    with pytest.raises(SlotLost):
        rig.remote.run(slot_id, there.work, Lease("a-2", 1))


async def test_a_slot_that_dies_is_told(rig: Rig) -> None:
    slot_id = await rig.slot()
    run, there = await rig.run(slot_id=slot_id)
    there.lose("its guest is gone")
    with pytest.raises(SlotLost, match="its guest is gone"):
        await run.first()
    assert rig.owner.last("lost") == ("lost", slot_id, "its guest is gone")


@pytest.mark.parametrize("size", [0, 1, 300_000, 1 << 20])
async def test_a_file_for_a_slot_s_guest_is_left_on_its_node(rig: Rig, size: int) -> None:
    node = await rig.linked()
    await rig.remote.expect("s1", TOKEN, "n1")
    content = bytes(range(251)) * (size // 251) + b"x"
    await rig.remote.leave("s1", "content", content)
    assert node.left == {("s1", "content"): content}


async def test_a_file_that_cannot_be_left_starts_no_slot(rig: Rig) -> None:
    node = await rig.linked()
    await rig.remote.expect("s1", TOKEN, "n1")
    node.refuse_expect = [EngineUnavailable("the disk is full")]
    with pytest.raises(EngineUnavailable, match="what HOME begins with: the disk is full"):
        await rig.remote.leave("s1", "content", b"x")
    with pytest.raises(EngineUnavailable, match="out of reach"):
        await rig.remote.leave("s2", "content", b"x")


async def test_how_to_dress_a_slot_is_left_only_where_the_executor_knows_it(rig: Rig) -> None:
    node = await rig.linked()
    await rig.remote.expect("s1", TOKEN, "n1")
    await rig.remote.leave("s1", "dressing", b"{}")
    assert node.left == {("s1", "dressing"): b"{}"}
    # An executor of an earlier build does not say in its WELCOME that it does.
    rig.remote._links["n1"].dresses = False
    with pytest.raises(EngineRefused, match="the executor of node n1 cannot dress slots yet: upgrade it"):
        await rig.remote.leave("s1", "dressing", b"{}")
    assert not messages.Welcome(1, "n1", "b0", 100, 1024, 1, ()).dresses


async def test_the_node_refuses_more_slots_than_it_has(rig: Rig) -> None:
    await rig.linked()
    for number in range(FACTS.max_slots):
        await rig.remote.expect(f"s{number}", TOKEN, "n1")
    with pytest.raises(EngineUnavailable, match="its share allows: 8"):
        await rig.remote.expect("one-more", TOKEN, "n1")
    rig.remote.discard("s0")
    await rig.remote.expect("another", TOKEN, "n1")


async def test_a_node_without_a_link_takes_no_slot(rig: Rig) -> None:
    await rig.linked()
    with pytest.raises(EngineUnavailable, match="no link to node n2"):
        await rig.remote.expect("s1", TOKEN, "n2")


async def test_prestarted_programs_are_told_of(rig: Rig) -> None:
    slot_id = await rig.slot()
    node = rig.executors[-1]
    node.events.prestart_unfit(slot_id, "it wrote before its input came")
    node.events.left_over(slot_id, 77)
    await until(lambda: rig.owner.count("left over"))
    assert rig.owner.last("unfit") == ("unfit", slot_id, "it wrote before its input came")
    assert rig.owner.last("left over") == ("left over", slot_id, 77)
    rig.remote.discard(slot_id)
    node.events.left_over(slot_id, 78)
    await until(lambda: rig.owner.count("left over") == 2)


async def test_an_end_is_one_of_its_own_attempt(rig: Rig) -> None:
    run, there = await rig.run()
    there.exit(lease=Lease("a-1", 7))
    ending = await run.ending()
    assert isinstance(ending, Ending)
    assert ending.lease == Lease("a-1", 7), "who waits for the attempt compares"


async def test_the_output_of_a_small_task_comes_early_where_somebody_follows(rig: Rig) -> None:
    run, there = await rig.run()
    run.show()
    run.show()
    await until(lambda: there.shown)
    there.outgrow(b"first", b"careful")
    first = await run.first()
    assert isinstance(first, Output)
    assert (first.stdout_head, first.stderr_head) == (b"first", b"careful")
    run.show()
    there.stdout.feed(b" last", end=True)
    there.stderr.feed(end=True)
    there.exit()
    assert (await run.ending()).handed_over
    assert await first.stdout.read() == b" last"


async def test_an_executor_of_an_earlier_build_is_not_asked_to_show_an_output(rig: Rig) -> None:
    assert not messages.Welcome(1, "n1", "b0", 100, 1024, 1, ()).shows
    slot_id = await rig.slot()
    assert rig.remote._links["n1"].shows
    rig.remote._links["n1"].shows = False
    run, there = await rig.run(slot_id=slot_id)
    run.show()
    there.exit(0, b"all")
    assert (await run.ending()).stdout == b"all"
    assert not there.shown
