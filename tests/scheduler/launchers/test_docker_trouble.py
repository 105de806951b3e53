"""An engine that is stopped, killed, restarted, frozen or not there; a private one, so no other is touched."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from docker import APIClient

from ops.setup import processes
from ops.setup.engine import PrivateEngine
from scheduler.errors import EngineUnavailable
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import ImageMaker, Rig, container_of, containers, folder_of, until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="a private engine needs root, as make test in CI has"),
]


class Own:
    """A private engine, one image on it, and a launcher that uses it."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine
        self.image = ""

    @property
    def client(self) -> APIClient:
        return APIClient(base_url=self.engine.layout.host, version="auto", timeout=30)

    def stop_daemon(self, how: signal.Signals) -> None:
        pid = self.engine.pid
        os.kill(pid, how)
        assert processes.wait_until(lambda: self.engine.pid != pid, 40), "the daemon does not end"


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    top = Path(tempfile.mkdtemp(prefix="gcl"))
    engine = PrivateEngine(top)
    try:
        engine.start()
        own = Own(engine)
        own.image = ImageMaker(own.client).make('CMD ["/x"]')
        yield own
    finally:
        engine.stop()
        shutil.rmtree(top)


@pytest.fixture
def own_settings(docker_settings: DockerSettings, own: Own) -> DockerSettings:
    return msgspec.structs.replace(
        docker_settings,
        docker_host=own.engine.layout.host,
        ping_timeout_s=1.0,
        call_timeout_s=4.0,
        start_timeout_s=8.0,
        relist_s=2.0,
    )


@pytest.fixture
async def own_rig(own: Own, own_settings: DockerSettings) -> AsyncIterator[Rig]:
    gone: list[tuple[str, str]] = []
    launcher = DockerLauncher(own_settings, folder_of, lambda slot_id, reason: gone.append((slot_id, reason)))
    await launcher.open()
    rig = Rig(launcher, gone)
    yield rig
    own.engine.start()
    await launcher.close()
    rig.close()
    assert containers(own.client, own_settings.set_name) == []


async def answering(rig: Rig) -> None:
    """Wait until the launcher sees its engine again."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await rig.launcher.check()
            except EngineUnavailable:
                await asyncio.sleep(0.05)


async def test_no_engine_at_all(docker_settings: DockerSettings, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(docker_settings, docker_host=f"unix://{tmp_path}/none.sock")
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match=r"none\.sock does not answer: .*No such file"):
            await launcher.open()
    with pytest.raises(EngineUnavailable):
        await launcher.images.resolve("imgproc:1")
    await launcher.close()


async def test_a_docker_host_that_is_nonsense(docker_settings: DockerSettings) -> None:
    settings = msgspec.structs.replace(docker_settings, docker_host="nonsense://x")
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
    with pytest.raises(EngineUnavailable, match="nonsense"):
        await launcher.open()
    await launcher.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_an_engine_that_goes_and_comes_back(own: Own, own_rig: Rig, how: signal.Signals) -> None:
    order, _ = await own_rig.run(own.image)
    image = order.image
    await asyncio.to_thread(own.stop_daemon, how)
    for call in (own_rig.launcher.check(), own_rig.launcher.start(own_rig.order(image))):
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await call
    # What was known holds meanwhile, so that slots which still run go on taking tasks; what was not known waits.
    await until(lambda: not own_rig.images.heard, "the broken stream of events is noticed")
    assert await own_rig.images.resolve(own.image) == image
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await own_rig.images.resolve("another:1")
    await own_rig.launcher.stop("unknown")
    await asyncio.to_thread(own.engine.start)
    await answering(own_rig)
    await until(lambda: bool(own_rig.gone), "the slot that did not survive is reported", 40)
    assert [slot_id for slot_id, _ in own_rig.gone] == [order.slot_id]
    _, probe = await own_rig.run(own.image)
    assert await probe.ask("host") == "slot"


async def test_a_slot_stopped_while_the_engine_is_away_is_removed_later(
    own: Own, own_rig: Rig, own_settings: DockerSettings
) -> None:
    order, _ = await own_rig.run(own.image)
    await asyncio.to_thread(own.stop_daemon, signal.SIGKILL)
    await own_rig.launcher.stop(order.slot_id)
    await asyncio.to_thread(own.engine.start)
    await until(lambda: not containers(own.client, own_settings.set_name), "the container is removed", 40)
    assert own_rig.gone == []


async def test_a_frozen_engine(own: Own, own_rig: Rig, own_settings: DockerSettings) -> None:
    order, probe = await own_rig.run(own.image)
    await own_rig.images.resolve(own.image)
    pid = own.engine.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(90):
            with pytest.raises(EngineUnavailable, match="timed out"):
                await own_rig.launcher.check()
            with pytest.raises(EngineUnavailable, match="timed out"):
                await own_rig.images.resolve("another:1")
            starts = [own_rig.launcher.start(own_rig.order(order.image)) for _ in range(6)]
            outcomes = await asyncio.gather(*starts, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {EngineUnavailable}
            # What runs is not touched by any of it.
            assert await probe.ask("host") == "slot"
            assert own_rig.gone == []
    finally:
        os.kill(pid, signal.SIGCONT)
    await answering(own_rig)
    # The engine may still carry out what nobody waits for any more: none of that may stay.
    name = "/" + container_of(own_settings.set_name, order.slot_id)
    await until(lambda: containers(own.client, own_settings.set_name) == [name], "only the slot is left", 40)
    await asyncio.sleep(3)
    assert containers(own.client, own_settings.set_name) == [name]
    assert own_rig.gone == []
