"""An executor that dresses slots: real guests in containers as Nomad makes them, and processes that pass for one."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import docker
import msgspec
import pytest

from scheduler.execution import Ending, Work
from scheduler.launchers.doorway import CPU_FILE, DRESSING_FILE, Dressing, write_file
from sets.executor.executor import LocalExecutor
from sets.guest import GUEST_BINARY
from tests.sets.dresser.slots import INODES, Node, create_body
from tests.sets.executor import wire
from tests.sets.executor.guests import Owner, StartPeer, expect, until

DOCKERFILE = b"""FROM cat:1
RUN mkdir -p /v /held/tmp && echo image > /held/file && chmod 666 /held/file
VOLUME /v /held
WORKDIR /held
USER 12345:23456
"""
PLACES = ("/tmp", "/dev/shm", "/v", "/held/tmp")
ORDER = Dressing(PLACES, INODES, ("/held",))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    if os.geteuid() != 0:
        pytest.skip("slots are dressed by root: run as root")
    node = Node(tmp_path_factory.mktemp("node"))
    (node.folder / "bin/guest").write_bytes(GUEST_BINARY.read_bytes())
    (node.folder / "bin/guest").chmod(0o755)
    return node


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> Iterator[str]:
    reference = f"gc-test-{uuid.uuid4().hex[:10]}:1"
    engine.images.build(fileobj=io.BytesIO(DOCKERFILE), tag=reference, network_mode="none")
    yield reference
    engine.images.remove(reference, force=True)


class Slots:
    """Starts slots as a launcher and an orchestrator do together; `executor` is that of their node."""

    def __init__(
        self, engine: docker.DockerClient, node: Node, executor: LocalExecutor, owner: Owner
    ) -> None:
        self._client = engine.api
        self._node = node
        self._owner = owner
        self._containers: list[str] = []
        self.executor = executor

    async def start(self, image: str, order: Dressing | None, mounted: tuple[str, ...]) -> str:
        """A slot of which the executor has said that it is ready, or lost."""
        slot_id, token = f"s{len(self._containers)}", secrets.token_hex(32)
        await self.executor.expect(slot_id, token)
        folder = self.executor.folder_of(slot_id)
        write_file(folder, CPU_FILE, b"100")
        if order is not None:
            write_file(folder, DRESSING_FILE, msgspec.json.encode(order))
        door = folder.relative_to(self._node.folder / "run")
        create: Any = self._client.create_container_from_config
        body = {
            "Image": image,
            "Entrypoint": ["/gc/bin/guest"],
            "Cmd": [
                f"/gc/run/{door}/executor.sock",
                "1024",
                *(order.places if order is not None else mounted),
            ],
            "Env": [f"GENERAL_COMPUTE_SLOT_TOKEN={token}"],
            "HostConfig": {
                **create_body(self._node, mounted),
                "Ulimits": [{"Name": "nofile", "Soft": 4096, "Hard": 4096}],
            },
        }
        self._containers.append((await asyncio.to_thread(create, body))["Id"])
        await asyncio.to_thread(self._client.start, self._containers[-1])
        await until(lambda: slot_id in self._owner.ready or slot_id in dict(self._owner.lost))
        return slot_id

    async def run(self, slot_id: str, script: str) -> str:
        """What a shell in the slot prints."""
        freed = len(self._owner.freed)
        work = Work(argv=(b"/bin/sh", b"-c", script.encode()), stdin=b"")
        ending = await self.executor.run(slot_id, work).first()
        assert isinstance(ending, Ending)
        await until(lambda: len(self._owner.freed) > freed)
        return (ending.stdout + ending.stderr).decode()

    def wait(self) -> int:
        """The exit code of the last one's guest."""
        code: int = self._client.wait(self._containers[-1])["StatusCode"]
        return code

    def remove(self) -> None:
        for container in self._containers:
            self._client.remove_container(container, force=True, v=True)


@pytest.fixture
async def shared(node: Node, owner: Owner) -> AsyncIterator[LocalExecutor]:
    """The executor of a set on a node, whose folder all slots see."""
    executor = LocalExecutor(node.folder / "run/test", shared=True)
    await executor.open(owner)
    yield executor
    await executor.close()


@pytest.fixture
def slots(engine: docker.DockerClient, node: Node, shared: LocalExecutor, owner: Owner) -> Iterator[Slots]:
    slots = Slots(engine, node, shared, owner)
    yield slots
    slots.remove()


