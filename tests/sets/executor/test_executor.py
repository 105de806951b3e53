"""The executor: what a run does, what its own trouble does, and what discarding leaves."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scheduler.errors import SlotLost
from scheduler.execution import Work
from scheduler.task import Lease
from sets.executor import door, slot
from sets.executor.cgroup import CgroupError
from sets.executor.executor import LocalExecutor, shared_member
from sets.executor.slot_state import SlotState
from tests.descriptors import no_descriptors_left
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck, open_fds
from tests.sets.executor.guests import (
    CAT,
    WAIT_S,
    Owner,
    Peer,
    StartPeer,
    expect,
    let_in,
    until,
)

# -- a slot's life


async def test_a_guest_gets_in_and_runs_a_task(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    with pytest.raises(SlotLost, match="connecting"):
        executor.run("s1", CAT)
    guest = await start_peer(address.directory)
    connection = await let_in(guest, address, owner)
    assert owner.ready == ["s1"]
    run = executor.run("s1", CAT, Lease("a-1", 7))
    assert run.lease == Lease("a-1", 7)
    assert wire.read_task(await guest.receive(connection)).stdin == b"in"
    await guest.ask("send", connection, wire.ended(1, stdout=b"out").hex())
    async with asyncio.timeout(WAIT_S):
        ending = await run.ending()
    assert (ending.stdout, ending.lease) == (b"out", run.lease)
    assert (owner.freed, owner.lost) == (["s1"], [])


async def test_addresses(executor: LocalExecutor, tmp_path: Path) -> None:
    first, second = await expect(executor, "s1"), await expect(executor, "s2")
    assert first.directory != second.directory

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(tmp_path / "slots") == 0o700, "nobody else on the host comes near"
    assert mode(first.directory) == 0o755, "any USER of an image does"
    assert mode(first.directory / "executor.sock") == 0o666


async def test_a_narrow_umask_keeps_no_user_of_an_image_out(executor: LocalExecutor) -> None:
    before = os.umask(0o077)
    try:
        address = await expect(executor, "s1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(address.directory.stat().st_mode) == 0o755
    assert stat.S_IMODE((address.directory / "executor.sock").stat().st_mode) == 0o666


async def test_a_guest_that_is_gone(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    await let_in(guest, address, owner)
    run = executor.run("s1", CAT)
    await guest.stop()
    await until(lambda: owner.lost)
    assert owner.lost == [("s1", "its guest is gone")]
    with pytest.raises(SlotLost):
        await run.ending()
    with pytest.raises(SlotLost, match="slot s1 is gone"):
        executor.run("s1", CAT)
    assert not address.directory.exists()


# -- trouble here


async def test_a_cgroup_that_cannot_be_read_is_told_at_once(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> None:
        raise CgroupError("not mounted here")

    monkeypatch.setattr(slot, "SlotCgroup", refuse)
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.greet(address.token)
    assert await guest.receive(connection) == b""
    assert owner.ready == []
    assert owner.lost == [("s1", "its guest could not be let in: not mounted here")]


async def test_a_guest_in_a_namespace_that_cannot_be_seen_is_told_at_once(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unseen:
        """The kernel says 0 for a process that has no number here."""

        size = door._UCRED.size

        def unpack(self, data: bytes) -> tuple[int, int, int]:
            return 0, 65_534, 65_534

    monkeypatch.setattr(door, "_UCRED", Unseen())
    address = await expect(executor, "s1")
    await (await start_peer(address.directory)).greet(address.token)
    await until(lambda: owner.lost)
    assert "run the set in the host's PID namespace" in owner.lost[0][1]


async def test_no_descriptor_left_for_a_slot_that_is_expected(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        await expect(executor, "s1")
    assert list((tmp_path / "slots").iterdir()) == []
    assert (await expect(executor, "s1")).directory.is_dir()


async def test_no_descriptor_left_at_the_door(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, logged: list[Any]
) -> None:
    """The guest is let in as soon as one is there; until then the loop does not spin."""
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    with no_descriptors_left():
        await guest.greet(address.token)
        await asyncio.sleep(3 * door.PAUSE_S)
        assert owner.ready == []
        assert 1 <= len(logged) <= 5
    await until(lambda: owner.ready)


async def test_no_descriptor_left_at_a_task(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    await let_in(await start_peer(address.directory), address, owner)
    with no_descriptors_left(), pytest.raises(SlotLost, match="Too many open files"):
        executor.run("s1", Work(argv=(b"cat",), stdin=None))
    assert len(owner.lost) == 1


# -- discarding and closing


def held() -> int:
    """Descriptors of the kinds that a slot needs. (uvloop keeps a /dev/null of a child's.)"""
    return sum(what.startswith(("socket:", "pipe:", "/sys/fs/cgroup")) for what in open_fds().values())


@pytest.mark.parametrize("state", ["prepared", "greeting", "idle", "running", "cleaning", "lost"])
async def test_discard_in_each_state(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, state: str
) -> None:
    # What a loop opens for its first child stays.
    await (await asyncio.create_subprocess_exec("true")).wait()
    before = held()
    address = await expect(executor, "s1")
    guest = await Peer.start(address.directory, init=True)
    connection, run = "", None
    if state == "greeting":
        connection = await guest.ask("connect")
        await asyncio.sleep(0.02)
    elif state != "prepared":
        connection = await let_in(guest, address, owner)
    if state in ("running", "cleaning", "lost"):
        run = executor.run("s1", Work(argv=(b"cat",), stdin=None))
        await guest.receive(connection)
    if state == "cleaning":
        await guest.ask("send", connection, wire.ended(1, flags=wire.CLEANING).hex())
        await until(lambda: executor._slots["s1"].state is SlotState.CLEANING)
    if state == "lost":
        await guest.ask("send", connection, "ff")
        await until(lambda: owner.lost)

    executor.discard("s1")
    executor.discard("s1")

    assert not address.directory.exists()
    with pytest.raises(SlotLost, match="slot s1 is gone"):
        executor.run("s1", CAT)
    if state in ("idle", "running", "cleaning"):
        assert await guest.receive(connection) == wire.head(wire.RETIRE)
    if connection:
        assert await guest.receive(connection) == b""
    if run is not None and state != "cleaning":
        with pytest.raises(SlotLost):
            await run.ending()
    assert len(owner.lost) == (1 if state == "lost" else 0), "who discards knows it"
    await guest.stop()
    await until(lambda: held() <= before)


async def test_discard_of_what_never_was(executor: LocalExecutor) -> None:
    executor.discard("nobody")


async def test_close_leaves_nothing(tmp_path: Path, owner: Owner, no_fd_leaks: FdCheck) -> None:
    executor = LocalExecutor(tmp_path / "slots")
    await executor.open(owner)
    addresses = [await expect(executor, f"s{number}") for number in range(3)]
    guest = await Peer.start(addresses[0].directory, init=True)
    connection = await let_in(guest, addresses[0], owner)
    silent = await Peer.start(addresses[1].directory, init=True)
    await silent.ask("connect")
    await executor.close()
    assert not (tmp_path / "slots").exists()
    assert await guest.receive(connection) == wire.head(wire.RETIRE)
    assert await guest.receive(connection) == b""
    assert await silent.receive("0") == b""
    await executor.close()
    await guest.stop()
    await silent.stop()
    assert owner.lost == []


# -- folders


async def test_a_state_folder_deeper_than_a_sockets_path_can_be(
    tmp_path: Path, owner: Owner, start_peer: StartPeer
) -> None:
    executor = LocalExecutor(tmp_path / ("d" * 200) / ("e" * 200) / "slots")
    await executor.open(owner)
    address = await expect(executor, "s1")
    await let_in(await start_peer(address.directory), address, owner)
    await executor.close()


async def test_what_an_earlier_run_left_is_gone(tmp_path: Path, owner: Owner) -> None:
    folder = tmp_path / "slots"
    crashed = LocalExecutor(folder)
    await crashed.open(owner)
    left = await expect(crashed, "s1")
    (left.directory / "more").mkdir()
    folder.chmod(0o755)

    executor = LocalExecutor(folder)
    await executor.open(owner)
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await expect(executor, "s1")
    await executor.close()
    await crashed.close()


async def test_a_slot_for_which_it_cannot_listen_is_forgotten(tmp_path: Path, owner: Owner) -> None:
    executor = LocalExecutor(tmp_path / "slots", shared=True)
    await executor.open(owner)
    tokens = [f"{number:064x}" for number in range(2)]
    (tmp_path / "slots" / shared_member(tokens[0])).mkdir()
    with pytest.raises(OSError, match="exists"):
        await executor.expect("s1", tokens[0])
    assert not executor._folders
    await executor.expect("s1", tokens[1])
    assert executor.folder_of("s1") == tmp_path / "slots" / shared_member(tokens[1])
    await executor.close()
    assert not executor._folders


async def test_a_slot_is_expected_once(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    address = await expect(executor, "s1")
    with pytest.raises(FileExistsError):
        await expect(executor, "s1")
    await let_in(await start_peer(address.directory), address, owner)
