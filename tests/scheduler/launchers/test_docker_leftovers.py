"""What an earlier run left on the engine: removed where it can be, and never in the way of a start."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scheduler.backoff import Backoff
from scheduler.launchers import docker, docker_removals
from scheduler.launchers.docker import DockerLauncher
from scheduler.launchers.docker_config import DockerSettings
from tests.scheduler.launchers.rig import folder_of, installation_of, until
from tests.scheduler.launchers.scripted_engine import REMOVED, Answer, ScriptedEngine

BUSY: Answer = (500, 'driver "overlay2" failed to remove root filesystem: device or resource busy')
UNDER_WAY: Answer = (409, "removal of container x is already in progress")
NOT_THERE: tuple[Answer, ...] = (
    (404, "No such container: x"),
    (409, "could not kill container: No such container: x"),
    (500, "Could not kill running container x, cannot remove - No such container: x"),
)


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    folder = Path(tempfile.mkdtemp(prefix="gcl"))
    engine = ScriptedEngine(folder / "s")
    yield engine
    engine.close()
    shutil.rmtree(folder)


@pytest.fixture
async def launcher(
    scripted: ScriptedEngine, set_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerLauncher]:
    """Not open yet."""
    monkeypatch.setattr(docker, "_OPEN_CLEAN_UP_S", 0.3)
    monkeypatch.setattr(docker, "_CLOSE_CLEAN_UP_S", 0.1)
    monkeypatch.setattr(docker_removals, "_AGAIN", Backoff(0.05, 0.1))
    settings = DockerSettings(
        set_name=set_name,
        installation=installation_of(set_name),
        guest_binary=Path("/none"),
        docker_host=scripted.host,
        relist_s=0.2,
    )
    launcher = DockerLauncher(settings, folder_of, lambda slot_id, reason: None)
    yield launcher
    scripted.removal = lambda name: REMOVED
    await launcher.close()


def leave(scripted: ScriptedEngine, set_name: str, name: str, state: str = "dead") -> None:
    labels = {"set": set_name, "installation": installation_of(set_name), "slot": name}
    scripted.add(name, labels, state)


@pytest.mark.parametrize("answer", NOT_THERE)
async def test_a_container_that_the_engine_lists_but_does_not_find_is_gone(
    scripted: ScriptedEngine, launcher: DockerLauncher, set_name: str, answer: Answer
) -> None:
    leave(scripted, set_name, "ghost")
    scripted.removal = lambda name: answer
    with capture_logs() as lines:
        await launcher.open()
        await launcher.check()
        # The engine is not asked again, however often it lists it.
        leave(scripted, set_name, "later")
        await until(lambda: "later" in scripted.asked, "the set is listed again")
    assert scripted.asked.count("ghost") == 1
    assert [line["event"] for line in lines if "left" in line["event"] or "removed" in line["event"]] == []


async def test_a_removal_that_never_ends_keeps_no_set_from_starting(
    scripted: ScriptedEngine, launcher: DockerLauncher, set_name: str
) -> None:
    leave(scripted, set_name, "removing", "removing")
    scripted.removal = lambda name: UNDER_WAY
    with capture_logs() as lines:
        await launcher.open()
    await launcher.check()
    assert [
        line["containers"] for line in lines if line["event"] == "containers of an earlier run remain"
    ] == [1]


async def test_what_the_engine_cannot_remove_is_removed_once_it_can(
    scripted: ScriptedEngine, launcher: DockerLauncher, set_name: str
) -> None:
    for number in range(200):
        leave(scripted, set_name, f"dead{number}")
    leave(scripted, set_name, "whole", "exited")
    scripted.removal = lambda name: REMOVED if name == "whole" else BUSY
    with capture_logs() as lines:
        await launcher.open()
        await launcher.check()
        await until(lambda: "whole" not in scripted.containers, "one that can be removed is")
        refused = [line for line in lines if line["event"] == "slots could not be removed yet"]
        assert len(refused) == 1
        assert "resource busy" in refused[0]["reason"]
        scripted.removal = lambda name: REMOVED
        await until(lambda: not scripted.containers, "all are removed")
        await until(lambda: any(line["event"] == "slots are removed now" for line in lines), "that is logged")


async def test_an_engine_that_hangs_in_a_removal_keeps_no_set_from_starting(
    scripted: ScriptedEngine, launcher: DockerLauncher, set_name: str
) -> None:
    held = threading.Event()

    def hang(name: str) -> Answer:
        held.wait()
        return REMOVED

    for number in range(20):
        leave(scripted, set_name, f"dead{number}")
    scripted.removal = hang
    try:
        await launcher.open()
        # Nor do the calls that wait hold up others.
        await launcher.check()
        await asyncio.wait_for(launcher._engine.list_slots(), 10)
    finally:
        held.set()
    await until(lambda: not scripted.containers, "all are removed")


async def test_containers_of_others_are_counted_and_left_alone(
    scripted: ScriptedEngine, launcher: DockerLauncher, set_name: str
) -> None:
    for number in range(3):
        scripted.add(f"theirs{number}", {"set": set_name, "installation": "0" * 12, "slot": f"s{number}"})
    scripted.add("older", {"set": set_name, "slot": "s1"}, "created")
    # Its set had another name then.
    scripted.add("renamed", {"set": "old", "installation": installation_of(set_name), "slot": "s1"})
    with capture_logs() as lines:
        await launcher.open()
    told = {
        line["installation"]: line["containers"]
        for line in lines
        if line["event"] == "containers of another installation found"
    }
    assert told == {"0" * 12: 3, "none (an older version, or not ours)": 1}
    await launcher.close()
    assert sorted(scripted.containers) == ["older", "theirs0", "theirs1", "theirs2"]
    assert scripted.asked == ["renamed"]


async def test_an_engine_that_cannot_list_is_asked_ever_more_rarely_and_logged_once(
    scripted: ScriptedEngine, launcher: DockerLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await launcher.open()
    asked = 0

    def broken(wanted: list[str]) -> list[dict[str, object]]:
        nonlocal asked
        asked += 1
        raise BrokenPipeError

    listed = scripted.listed
    with capture_logs() as lines:
        monkeypatch.setattr(scripted, "listed", broken)
        await until(lambda: asked >= 3, "it is asked again")
        monkeypatch.setattr(scripted, "listed", listed)
        await until(
            lambda: any(line["event"] == "the engine lists its containers again" for line in lines),
            "it works again",
        )
    assert [line["event"] for line in lines].count("the engine does not list its containers") == 1
