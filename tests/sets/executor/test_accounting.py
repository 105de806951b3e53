"""Real containers: what is billed against what the kernel counted, the real guest, programs that hide their work."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from docker import APIClient

from scheduler.execution import Ending, How, Output, Work
from scheduler.launchers.contract import SlotOrder
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings, container_name
from scheduler.pool import PoolKey
from scheduler.task import Isolation, Resources
from sets.executor.cgroup import GUEST_ALLOWANCE_US, SlotCgroup
from sets.executor.executor import LocalExecutor
from sets.executor.run import SlotRun
from sets.guest import GUEST_BINARY
from tests.scheduler.launchers.rig import ImageMaker, until

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_factories=["uvloop"])]

BURNER = Path(__file__).with_name("burner.c")
BURN_MS = 300
OVERLAP_US = 8_000
"""The guest works on while its slot's account is read; that share is billed, and taken off the next bill. It is some
microseconds, on an emulated processor some milliseconds."""


@pytest.fixture(scope="module")
def client(docker_host: str) -> Iterator[APIClient]:
    client = APIClient(base_url=docker_host, version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(client: APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = tmp_path_factory.mktemp("burner") / "burner"
    flags = ["-static", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", binary, BURNER], check=True)
    maker = ImageMaker(client)
    yield maker.make('ENTRYPOINT ["/burner"]', files={"burner": binary.read_bytes()})
    maker.clean()


class RealSlot:
    """One slot in a container, its guest's process, and the kernel's account of both."""

    def __init__(self, executor: LocalExecutor, slot_id: str, pid: int, left: list[tuple[str, int]]) -> None:
        # What the slot had left to bill when it ended.
        self.left = left
        self._executor = executor
        self._slot_id = slot_id
        self._pid = pid
        self._cgroup = SlotCgroup(pid)
        self.free = asyncio.Event()

    async def run(self, *argv: str) -> tuple[Ending, int]:
        """A program's end, and by the kernel's count what it used, microseconds: all but the guest's."""
        before_us = self._programs_us()
        run = self.start(*argv)
        async with asyncio.timeout(90):
            ending = await run.ending()
            await self.free.wait()
        # The guest has gone to sleep by then, and the kernel has written down what it used.
        await asyncio.sleep(0.05)
        return ending, self._programs_us() - before_us

    def start(self, *argv: str) -> SlotRun:
        self.free.clear()
        return self._executor.run(self._slot_id, Work(argv=tuple(arg.encode() for arg in argv)))

    def end(self) -> None:
        """The slot is wanted no longer."""
        self._executor.discard(self._slot_id)

    def close(self) -> None:
        self._cgroup.close()

    def guest_us(self) -> int:
        """What the guest itself has used since it began."""
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0]) // 1000

    def _programs_us(self) -> int:
        return self._cgroup.cpu_us() - self.guest_us()


class Owner:
    def __init__(self) -> None:
        self.ready = False
        self.slot: RealSlot | None = None
        self.lost: list[str] = []
        self.left: list[tuple[str, int]] = []

    def slot_ready(self, slot_id: str) -> None:
        self.ready = True

    def slot_freed(self, slot_id: str, cpu_us: int) -> None:
        assert self.slot is not None
        self.slot.free.set()

    def left_over(self, slot_id: str, cpu_us: int) -> None:
        self.left.append((slot_id, cpu_us))

    def prestart_unfit(self, slot_id: str, reason: str) -> None:
        raise AssertionError(f"{slot_id}: {reason}")

    def slot_lost(self, slot_id: str, reason: str) -> None:
        self.lost.append(reason)


@pytest.fixture
async def slot(docker_host: str, client: APIClient, image: str, tmp_path: Path) -> AsyncIterator[RealSlot]:
    set_name, slot_id = f"acct{uuid.uuid4().hex[:8]}", "s1"
    owner = Owner()
    executor = LocalExecutor(tmp_path / "slots")
    # Without it the container's user could not pass through pytest's folders.
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    settings = DockerSettings(
        set_name=set_name,
        installation=uuid.uuid4().hex[:12],
        guest_binary=GUEST_BINARY,
        docker_host=docker_host,
    )
    launcher = DockerLauncher(settings, executor.folder_of, owner.slot_lost)
    await executor.open(owner)
    await launcher.open()
    try:
        found = await launcher.images.resolve(image)
        await executor.expect(slot_id, "ab" * 32)
        pool = PoolKey("acme", found.digest, Resources(200, 128), Isolation.SHARED)
        await launcher.start(SlotOrder(slot_id, pool, found, "ab" * 32))
        await until(lambda: owner.ready, "the guest's hello")
        inspected = await asyncio.to_thread(client.inspect_container, container_name(settings, slot_id))
        owner.slot = RealSlot(executor, slot_id, inspected["State"]["Pid"], owner.left)
        yield owner.slot
        owner.slot.close()
        assert owner.lost == []
        executor.discard(slot_id)
        await launcher.stop(slot_id)
    finally:
        await executor.close()
        await launcher.close()


