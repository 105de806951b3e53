"""Questions between workers: answered, refused, or named as unanswered; never waited for without a bound."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from router.workers.group import WorkerGroup, WorkerGroupError
from router.workers.peers import MAX_ANSWER_BYTES, Peers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Deeper than a socket's path may be.
    folder = tmp_path / ("d" * 100) / "r.workers"
    folder = WorkerGroup.make(3, folder).folder or folder
    return folder


def peer(folder: Path, index: int, word: bytes = b"") -> Peers:
    async def answer(question: str) -> bytes:
        if question == "fail":
            raise ValueError("no")
        if question == "hang":
            await asyncio.sleep(30)
        if question == "large":
            return bytes(MAX_ANSWER_BYTES + 1)
        return word + question.encode()

    return Peers(folder, index, 3, answer)


async def test_answers_by_index_and_none_from_the_missing(folder: Path) -> None:
    first, second = peer(folder, 0, b"0 "), peer(folder, 1, b"1 ")
    await first.start()
    await second.start()
    assert await first.ask("hello") == {1: b"1 hello", 2: None}
    assert await second.ask_one(0, "you") == b"0 you"
    for question in ("fail", "hang", "large"):
        assert await first.ask_one(1, question) is None
    assert await first.ask_one(1, "still there") == b"1 still there"
    second.stop()
    assert await first.ask("hello") == {1: None, 2: None}
    # Its successor takes its place.
    third = peer(folder, 1, b"new ")
    await third.start()
    assert (await first.ask("hello"))[1] == b"new hello"
    first.stop()
    third.stop()


async def test_one_that_accepts_nobody_costs_no_more_than_the_bound(folder: Path) -> None:
    deaf = socket.socket(socket.AF_UNIX)
    fd = folder / "1.sock"
    here = Path.cwd()
    os.chdir(folder)
    try:
        deaf.bind("1.sock")
    finally:
        os.chdir(here)
    deaf.listen(0)
    first = peer(folder, 0)
    await first.start()
    answers = await asyncio.gather(*(first.ask_one(1, "x") for _ in range(5)))
    assert answers == [None] * 5
    assert fd.exists()
    first.stop()
    deaf.close()


def test_a_crew_knows_who_is_missing(tmp_path: Path) -> None:
    group = WorkerGroup.make(3, tmp_path / "w")
    assert (group.free_index([]), group.free_index([0, 2]), group.free_index([1])) == (0, 1, 0)
    assert [group.part(index, 5) for index in range(3)] == [2, 2, 1]
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o700
    with pytest.raises(WorkerGroupError, match="1 to 64"):
        WorkerGroup.make(65, tmp_path / "w")
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerGroupError, match="cannot be made"):
        WorkerGroup.make(1, tmp_path / "file")


def test_each_router_has_its_own_folder_and_clears_away_dead_ones(tmp_path: Path) -> None:
    """Routers that release together share a state folder and a name."""
    parent = tmp_path / "w"
    dead, living = WorkerGroup.make(2, parent), WorkerGroup.make(2, parent)
    assert dead.folder is not None
    assert living.folder is not None
    assert dead.lock is not None
    (dead.folder / "0.counts").write_text("of a router before")
    (living.folder / "0.counts").write_text("of a router beside")
    (parent / "starting").mkdir()
    (parent / "abandoned").mkdir()
    os.utime(parent / "abandoned", (1, 1))
    os.close(dead.lock)
    new = WorkerGroup.make(2, parent)
    assert new.folder is not None
    assert {each.name for each in parent.iterdir()} == {living.boot, new.boot, "starting"}
    assert (living.folder / "0.counts").read_text() == "of a router beside"
    assert [each.name for each in new.folder.iterdir()] == ["alive"]


def test_a_router_lives_as_long_as_a_worker_of_it(tmp_path: Path) -> None:
    group = WorkerGroup.make(2, tmp_path / "w")
    assert group.folder is not None
    assert group.lock is not None
    end, hold = os.pipe()
    worker = os.fork()
    if worker == 0:  # What a fork of the arbiter has.
        os.close(hold)
        os.read(end, 1)
        os._exit(0)
    try:
        os.close(end)
        os.close(group.lock)
        WorkerGroup.make(2, tmp_path / "w")
        assert group.folder.exists()
    finally:
        os.close(hold)
        os.waitpid(worker, 0)
    WorkerGroup.make(2, tmp_path / "w")
    assert not group.folder.exists()