@pytest.mark.docker
async def test_a_slot_is_dressed_before_its_first_task(slots: Slots, image: str, owner: Owner) -> None:
    slot_id = await slots.start(image, ORDER, (*PLACES, "/held"))
    assert owner.lost == []
    said = await slots.run(
        slot_id,
        "for place in /tmp /v /held/tmp; do cp /bin/true $place/true && $place/true && stat -c %u:%g $place; done;"
        "pwd -P; cat file; (echo more > /held/file) 2>&1 | grep -o Read-only; stat -c %u /dev/shm",
    )
    assert said.split() == ["12345:23456"] * 3 + ["/held", "image", "Read-only", "0"]
    # Its own places, which it may change: the next task finds them as they were.
    await slots.run(slot_id, "chmod 700 /v /held/tmp; touch /v/left")
    said = await slots.run(slot_id, "stat -c %a /v /held/tmp; ls /v /tmp /held/tmp; df -i /v | tail -1")
    modes, inodes = said.split()[:2], said.split()[-5]
    assert "left" not in said
    assert "700" not in modes
    assert inodes == str(INODES)


@pytest.mark.docker
async def test_a_slot_that_is_not_as_ordered_takes_no_task(slots: Slots, image: str, owner: Owner) -> None:
    slot_id = await slots.start(image, ORDER, PLACES)
    assert owner.ready == []
    assert owner.lost == [(slot_id, "it could not be dressed: /held: nothing covers this VOLUME")]


@pytest.mark.docker
async def test_a_slot_without_an_order_is_left_as_it_is(slots: Slots, image: str, owner: Owner) -> None:
    """A set of an earlier build leaves none."""
    slot_id = await slots.start(image, None, PLACES)
    assert owner.ready == [slot_id]
    assert "noexec" in await slots.run(slot_id, "grep ' /v ' /proc/mounts")


@pytest.mark.docker
async def test_a_slot_that_is_let_go_while_it_is_dressed(
    slots: Slots, image: str, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears of it any more, and its guest ends."""
    begun = asyncio.Event()

    async def never(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("sets.executor.executor.dress", never)
    starting = asyncio.create_task(slots.start(image, ORDER, (*PLACES, "/held")))
    await begun.wait()
    slots.executor.discard("s0")
    ended = await asyncio.to_thread(slots.wait)
    assert ended == 3
    assert (owner.ready, owner.lost) == ([], [])
    starting.cancel()


async def _let_in(
    executor: LocalExecutor, owner: Owner, start_peer: StartPeer, order: Dressing | None, flags: int
) -> str:
    """A process that passes for the guest says HELLO; returns why its slot is lost."""
    address = await expect(executor, "s1")
    write_file(address.directory, CPU_FILE, b"100")
    if order is not None:
        write_file(address.directory, DRESSING_FILE, msgspec.json.encode(order))
    peer = await start_peer(address.directory)
    connection = await peer.ask("connect")
    hello = wire.hello(address.token.encode(), flags=flags)
    await peer.ask("send", connection, hello.hex())
    await until(lambda: owner.lost)
    return owner.lost[0][1]


@pytest.mark.parametrize(("order", "flags"), [(ORDER, 0), (None, 1)])
async def test_a_guest_that_disagrees_whether_it_is_dressed(
    shared: LocalExecutor,
    owner: Owner,
    start_peer: StartPeer,
    monkeypatch: pytest.MonkeyPatch,
    order: Dressing | None,
    flags: int,
) -> None:
    """Such as one of another build, or one that has run a task."""
    why = await _let_in(shared, owner, start_peer, order, flags)
    assert why == (
        "its guest could not be let in: it and the launcher disagree whether its slot is to be dressed; "
        "run set, registrar and executor of one build"
    )


async def test_an_order_that_makes_no_sense(
    shared: LocalExecutor, owner: Owner, start_peer: StartPeer
) -> None:
    why = await _let_in(shared, owner, start_peer, Dressing(("tmp",), 10), 1)
    assert why.startswith("its guest could not be let in: ")
    assert "places" in why
    assert owner.ready == []


def _look_at(path: str) -> tuple[int, int, int]:
    return os.stat(path).st_uid, os.stat(path).st_mode, os.statvfs(path).f_flag


async def test_a_process_without_places_is_not_dressed(
    shared: LocalExecutor, owner: Owner, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer is an init, but in the mount namespace of this test: nothing there may be touched."""
    monkeypatch.setattr("sets.executor.executor.limit_cpu", lambda *_: None)
    before = _look_at("/tmp")
    why = await _let_in(shared, owner, start_peer, ORDER, 1)
    assert why == "it could not be dressed: the slot has no mount namespace of its own"
    assert _look_at("/tmp") == before
