"""The soak: clients that forgive nothing, fake sets that behave, an operator's changes spread evenly."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ops.bench.client import KeepAlive, request_bytes
from ops.bench.stack import BenchFailed
from ops.bench_router.server import Server
from ops.bench_router.soak import Clients, planned, write_config
from ops.bench_router.soakload import Client, Tally
from ops.bench_router.soaksets import SoakSet, _fake
from ops.setup.engine import ROOT
from router.config.reader import load
from tests.ports import free_port

PATH = "/v1/run/cat:1"


def fake(folder: Path, name: str = "a") -> SoakSet:
    return _fake(name, folder)


def run(label: str, *headers: str) -> bytes:
    return request_bytes(f"{PATH}?name={label}", b"x" * 20, *headers)


def test_a_fake_set_runs_tasks(tmp_path: Path) -> None:
    one = fake(tmp_path)
    with one.server:
        connection = KeepAlive(one.server.port)
        assert connection.ask(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")[0] == 200
        assert connection.ask(run("n1")) == (200, b"x" * 20)
        status, body = connection.ask(run("n2", "Prefer: respond-async"))
        assert status == 202
        assert json.loads(body)["id"].startswith("a-")
        connection.close()
    assert one.labels() == {"n2": 1}


def test_a_fake_set_knows_its_idempotency_keys_after_a_restart(tmp_path: Path) -> None:
    one = fake(tmp_path)
    asked = run("n1", "Prefer: respond-async", "Idempotency-Key: k")
    ids = set()
    for _ in range(2):
        with one.server:
            for _ in range(2):
                connection = KeepAlive(one.server.port)
                ids.add(json.loads(connection.ask(asked)[1])["id"])
                connection.close()
    assert len(ids) == 1
    assert one.labels() == {"n1": 1}


def test_a_fake_set_says_which_idempotency_keys_it_knows(tmp_path: Path) -> None:
    one = fake(tmp_path)
    with one.server:
        connection = KeepAlive(one.server.port)
        asked = b"GET /v1/idempotency HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\n\r\n"
        assert connection.ask(asked)[0] == 404
        connection.ask(run("n1", "Prefer: respond-async", "Idempotency-Key: k"))
        assert connection.ask(asked)[0] == 200
        connection.close()


def test_without_a_key_a_repetition_is_another_task(tmp_path: Path) -> None:
    one = fake(tmp_path)
    with one.server:
        connection = KeepAlive(one.server.port)
        for _ in range(2):
            connection.ask(run("n1", "Prefer: respond-async"))
        connection.close()
    assert one.labels() == {"n1": 2}


def test_a_fake_set_that_ends_says_that_nothing_ran(tmp_path: Path) -> None:
    one = fake(tmp_path)
    with one.server:
        connection = KeepAlive(one.server.port)
        connection.ask(run("n1"))
        assert one.server._process is not None
        one.server._process.terminate()
        while (answer := connection.ask(run("n2")))[0] == 200:
            connection.close()
            connection = KeepAlive(one.server.port)
        assert answer[0] == 503
        assert json.loads(answer[1])["executed"] is False
        connection.close()


async def seen(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Tally:
    """What a client counts of ten requests at a server that does this with each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tally = Tally(10, PATH)
    tally.told_to_end = True
    await Client(server.sockets[0].getsockname()[1], tally).run()
    server.close()
    return tally


async def test_good_answers_are_counted_by_kind() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"POST"):
                await reader.readexactly(200)
            status = b"202 Accepted" if b"respond-async" in head else b"200 OK"
            writer.write(
                b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
            )

    tally = await seen(answer)
    assert not tally.failed
    assert tally.answered["sync"] == 1
    assert tally.answered["async"] == 1
    assert tally.answered["get"] == 8


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "closed before an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed within an answer's head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "closed within an answer's body"),
        (b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n", "answered 503"),
        (b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n", "answered 201"),
    ],
)
async def test_whatever_is_no_whole_good_answer_has_failed(sent: bytes, words: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)

    tally = await seen(answer)
    assert not tally.answered
    assert f"get: {words}" in tally.failed
    assert any(words in sample for sample in tally.samples)


async def test_a_connection_that_closes_between_requests_is_no_failure() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            await reader.readexactly(200)
        status = b"202" if b"respond-async" in head else b"200"
        writer.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    tally = await seen(answer)
    assert not tally.failed
    assert tally.closed_idle >= 10


async def test_a_refused_connection_has_failed() -> None:
    tally = Tally(1, PATH)
    tally.told_to_end = True
    await Client(free_port(), tally).run()
    assert tally.failed.total() == 1
    assert not tally.answered


def test_async_runs_have_names_of_their_own_and_half_have_keys() -> None:
    tally = Tally(1, PATH)
    made = [
        request for _, (kind, request) in zip(range(400), tally.requests(), strict=False) if kind == "async"
    ]
    assert len({request.split(b"name=")[1].split()[0] for request in made}) == 40
    assert sum(b"Idempotency-Key" in request for request in made) == 20


def test_every_kind_of_change_is_spread_over_the_requests() -> None:
    plan = planned({"reload": 4, "set": 2, "worker": 1})
    assert plan == sorted(plan)
    assert [due for due, kind in plan if kind == "reload"] == [0.125, 0.375, 0.625, 0.875]
    assert [due for due, kind in plan if kind == "set"] == [0.25, 0.75]


def test_each_version_of_the_routers_file_is_valid_and_another(tmp_path: Path) -> None:
    sets = [fake(tmp_path, name) for name in ("a", "b")]
    path = tmp_path / "router.yaml"
    seen_shares = set()
    for version in range(1, 60):
        write_config(path, version, sets)
        table = load(path.read_bytes()).table
        assert table.version == version
        seen_shares.add(table.default.shares["a"])
    assert len(seen_shares) > 30


def test_the_load_ends_once_told_and_done(tmp_path: Path) -> None:
    one = fake(tmp_path)
    with one.server, Clients(one.server.port, 300, PATH) as clients:
        clients.end(30)
        assert clients.seen.ended
        assert clients.seen.failed == {}
        assert clients.seen.requests >= 300
    assert sum(one.labels().values()) == clients.seen.answered["async"]


def test_a_server_that_does_not_start_tells_why(tmp_path: Path) -> None:
    server = Server("x", [sys.executable, "-c", "raise SystemExit('no room')"], ROOT, 1, log_folder=tmp_path)
    with pytest.raises(BenchFailed, match="x did not start:\nno room"):
        server.start()
