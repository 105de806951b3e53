"""Requests in flight counted over several processes, without a lock."""

from __future__ import annotations

import asyncio
import os

import pytest

from router.choosing.choice import Chooser
from router.choosing.health import HealthBoard
from router.config.reader import load
from router.dialects.native import HeadFacts, NativeDialect
from router.wire.limits import Limits
from router.wire.pool import SetPool
from router.wire.request_head import parse_request
from router.wire.stream import Buffers
from router.workers.occupancy import Loads, Occupancy


@pytest.fixture
async def pools() -> tuple[Occupancy, list[Loads]]:
    occupancy = Occupancy(3)
    return occupancy, [Loads(occupancy, index) for index in range(3)]


def enter(pool: SetPool, times: int) -> None:
    for _ in range(times):
        pool.enter(reading=False)


async def test_the_sum_of_all_workers_counts(pools: tuple[Occupancy, list[Loads]]) -> None:
    occupancy, workers = pools
    loop = asyncio.get_running_loop()
    made = [each.pool(loop, "a", ("127.0.0.1", 9), Buffers(), Limits()) for each in workers]
    other, other_load = workers[0].pool(loop, "b", ("127.0.0.1", 9), Buffers(), Limits())
    for times, (pool, _) in enumerate(made):
        enter(pool, times + 1)
    enter(other, 7)
    assert [pool.inflight for pool, _ in made] == [1, 2, 3]
    assert {load.inflight for _, load in made} == {6}
    assert other_load.inflight == 7
    occupancy.clear(2)  # That worker died.
    assert made[0][1].inflight == 3
    made[0][0].leave(reading=False)
    assert made[1][1].inflight == 2


async def test_a_pool_of_another_address_leaves_what_the_one_before_has_in_flight(
    pools: tuple[Occupancy, list[Loads]],
) -> None:
    _, workers = pools
    loop = asyncio.get_running_loop()
    old, _ = workers[1].pool(loop, "a", ("127.0.0.1", 9), Buffers(), Limits())
    enter(old, 2)
    new, load = workers[1].pool(loop, "a", ("127.0.0.1", 10), Buffers(), Limits())
    enter(new, 1)
    assert load.inflight == 3
    old.leave(reading=False)
    old.leave(reading=False)
    assert load.inflight == 1


def test_processes_see_each_others_cells() -> None:
    occupancy = Occupancy(2)
    row = occupancy.row("a")
    assert row is not None
    pid = os.fork()
    if pid == 0:
        # A set that the child saw first has the same place in the parent.
        same = occupancy.row("a") == row
        late = occupancy.row("late")
        if same and late is not None:
            occupancy.add(row + 1, 5)
            occupancy.add(late + 1, 4)
        os._exit(0)
    os.waitpid(pid, 0)
    late = occupancy.row("late")
    assert late is not None
    assert (occupancy.total(row), occupancy.total(late)) == (5, 4)


async def test_without_room_each_worker_counts_alone() -> None:
    occupancy = Occupancy(2, rows=2)
    loop = asyncio.get_running_loop()
    loads = Loads(occupancy, 0)
    made = [loads.pool(loop, name, ("127.0.0.1", 9), Buffers(), Limits()) for name in ("a", "b", "c")]
    for pool, _ in made:
        pool.enter(reading=False)
    assert [load.inflight for _, load in made] == [1, 1, 1]
    assert made[2][0] is made[2][1]


async def test_a_limit_holds_for_all_workers_together(pools: tuple[Occupancy, list[Loads]]) -> None:
    _, workers = pools
    loop = asyncio.get_running_loop()
    table = load(
        b'version: 1\nsets: {a: {url: "http://127.0.0.1:9", max_inflight: 3}, b: {url: "http://127.0.0.1:10"}}\n'
        b"default: {weights: {a: 100, b: 0}}\n"
    ).table
    made = {
        name: [each.pool(loop, name, ("127.0.0.1", 9), Buffers(), Limits()) for each in workers]
        for name in "ab"
    }
    board = HealthBoard(table.health)
    board.adopt(table.sets, table.health)
    head = parse_request(b"POST /v1/run/cat HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", Limits())
    purpose = NativeDialect().purpose_of(head)
    chooser = Chooser(table, board, {name: each[0][1] for name, each in made.items()})

    def chosen() -> str | None:
        entry = chooser.choose(purpose, HeadFacts(head, b"c"), None, 0.0).entry
        return None if entry is None else entry.name

    enter(made["a"][1][0], 2)
    assert chosen() == "a"
    made["a"][2][0].enter(reading=False)  # None of them is in this worker.
    assert chosen() is None
    made["a"][1][0].leave(reading=False)
    assert chosen() == "a"
