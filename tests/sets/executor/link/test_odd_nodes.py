"""Nodes in trouble: wrong clocks, full disks, frames that stay half, another machine of the same name."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from ops.certificates import authority as authorities
from ops.certificates.authority import Authority
from scheduler.errors import EngineUnavailable
from sets.executor.link import frames, link, messages, session
from sets.executor.link.lease import clock_s
from tests.scheduler.conftest import until
from tests.scheduler.fakes import FakeExecutor
from tests.sets.executor.link.played import PlayedNode, PlayedSet
from tests.sets.executor.link.rig import FACTS, TOKEN, Owner, Rig

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
YEAR_S = 365 * 86_400


@pytest.mark.parametrize("wrong_by_s", [-10.0, 100 * YEAR_S])
async def test_a_node_whose_clock_is_wrong_is_granted_time_as_any(
    certificates: Path, monkeypatch: pytest.MonkeyPatch, wrong_by_s: float
) -> None:
    monkeypatch.setattr(session, "clock_s", lambda: clock_s() + wrong_by_s)
    rig = Rig(certificates)
    beats: list[int] = []
    usual = session.Session._received

    def received(self: session.Session, kind: int, channel: int, number: int, body: memoryview) -> None:
        if kind == frames.GRANT:
            beats.append(messages.decode_number(body, frames.CLOCK))
        usual(self, kind, channel, number, body)

    monkeypatch.setattr(session.Session, "_received", received)
    # Beats every quarter of a second, and a lease that a slow machine keeps.
    monkeypatch.setattr(session, "BEATS_A_LEASE", 240)
    await rig.open()
    run, there = await rig.run()
    await until(lambda: len(beats) > 4)
    there.exit(0, b"done")
    assert (await run.ending()).stdout == b"done"
    assert rig.owner.count("node lost") == 0
    await rig.close()


@pytest.mark.parametrize(
    ("earlier", "days", "said"),
    [
        (datetime.timedelta(hours=1), 0, "certificate has expired"),
        (datetime.timedelta(days=-2), 10, "certificate is not yet valid"),
    ],
)
async def test_a_certificate_of_another_time_is_told_as_that(
    rig: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    earlier: datetime.timedelta,
    days: int,
    said: str,
) -> None:
    """So it looks, too, where the wall clock of the set's machine is wrong."""
    monkeypatch.setattr(authorities, "EARLIER", earlier)
    Authority(rig.certificates / "authority").issue_to_executor("n1", tmp_path / "n1", days)
    server = rig.new_server(certificate=str(tmp_path / "n1"))
    port = await server.open("127.0.0.1", 0)
    owner = Owner()
    remote = rig.new_remote(port)
    with capture_logs() as lines:
        await remote.open(owner)
        await until(lambda: [line for line in lines if said in str(line.get("reason"))])
    assert owner.heard == []
    await remote.close()
    await server.close("the test is over")


@pytest.mark.parametrize(
    "begin",
    [
        lambda: frames.frame(frames.DATA, b"half of it", stream=1)[:-1],
        lambda: frames.HEAD.pack(frames.BODY_BYTES, frames.DATA, 1, 0, 1),
        lambda: frames.HEAD.pack(8, frames.BEAT, 0, 0, 0)[:7],
    ],
    ids=["a body", "a head", "half a head"],
)
async def test_a_frame_that_stays_half_is_silence(
    monkeypatch: pytest.MonkeyPatch, begin: Callable[[], bytes]
) -> None:
    """However slowly its bytes come: no BEAT can come behind them."""
    node = PlayedNode()
    for byte in begin():
        node.bytes_come(bytes([byte]))
    assert node.over is None
    monkeypatch.setattr(link, "clock_s", lambda: clock_s() + 1000)
    node.link._watch()
    assert node.over == "the executor of node n1 was silent for 60 s"


async def test_a_set_that_sends_half_a_frame_is_granted_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    at_node = await PlayedSet().begin()
    await at_node.ready_slot()
    at_node.task(1)
    await at_node.heard()
    at_node.bytes_come(frames.frame(frames.GRANT, bytes(8))[:-1])
    monkeypatch.setattr(session, "clock_s", lambda: clock_s() + 1000)
    at_node.session._check_tenure()
    assert at_node.over == "the set granted no time for 60 s"
    assert at_node.executor.current == {}, "its program is killed"
    await at_node.session.close()


async def test_a_node_whose_disk_is_full_starts_no_slot_and_says_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await rig.linked()

    async def refuse(slot_id: str, token: str) -> None:
        raise FULL

    monkeypatch.setattr(node, "expect", refuse)
    with pytest.raises(
        EngineUnavailable, match=r"node n1 cannot listen for a slot: .*No space left on device"
    ):
        await rig.remote.expect("s1", TOKEN, "n1")
    monkeypatch.undo()
    # Its place is free again, once there is room.
    await rig.remote.expect("s1", TOKEN, "n1")
    assert node.expected == {"s1": TOKEN}


async def test_a_node_that_has_no_room_for_a_set_s_folder_refuses_the_set_with_the_reason(rig: Rig) -> None:
    await rig.linked()
    usual = FakeExecutor.open
    full = True

    async def opened(executor: FakeExecutor, events: object) -> None:
        if full:
            raise FULL
        await usual(executor, events)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, capture_logs() as lines:
        patch.setattr(FakeExecutor, "open", opened)
        owner = Owner()
        other = rig.new_remote(rig.port, name="b", certificate="b")
        await other.open(owner)
        await until(lambda: [line for line in lines if "No space left on device" in str(line.get("reason"))])
        assert owner.heard == []
        full = False
        await until(lambda: owner.count("node ready"))
    await other.close()


async def test_another_machine_may_take_the_name_of_one_that_left(rig: Rig) -> None:
    """The set believes what the new one says of itself."""
    await rig.linked()
    larger = msgspec.structs.replace(FACTS, cpu_percent=6400, max_slots=99, cpu_features=frozenset({"amx"}))
    successor = rig.new_server(shares={"a": larger})
    rig.relay._to_port = await successor.open("127.0.0.1", 0)
    await rig.server.close("its machine is taken away")
    await until(lambda: rig.owner.count("node ready") == 2)
    assert rig.owner.nodes == {"n1": msgspec.structs.replace(larger, build="b1")}
    await rig.remote.expect("s1", TOKEN, "n1")
    await rig.remote.close()
    await successor.close("the test is over")


async def test_of_two_executors_of_one_name_a_set_uses_the_one_that_its_settings_name(rig: Rig) -> None:
    """The other waits for sets; it cannot call one."""
    await rig.linked()
    twin = rig.new_server()
    await twin.open("127.0.0.1", 0)
    run, there = await rig.run()
    there.exit()
    await run.ending()
    assert len(rig.executors) == 1, "nobody has called the other"
    await twin.close("the test is over")
    await asyncio.sleep(0)
    assert rig.owner.count("node lost") == 0