def assert_billed(ending: Ending, kernel_us: int) -> None:
    """Accounting, not timing: however long it took, both counted the same work."""
    assert abs(ending.cpu_us - kernel_us) <= kernel_us // 100 + OVERLAP_US, (ending.cpu_us, kernel_us)


@pytest.mark.parametrize("mode", ["single", "threads", "processes", "ignored", "orphans"])
async def test_the_bill_is_what_the_kernel_counted(slot: RealSlot, mode: str) -> None:
    ending, kernel_us = await slot.run("/burner", mode, str(BURN_MS))
    assert (ending.how, ending.code, ending.stdout) == (How.EXITED, 0, b"burnt\n")
    assert ending.cpu_us >= BURN_MS * 1000, "all of it was burnt, and is billed"
    assert_billed(ending, kernel_us)


async def test_what_a_clean_up_costs_beyond_its_allowance_is_billed(slot: RealSlot) -> None:
    before_us = slot.guest_us()
    left, _ = await slot.run("/burner", "deep", "0")
    assert (left.how, left.code) == (How.EXITED, 0)
    cleaning_us = slot.guest_us() - before_us
    assert cleaning_us > 3 * GUEST_ALLOWANCE_US
    ending, kernel_us = await slot.run("/burner", "single", "1")
    # One allowance is for the task, one for the clean-up; the slot's next task pays.
    assert (
        cleaning_us - 2 * GUEST_ALLOWANCE_US - OVERLAP_US
        <= ending.cpu_us - kernel_us
        <= cleaning_us + OVERLAP_US
    )


async def test_the_clean_up_after_a_slots_last_task_is_left_over_beyond_its_allowance(slot: RealSlot) -> None:
    before_us = slot.guest_us()
    await slot.run("/burner", "deep", "0")
    cleaning_us = slot.guest_us() - before_us
    slot.end()
    ((slot_id, left_us),) = slot.left
    assert slot_id == "s1"
    # One allowance is for the task, one for the clean-up, one for what it did before.
    assert cleaning_us - 3 * GUEST_ALLOWANCE_US - OVERLAP_US <= left_us <= cleaning_us + OVERLAP_US


async def test_an_ordinary_task_leaves_nothing_over(slot: RealSlot) -> None:
    await slot.run("/burner", "single", "1")
    slot.end()
    assert slot.left == []


async def test_what_is_left_burning_is_billed_until_it_is_killed(slot: RealSlot) -> None:
    ending, kernel_us = await slot.run("/burner", "left", "200")
    assert (ending.how, ending.code) == (How.EXITED, 0)
    assert ending.cpu_us > 0
    assert_billed(ending, kernel_us)


async def test_a_stdout_left_in_flight_does_not_delay_the_end(slot: RealSlot) -> None:
    run = slot.start("/burner", "flight", "0")
    async with asyncio.timeout(90):
        first = await run.first()
        assert isinstance(first, Output)
        size = len(first.stdout_head)
        while chunk := await first.stdout.read():
            size += len(chunk)
        ending = await run.ending()
    assert (ending.how, ending.code, size) == (How.EXITED, 0, 4 * 65_536 + len(b"burnt\n"))
    first.stdout.close()
    first.stderr.close()
    await slot.free.wait()


async def test_many_small_tasks_add_up(slot: RealSlot) -> None:
    """No error that is made once per task: the guest's share and the kernel's lag are carried over."""
    billed_us = counted_us = 0
    for _ in range(50):
        ending, kernel_us = await slot.run("/burner", "single", "1")
        billed_us += ending.cpu_us
        counted_us += kernel_us
    assert abs(billed_us - counted_us) <= counted_us // 100 + 1000, (billed_us, counted_us)


async def test_a_bill_holds_nothing_of_the_task_before(slot: RealSlot) -> None:
    await slot.run("/burner", "processes", str(BURN_MS))
    ending, kernel_us = await slot.run("/burner", "single", "1")
    assert_billed(ending, kernel_us)
    assert ending.cpu_us < BURN_MS * 1000 // 2
