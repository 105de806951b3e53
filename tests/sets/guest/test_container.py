"""The guest in real slots: containers as the Docker launcher makes them."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from docker import APIClient
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from ops.bench.slotfigures import GROWTH_KIB, charge_at_rest_kib
from scheduler.image import LABEL_WRITABLE
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from tests.scheduler.launchers.rig import ImageMaker
from tests.sets.guest import wire
from tests.sets.guest.rig import TOKEN, Connection, Listener, User, processes_of

pytestmark = pytest.mark.docker

ACTOR = b"/bin/actor"
PLACES = (b"/tmp", b"/dev/shm", b"/var/room", b"/var/room/deep/cache")
PIDS = 40


WORKDIR = "/var/room/work"
"""Within a place: the engine makes the way to it, with modes of its own, yet every USER must be able to write there."""

Slot = tuple[Listener, Connection]
StartSlot = Callable[[User], Awaitable[Slot]]


@pytest.fixture(scope="module")
def engine() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@pytest.fixture(scope="module")
def images(engine: str) -> Iterator[ImageMaker]:
    try:
        environment = {**os.environ, "DOCKER_HOST": engine}
        client = APIClient(**kwargs_from_env(environment=environment), version="auto", timeout=60)
    except DockerException as error:
        pytest.skip(f"no container engine: {error}")
    maker = ImageMaker(client)
    yield maker
    maker.clean()
    client.close()


@pytest.fixture
async def start_slot(
    engine: str, images: ImageMaker, actor_path: Path, guest_binary: Path
) -> AsyncIterator[StartSlot]:
    """`await start_slot(USER)` gives a slot of an image with places within places."""
    if "GUEST_BINARY" in os.environ:
        pytest.skip("GUEST_BINARY may need libraries that an image does not have")
    settings = DockerSettings(
        set_name=f"test{uuid.uuid4().hex[:8]}",
        installation=uuid.uuid4().hex[:12],
        guest_binary=guest_binary,
        docker_host=engine,
        tmp_mib=256,
        inodes=30_000,
        pids_limit=PIDS,
    )
    folders: dict[str, Path] = {}
    launcher = DockerLauncher(settings, folders.__getitem__, lambda slot_id, reason: None)
    await launcher.open()
    started: list[Slot] = []

    async def start(user: User) -> Slot:
        reference = images.make(
            'ENTRYPOINT ["/bin/actor"]',
            f"USER {user.uid}:{user.gid}",
            f"WORKDIR {WORKDIR}",
            "ENV OF=image",
            "VOLUME /var/room",
            f"LABEL {LABEL_WRITABLE}=/var/room/deep/cache",
            files={"bin": None, "bin/actor": actor_path.read_bytes()},
        )
        image = await launcher.images.resolve(reference)
        listener = Listener()
        pool = PoolKey("acme", image.digest, Resources(memory_mib=64), Isolation.SHARED)
        slot_id = f"t-{uuid.uuid4().hex[:12]}"
        folders[slot_id] = listener.folder
        await launcher.start(SlotOrder(slot_id, pool, image, TOKEN))
        slot = listener, listener.greet()
        started.append(slot)
        return slot

    yield start
    for listener, connection in started:
        connection.close()
        listener.close()
    await launcher.close()


def first_uid_of(pid: int) -> int:
    """The machine's uid of a slot's root: another one than 0 where the engine has user namespaces."""
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


async def test_a_program_in_a_slot(start_slot: StartSlot, user: User) -> None:
    _, connection = await start_slot(user)
    assert connection.uid == user.uid + first_uid_of(connection.pid)
    body = os.urandom(61_440)
    assert connection.run(ACTOR, b"cat", stdin=body).stdout == body
    facts = connection.run(b"actor", b"facts").stdout.decode()
    assert facts.startswith(f"sid 1 of 1; parent 1; uid {user.uid}; cwd {WORKDIR}; oom ")
    program, own = facts.partition("oom ")[2].partition(";")[0].split()
    assert int(program) > int(own)
    assert connection.run(ACTOR, b"fds").stdout == b"0 1 2 "
    assert connection.run(ACTOR, b"limit").stdout == b"4096 4096 0"
    assert connection.run(ACTOR, b"signals").stdout == b"blocked 0;; pending"
    environment = connection.run(ACTOR, b"env").stdout.split(b"\0")
    assert b"OF=image" in environment
    assert not [entry for entry in environment if entry.startswith(b"GENERAL_COMPUTE")]
    result = connection.run(ACTOR, b"write", b"3", b"1000000", b"70000")
    assert (len(result.stdout), len(result.stderr), result.handed_over) == (1_000_000, 70_000, True)
    assert connection.run(b"/bin/nothing").end == (wire.NOT_EXECUTED, 2)


async def test_leftovers_in_a_slot(start_slot: StartSlot, user: User) -> None:
    _, connection = await start_slot(user)
    assert connection.run(ACTOR, b"exit", b"0").cleaned is None
    for place in PLACES:
        looked = connection.run(ACTOR, b"look", place).stdout
        for mess in ((b"deep", b"3000"), (b"many", b"10000"), (b"closed",), (b"names",)):
            result = connection.run(ACTOR, mess[0], place, *mess[1:])
            assert (result.end, result.stderr, result.cleaned) == ((wire.EXITED, 0), b"", (True, 0))
        found = connection.run(ACTOR, b"look", place)
        assert found.cleaned is None
        # All but the time of the last change, which is the platform's own where it owns the place.
        assert [part for i, part in enumerate(found.stdout.split()) if i != 3] == [
            part for i, part in enumerate(looked.split()) if i != 3
        ]
    assert b"cwd %s;" % WORKDIR.encode() in connection.run(ACTOR, b"facts").stdout


async def test_output_files_of_a_slot(start_slot: StartSlot, user: User) -> None:
    _, connection = await start_slot(user)
    names = [
        b"/tmp/regular",
        b"/tmp/link",
        b"/tmp/linked/inner",
        b"/proc/1/environ",
        b"/gc/run/executor.sock",
        b"/etc/passwd",
    ]
    files = connection.run(ACTOR, b"outputs", b"/tmp", files=names).files
    assert files[:5] == [b"content", 40, 40, 22, 22]
    assert isinstance(files[5], bytes)


async def test_the_process_limit_of_a_slot(start_slot: StartSlot, user: User) -> None:
    _, connection = await start_slot(user)
    for _ in range(3):
        result = connection.run(ACTOR, b"crowd", b"1000")
        assert result.end == (wire.EXITED, 0)
        assert PIDS - 5 < int(result.stdout) < PIDS
        assert processes_of(connection.pid) == [connection.pid]
    assert connection.run(ACTOR, b"churn", b"500").stdout == b"done"


async def test_nothing_can_be_left_on_process_1_of_a_slot(start_slot: StartSlot, user: User) -> None:
    _, connection = await start_slot(user)
    before = connection.run(ACTOR, b"inherited").stdout
    assert connection.run(ACTOR, b"tamper").stdout == b"0" * 10
    assert (connection.run(ACTOR, b"mark").stdout.splitlines()[1] == b"00000007") == (user.uid == 0)
    assert connection.run(ACTOR, b"inherited").stdout == before


async def test_thousands_of_tasks_leave_no_memory_charge(start_slot: StartSlot, user: User) -> None:
    """What the kernel keeps for a while of processes that have ended is gone when the slot rests."""
    _, connection = await start_slot(user)
    charges_kib = []
    for count in (200, 3000):
        for _ in range(count):
            assert connection.run(ACTOR, b"cat", stdin=b"x" * 1024).stdout == b"x" * 1024
        charges_kib.append(charge_at_rest_kib(connection.pid, rest_s=3.0))
    # 3,000 tasks that left 22 bytes each would be above.
    assert charges_kib[1] - charges_kib[0] <= GROWTH_KIB


@pytest.mark.parametrize("command", [(b"eat",), (b"fill", b"/tmp/big", b"0")], ids=["eat", "fill"])
async def test_the_guest_outlives_a_lack_of_memory(
    start_slot: StartSlot, user: User, command: tuple[bytes, ...]
) -> None:
    _, connection = await start_slot(user)
    for _ in range(3):
        result = connection.run(ACTOR, *command)
        assert result.end == (wire.SIGNALLED, 9)
        assert not result.exit.flags & wire.KILLED
        assert result.cleaned in (None, (True, 0))
        assert connection.run(ACTOR, b"cat", stdin=b"still here").stdout == b"still here"


async def test_a_crowd_that_waits_for_memory_is_killed(start_slot: StartSlot, user: User) -> None:
    """The memory lies in a file, so the kernel may kill one small process after the other and gain nothing by it."""
    _, connection = await start_slot(user)
    connection.begin([ACTOR, b"fill", b"/tmp/big", b"20"])
    await asyncio.sleep(1)
    connection.send(wire.head(wire.KILL, connection.number))
    result = connection.finish()
    assert result.end == (wire.SIGNALLED, 9)
    assert result.cleaned == (True, 0)
    assert connection.run(ACTOR, b"cat", stdin=b"still here").stdout == b"still here"


async def test_a_slot_that_loses_its_executor(start_slot: StartSlot, user: User) -> None:
    listener, connection = await start_slot(user)
    connection.begin([ACTOR, b"daemon", b"/tmp/log"], stream=True)
    connection.close()
    again = listener.greet()
    assert again.pid == connection.pid
    assert processes_of(again.pid) == [again.pid]
    assert again.run(ACTOR, b"look", b"/tmp").stdout.split()[4:] == []
    again.close()
