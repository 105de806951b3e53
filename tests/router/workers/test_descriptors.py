"""Client connections within the file descriptors that there are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from router.relay import plane
from router.wire.limits import Limits
from router.workers.descriptors import KEPT_BACK, TooFewDescriptors, fitted
from tests.router.rig import OK, Conversation, FakeSet, Play, answering, eventually, running
from tests.router.test_server import GET, router, sets, yaml

SLOW = GET.replace(b"/x", b"/slow")


def slowly(fake: FakeSet) -> Play:
    async def play(conversation: Conversation) -> None:
        while True:
            await conversation.request()
            await asyncio.sleep(0.3)
            await conversation.send(OK)

    return play


def test_with_enough_of_them_nothing_is_changed() -> None:
    usual = Limits()
    limits = fitted(usual, 1_048_576, 30)
    assert (limits.connections, limits.idle_connections) == (usual.connections, usual.idle_connections)


@given(st.integers(64, 200_000), st.integers(3, 40))
def test_clients_their_sets_and_what_is_kept_fit(descriptors: int, open_now: int) -> None:
    try:
        limits = fitted(Limits(), descriptors, open_now)
    except TooFewDescriptors:
        assert descriptors - open_now - min(KEPT_BACK, descriptors // 4) < 3
        return
    assert limits.connections >= 1
    assert limits.idle_connections >= 0
    assert limits.descriptors + open_now + min(KEPT_BACK, descriptors // 4) <= descriptors
    # One silent client more, and nobody could be served.
    assert limits.connections + limits.idle_connections < limits.descriptors


def test_too_few_are_told_with_what_to_do() -> None:
    with pytest.raises(TooFewDescriptors, match="ulimit"):
        fitted(Limits(), 32, 30)


async def test_idle_connections_to_sets_are_parted_among_them() -> None:
    limits = replace(Limits(), idle_connections=3)
    plays = {name: answering() for name in ("a", "b")}
    async with running(plays, limits=limits) as rig:
        await asyncio.gather(*(rig.ask(GET) for _ in range(4)))
        assert rig.traffic.pools["a"].idle == 1


async def test_the_longest_silent_make_room_where_all_places_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane, "ROOM_IDLE_S", 0.05)
    async with running({"a": answering()}, limits=replace(Limits(), connections=3)) as rig:
        silent = [await rig.client() for _ in range(3)]
        await eventually(lambda: len(rig.plane.clients) == 3)
        assert (await rig.ask(GET)).status == 200
        assert [await each.rest() for each in silent] == [b""] * 3


async def test_a_burst_of_silent_clients_costs_none_of_them() -> None:
    """Clients that come at once are counted twice at first, which is too many for the limit, and once soon after."""
    limits = replace(Limits(), descriptors=12, idle_connections=0)
    async with running({"a": answering()}, limits=limits) as rig:
        silent = await asyncio.gather(*(rig.client() for _ in range(9)))
        await eventually(lambda: len(rig.plane.clients) == 9)
        assert [(await client.ask(GET)).status for client in silent] == [200] * 9


async def test_clients_that_all_ask_at_last_find_what_is_left_and_a_503() -> None:
    """Silent, they took no connection to a set; what is kept back for other files stays so."""
    limits = replace(Limits(), descriptors=10, idle_connections=0)
    async with running({"a": slowly}, limits=limits, more="retry: {attempts: 1}") as rig:
        clients = []
        for count in range(1, 8):  # One after another, as who comes at once is taken to ask at once.
            clients.append(await rig.client())
            await eventually(lambda count=count: len(rig.plane.clients) == count)  # type: ignore[misc]
            await eventually(lambda: rig.plane._fresh + rig.plane._before == 0)
        answers = await asyncio.gather(*(client.ask(GET) for client in clients))
        assert sorted(answer.status for answer in answers) == [200] * 3 + [503] * 4
        refused = next(answer for answer in answers if answer.status == 503)
        assert "no file descriptor to spare" in refused.problem["detail"]
        assert rig.traffic.stats["a"].failures == {"no_room": 4}
        assert rig.traffic.pools["a"].reads == 0


async def test_under_a_low_limit_everybody_is_served_in_turn(tmp_path: Path) -> None:
    """60 clients at once, with 90 descriptors, which can carry only a few: nothing is lost, and all counts end at 0."""
    config = tmp_path / "router.yaml"
    async with sets("a") as fakes:
        config.write_text(yaml({"a": fakes["a"].port}, 1, {"a": 100}))
        async with router(config, tmp_path / "state", more={"NOFILE": "90"}) as served:
            most = (await served.status())["connections_max"]
            assert 10 <= most <= 60
            asking = [asyncio.create_task(served.ask(SLOW)) for _ in range(60)]
            assert (await served.admin("/metrics")).status == 200
            assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 60
            status = await served.until(active=0)
            assert status["sets"]["a"]["inflight"] == 0
            assert status["sets"]["a"]["failures"] == {}
            assert status["sets"]["a"]["health"] == "up"
