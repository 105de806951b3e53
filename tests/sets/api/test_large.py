"""Bodies of any size in bounded memory, and programs that do not take or end what they are given."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.sets.api.conftest import Api, high_water_mib, mark, running, until

pytestmark = pytest.mark.docker

MIB = 1 << 20
GIB = 1 << 30
MEMORY_MIB = 150
HUGE_BYTES = 5 * GIB


@pytest.fixture
def bounded(own_api: Api) -> Iterator[Api]:
    """A set whose memory stays bounded."""
    yield own_api
    assert high_water_mib(own_api.process.worker_pid()) < MEMORY_MIB


def pieces(size_bytes: int) -> Iterator[bytes]:
    piece = bytes(MIB)
    for _ in range(size_bytes // MIB):
        yield piece


def test_a_huge_body_is_streamed(bounded: Api) -> None:
    with bounded.wire() as wire:
        wire.post(bounded.target("sink"), f"Content-Length: {HUGE_BYTES}")
        wire.send(*pieces(HUGE_BYTES))
        answer = wire.answer()
    assert answer.body == str(HUGE_BYTES).encode()
    assert bounded.task(answer.headers["X-Task-Id"])["stdin_bytes"] == HUGE_BYTES


def test_a_huge_answer_is_streamed(bounded: Api) -> None:
    with bounded.wire() as wire:
        wire.post(bounded.target("print", str(GIB)), "Content-Length: 0")
        answer = wire.begun()
        size = 0
        while got := answer.read(MIB):
            size += len(got)
    assert size == GIB
    task = bounded.task(answer.headers["X-Task-Id"])
    assert (task["state"], task["stdout_bytes"]) == ("succeeded", GIB)


def test_both_ways_at_once(bounded: Api) -> None:
    """More than all buffers on the way hold, so that neither side can wait for the other to end."""
    size = 256 * MIB
    body = os.urandom(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with bounded.wire() as wire:
        wire.post(bounded.target("cat"), f"Content-Length: {size}")

        def send() -> None:
            for _ in range(size // MIB):
                sent.update(body)
                wire.send(body)

        sender = threading.Thread(target=send)
        sender.start()
        answer = wire.begun()
        while got := answer.read(MIB):
            received.update(got)
        sender.join()
    assert received.digest() == sent.digest()


def test_a_huge_asynchronous_task(bounded: Api) -> None:
    size = 200 * MIB
    task = bounded.submit("cat", body=pieces(size))
    assert task["stdin_bytes"] == size
    ended = bounded.task(task["id"], wait=60)
    assert (ended["state"], ended["stdout_bytes"]) == ("succeeded", size)
    with bounded.http.stream("GET", f"/v1/tasks/{task['id']}/stdout") as answer:
        assert sum(len(got) for got in answer.iter_raw()) == size


def test_output_for_a_reader_that_stops(bounded: Api) -> None:
    word = mark()
    with bounded.wire() as wire:
        wire.post(bounded.target("print", str(GIB), "say", word, timeout_s=1.5), "Content-Length: 0")
        answer = wire.begun()
        until(lambda: running(word) == [], "the time-out frees the slot although nobody reads")
        assert bounded.run("say", "next").content == b"next\n"
        # What the pipe and the connection still hold may be read; then it breaks off.
        assert len(wire.received()) < 16 * MIB
    assert bounded.task(answer.headers["X-Task-Id"])["state"] == "timed_out"


def test_a_program_that_ends_without_reading_a_large_body(bounded: Api) -> None:
    with bounded.wire() as wire:
        wire.post(bounded.target("take", "10", "say", "enough"), f"Content-Length: {100 * MIB}")
        failure: list[OSError] = []

        def send() -> None:
            try:
                wire.send(*pieces(100 * MIB))
            except OSError as error:
                failure.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        # The answer comes although the body is still being sent.
        answer = wire.answer()
        sender.join()
    assert (answer.status, answer.body) == (200, b"enough\n")


def test_many_at_once(bounded: Api) -> None:
    """More connections than slots: each waits its turn, and no body is gathered meanwhile."""
    names = [mark() for _ in range(16)]
    failures: list[BaseException] = []

    def one(name: str) -> None:
        try:
            with bounded.wire() as wire:
                wire.post(
                    bounded.target("sink", name=name, queue_timeout_s=60), f"Content-Length: {20 * MIB}"
                )
                wire.send(*pieces(20 * MIB))
                assert wire.answer().body == str(20 * MIB).encode()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def held(pid: int) -> dict[str, int]:
    """How many pipes, stored bodies and sockets a process holds open."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            links.append(str(path.readlink()))
    kinds = {"pipes": "pipe:", "bodies": "/blobs/", "sockets": "socket:"}
    return {kind: sum(sign in link for link in links) for kind, sign in kinds.items()}


def test_descriptors_are_given_back(bounded: Api) -> None:
    task = bounded.submit("cat", body=b"x" * MIB)
    bounded.task(task["id"], wait=20)
    before = held(bounded.process.worker_pid())
    for _ in range(10):
        assert bounded.run("cat", body=b"x" * MIB).status_code == 200
        assert bounded.run("take", "1", "exit", "1", body=b"x" * MIB).status_code == 422
        with bounded.wire() as wire:
            wire.post(bounded.target("print", "10000000"), "Content-Length: 0")
            wire.begun()
        assert bounded.http.get(f"/v1/tasks/{task['id']}/stdout").status_code == 200
        with bounded.wire() as wire:
            wire.send(f"GET /v1/tasks/{task['id']}/stdout HTTP/1.1\r\nHost: x\r\n\r\n")
            wire.vanish()

    def given_back() -> bool:
        now = held(bounded.process.worker_pid())
        # A slot more has sockets of its own, and so have the threads that start it.
        few = now["sockets"] < before["sockets"] + 10
        return few and (now["pipes"], now["bodies"]) == (before["pipes"], before["bodies"])

    until(given_back, "the descriptors are closed")
