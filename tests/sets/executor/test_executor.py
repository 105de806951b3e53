"""The executor: who is let in and who is not, what discarding leaves, and what a run does. The guests are scripted,
but real processes, PID 1 of a namespace of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from scheduler.errors import SlotLost
from scheduler.execution import Work
from scheduler.task import Lease
from sets.executor import door, slot
from sets.executor.cgroup import CgroupError
from sets.executor.executor import LocalExecutor
from sets.executor.slot import SlotState
from tests.descriptors import no_descriptors_left
from tests.sets.executor import wire
from tests.sets.executor.conftest import FdCheck, open_fds

WAIT_S = 60.0
PEER = Path(__file__).with_name("peer.py")
CAT = Work(argv=(b"/bin/cat",), stdin=b"in")


class Owner:
    """Hears what the executor tells."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self.freed: list[str] = []
        self.lost: list[tuple[str, str]] = []

    def slot_ready(self, slot_id: str) -> None:
        self.ready.append(slot_id)

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        self.freed.append(slot_id)

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        raise AssertionError("no program was started ahead")

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        raise AssertionError(f"{slot_id}: {reason}")

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self.lost.append((slot_id, reason))


class Peer:
    """A process that connects to a slot's socket. Only as `init` can it be the guest."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, directory: Path, *, init: bool) -> Peer:
        namespace = ["unshare", "--pid", "--fork", "--kill-child"] if init else []
        process = await asyncio.create_subprocess_exec(
            *namespace,
            sys.executable,
            "-IS",
            PEER,
            directory,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        peer = cls(process)
        assert (await peer._answer() == "pid 1") == init
        return peer

    async def ask(self, *words: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        return await self._answer()

    async def greet(self, token: str, version: int = 1) -> str:
        """Connect and say hello; the connection's number."""
        connection = await self.ask("connect")
        assert connection.isdecimal(), connection
        await self.ask("send", connection, wire.hello(token.encode(), version).hex())
        return connection

    async def receive(self, connection: str) -> bytes:
        """Empty at the end."""
        answer = await self.ask("receive", connection)
        return b"" if answer in ("end", "ConnectionResetError") else bytes.fromhex(answer)

    async def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def _answer(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            return (await self._process.stdout.readline()).decode().strip()


StartPeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
async def executor(tmp_path: Path, owner: Owner) -> AsyncIterator[LocalExecutor]:
    executor = LocalExecutor(tmp_path / "slots")
    await executor.open(owner)
    yield executor
    await executor.close()
    assert not (tmp_path / "slots").exists()


@pytest.fixture
async def start_peer() -> AsyncIterator[StartPeer]:
    peers: list[Peer] = []

    async def start(directory: Path, *, init: bool = True) -> Peer:
        peers.append(await Peer.start(directory, init=init))
        return peers[-1]

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
def logged() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (another process acts)
            await asyncio.sleep(0.005)


class Address(NamedTuple):
    """The socket of a slot's guest, and the token that it must say."""

    directory: Path
    token: str


async def expect(executor: LocalExecutor, slot_id: str) -> Address:
    """The executor waits for this slot."""
    token = secrets.token_hex(32)
    await executor.expect(slot_id, token)
    return Address(executor.folder_of(slot_id), token)


async def let_in(peer: Peer, address: Address, owner: Owner) -> str:
    """The genuine guest gets in, whatever was before; its connection's number."""
    already = len(owner.ready)
    connection = await peer.greet(address.token)
    await until(lambda: len(owner.ready) > already)
    return connection


def knock(directory: Path) -> socket.socket:
    """Connect from this process, which is no container's init."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(WAIT_S)
    folder = os.open(directory, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{folder}/executor.sock")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


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


# -- who is not let in


async def test_the_right_token_from_beside_the_guest(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    impostor = await start_peer(address.directory, init=False)
    connection = await impostor.greet(address.token)
    assert await impostor.receive(connection) == b""
    with contextlib.suppress(OSError), knock(address.directory) as mine:
        mine.send(wire.hello(address.token.encode()))
        await asyncio.sleep(0.02)
        assert mine.recv(100) == b""
    assert (owner.ready, owner.lost) == ([], [])
    await let_in(await start_peer(address.directory), address, owner)


@pytest.mark.parametrize(
    "hello",
    [
        wire.hello(b"0" * 64),
        wire.hello(b"\xff" * 64),
        wire.hello(b"0" * 64, version=2),
        wire.hello(b"0" * 64)[:-1],
        wire.hello(b"0" * 64) + b"0",
        wire.hello(b"0" * 64) + bytes(5000),
        wire.head(wire.HELLO),
        wire.ended(1),
        wire.output(1),
        b"\0",
    ],
    ids=lambda hello: f"{len(hello)} bytes of type {hello[0]}",
)
async def test_a_wrong_hello(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, hello: bytes
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    await guest.ask("send", connection, hello.hex())
    assert await guest.receive(connection) == b""
    assert (owner.ready, owner.lost) == ([], [])
    await let_in(guest, address, owner)


async def test_a_token_that_is_another_slots(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address, other = await expect(executor, "s1"), await expect(executor, "s2")
    guest = await start_peer(address.directory)
    assert await guest.receive(await guest.greet(other.token)) == b""
    assert owner.ready == []


async def test_another_version_is_told_at_once(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    await guest.greet(address.token, version=2)
    await until(lambda: owner.lost)
    assert owner.lost == [("s1", "its guest speaks version 2 of the protocol, not 1")]
    assert not address.directory.exists()


async def test_silence(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "HELLO_TIMEOUT_S", 0.05)
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    assert await guest.receive(connection) == b""
    assert owner.lost == []
    await let_in(guest, address, owner)


async def test_a_hello_that_comes_late(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await guest.ask("connect")
    await asyncio.sleep(0.05)
    assert owner.ready == []
    await guest.ask("send", connection, wire.hello(address.token.encode()).hex())
    await until(lambda: owner.ready)


async def test_silence_keeps_nobody_out(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    """Far more silent ones than there is room for, and none has run out of time when the guest comes."""
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    before = len(open_fds())
    for _ in range(30):
        await guest.ask("connect")
    assert len(open_fds()) <= before + door.GREETINGS
    await let_in(guest, address, owner)
    assert await guest.receive("0") == b""
    assert await guest.receive("29") == b""
    assert len(open_fds()) <= before + 3, "the guest's connection and its two accounts"


async def test_a_flood_of_connections(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, logged: list[Any]
) -> None:
    address, other = await expect(executor, "s1"), await expect(executor, "s2")
    impostor = await start_peer(address.directory, init=False)
    guest = await start_peer(address.directory)
    neighbour = await start_peer(other.directory)
    before = len(open_fds())
    flood = asyncio.create_task(impostor.ask("flood", 1000))
    await let_in(guest, address, owner)
    await let_in(neighbour, other, owner)
    assert len(open_fds()) <= before + 6
    await flood
    assert owner.ready == ["s1", "s2"]
    assert owner.lost == []
    assert len(logged) <= door.REFUSALS_LOGGED, "a flood of connections is no flood of log lines"


# -- the door opens once


async def test_nobody_is_heard_once_the_guest_is_in(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    await let_in(guest, address, owner)
    with pytest.raises(ConnectionRefusedError):
        knock(address.directory)
    assert await guest.ask("connect") == "ConnectionRefusedError", "not even the guest itself"
    assert (owner.ready, owner.lost) == (["s1"], [])


async def test_what_waited_at_the_door_is_let_go(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    """A descriptor in a connection that nobody accepted: a pipe's end must not depend on it."""
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    read_end, write_end = os.pipe()
    connection = await guest.ask("connect")
    await asyncio.sleep(0.02)
    with knock(address.directory) as waiting:
        socket.send_fds(waiting, [b"hold this"], [write_end])
        os.close(write_end)
        await guest.ask("send", connection, wire.hello(address.token.encode()).hex())
        await until(lambda: owner.ready)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


async def test_descriptors_with_a_hello_are_dropped(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    read_end, write_end = os.pipe()
    with knock(address.directory) as mine:
        socket.send_fds(mine, [wire.hello(address.token.encode())], [write_end])
        os.close(write_end)
        await until(lambda: owner.ready or _ended(mine))
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def _ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


async def test_a_guest_that_lost_its_connection_does_not_come_back(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    address = await expect(executor, "s1")
    guest = await start_peer(address.directory)
    connection = await let_in(guest, address, owner)
    await guest.ask("send", connection, "ff")
    await until(lambda: owner.lost)
    assert await guest.receive(connection) == b""
    assert await guest.ask("connect") == "FileNotFoundError"
    assert (owner.ready, len(owner.lost)) == (["s1"], 1)


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


async def test_a_slot_is_expected_once(executor: LocalExecutor, owner: Owner, start_peer: StartPeer) -> None:
    address = await expect(executor, "s1")
    with pytest.raises(FileExistsError):
        await expect(executor, "s1")
    await let_in(await start_peer(address.directory), address, owner)
