"""The access log: one line for each request, sampled and bounded, errors in any case, nothing of a query."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.config.reader import ConfigError, load
from router.dialects.native import NativeDialect
from router.relay.access_log import AccessLog
from router.relay.log_writer import QUEUE_BYTES, LogWriter
from router.routing.log_policy import AccessLogPolicy
from tests.router.rig import OK, Conversation, FakeSet, Play, Rig, answering, eventually, running

FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: 19\r\n\r\n"
    b'{"executed": false}'
)
TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def logged(path: Path, rig: Rig) -> list[dict[str, Any]]:
    """What is written once the log was closed."""
    rig.traffic.log.close()
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def to(path: Path, more: str = "") -> str:
    return f'access_log: {{to: "{path}"{more}}}'


async def test_a_request_that_goes_well(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    async with running({"a": answering()}, more=to(path)) as rig:
        answer = await rig.ask(
            b"POST /v1/run/cat%%22:1?env=SECRET%%3Dx HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer gc_acme_s3cret\r\n"
            b'X-Request-Id: my-"id"\r\ntraceparent: %b\r\nContent-Length: 5\r\n\r\nhello' % TRACE
        )
        assert answer.status == 200
        (line,) = logged(path, rig)
        assert rig.traffic.log.lines == 1
    assert line.pop("time").startswith("20")
    assert line.pop("duration_us") >= line.pop("upstream_us") > 0
    assert line == {
        "request_id": 'my-"id"', "traceparent": TRACE.decode(), "client": "127.0.0.1", "method": "POST",
        "path": "/v1/run/cat%22:1", "account": "acme", "status": 200, "bytes_in": 5, "bytes_out": 2,
        "home": "a", "chosen": "a", "attempts": 1,
    }  # fmt: skip
    assert "SECRET" not in path.read_text()
    assert "s3cret" not in path.read_text()


async def test_a_line_tells_the_task(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    answer = b'HTTP/1.1 200 OK\r\nX-Task-Id: a-01"x\r\nContent-Length: 2\r\n\r\nok'
    async with running({"a": answering(answer)}, more=to(path)) as rig:
        await rig.ask(b"POST /v1/run/cat:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await rig.ask(b"GET /v1/tasks/a-02/stdout HTTP/1.1\r\nHost: h\r\n\r\n")
        await rig.ask(b"GET /v1/tasks/a-%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"x" * 1000))
        tasks = [line["task"] for line in logged(path, rig)]
    assert tasks[:2] == ['a-01"x', "a-02"]
    assert len(tasks[2]) < 100


async def test_long_and_chunked_bodies_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)
    async with running({"a": answering(large)}, more=to(path)) as rig:
        await rig.ask(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000))
        await rig.ask(
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        client = await rig.client()
        await client.send(b"HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 200")
        lines = logged(path, rig)
    assert [line["bytes_in"] for line in lines] == [200_000, 13, 0]
    assert [line["bytes_out"] for line in lines] == [300_000, 300_000, 0]


async def test_a_retry_tells_home_chosen_and_why(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    more = (
        to(path) + '\nrules: [{name: "the \\"rule\\"", when: {path: {prefix: "/x"}}, to: a, if_down: fail}]'
    )
    async with running(
        {"a": answering(FULL), "b": answering()}, weights={"a": 99.99, "b": 0.01}, more=more
    ) as rig:
        assert (await rig.ask(b"GET /y HTTP/1.1\r\nHost: h\r\nX-User-Id: u1\r\n\r\n")).status == 200
        assert (await rig.ask(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")).status == 503
        retried, full = logged(path, rig)
    assert (retried["home"], retried["chosen"], retried["attempts"], retried["reason"]) == (
        "a",
        "b",
        2,
        "back_pressure",
    )
    assert (full["status"], full["rule"], full["chosen"]) == (503, 'the "rule"', "a")


async def test_what_goes_wrong_is_logged_whatever_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def breaking(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            head, _ = await conversation.request()
            if head.startswith(b"GET /cut"):
                await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            elif head.startswith(b"GET /500"):
                await conversation.send(OK.replace(b"200 OK", b"500 Oh"))
            elif head.startswith(b"GET /ok"):
                await conversation.send(OK)
            conversation.close()

        return play

    async with running({"a": breaking}, more=to(path, ", sample: 0%")) as rig:
        for path_ in (b"/cut", b"/500", b"/ok", b"/gone"):
            client = await rig.client()
            await client.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path_)
            if path_ == b"/cut":
                await client.rest()
            else:
                await client.answer()
        assert (await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n")).status == 400
        bad = await rig.client()
        await bad.send(b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        await eventually(lambda: rig.plane.active == 1)
        assert (await bad.ask(b"zz\r\n")).status == 400
        assert (await rig.ask(b"GET /v1/tasks/zz-1 HTTP/1.1\r\nHost: h\r\n\r\n")).status == 404
        lines = logged(path, rig)
        assert rig.traffic.log.sampled_out == 1
    told = [
        (line.get("path"), line["status"], line.get("executed"), line.get("reason", "")) for line in lines
    ]
    assert told[0] == ("/cut", 200, None, "the set's answer broke off")
    assert told[1] == ("/500", 500, None, "")
    assert told[2][:3] == ("/gone", 502, False)
    assert told[3][:3] == (None, 400, False)
    assert "Host header" in told[3][3]
    assert told[4][:3] == ("/b", 400, True)  # Its beginning went out.
    assert told[5][:3] == ("/v1/tasks/zz-1", 404, False)
    assert len(told) == 6


async def test_a_client_that_leaves_and_a_merged_list(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def silent(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            fake.requests.append(await conversation.request())
            await asyncio.sleep(30)

        return play

    async with running({"a": silent}, more=to(path)) as rig:
        client = await rig.client()
        await client.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: bool(rig.sets["a"].requests))
        client.close()
        await eventually(lambda: rig.plane.active == 0)
        (line,) = logged(path, rig)
    assert (line["status"], line["reason"], line["chosen"]) == (0, "the client left", "a")

    page = b'{"tasks": [], "next": null}'
    listing = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(page),
        page,
    )
    async with running({"a": answering(listing)}, more=to(tmp_path / "b.jsonl")) as rig:
        answer = await rig.ask(b"GET /v1/tasks HTTP/1.1\r\nHost: h\r\n\r\n")
        (line,) = logged(tmp_path / "b.jsonl", rig)
    assert (line["path"], line["status"], line["chosen"]) == ("/v1/tasks", 200, "")
    assert line["bytes_out"] == len(answer.body)


@pytest.fixture
async def log() -> AsyncIterator[AccessLog]:
    made = AccessLog(asyncio.get_running_loop(), NativeDialect())
    yield made
    made.close()


async def test_the_sample_and_the_bound_of_errors_are_counted(log: AccessLog, tmp_path: Path) -> None:
    assert log.follow(AccessLogPolicy()) is None
    assert log.follow(AccessLogPolicy(str(tmp_path / "x"), 0.25, 10)) is log
    wanted = sum(log.wants(error=False) for _ in range(4000))
    assert 800 < wanted < 1200
    assert log.sampled_out == 4000 - wanted
    # Ten at once, and ten more each second.
    assert sum(log.wants(error=True) for _ in range(500)) < 20
    assert log.errors_dropped > 480
    assert log.follow(AccessLogPolicy("off")) is None


def test_a_rotated_file_is_followed_and_a_lost_one_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.relay.log_writer.LOOK_EVERY_S", 0.0)
    path = tmp_path / "a"
    writer = LogWriter(str(path))
    writer.put(b"1\n", 1)
    while not path.exists() or not path.stat().st_size:
        os.sched_yield()
    path.rename(tmp_path / "old")
    writer.put(b"2\n", 1)
    writer.close()
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (b"1\n", b"2\n")
    assert writer.lost == 0
    nowhere = LogWriter(str(tmp_path / "none" / "a"))
    nowhere.put(b"1\n2\n", 2)
    nowhere.close()
    assert nowhere.lost == 2


def test_a_place_that_takes_nothing_delays_nobody(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(str(fifo))
    for _ in range(QUEUE_BYTES // 65536 + 20):
        writer.put(bytes(65536), 1)
    assert writer.lost > 0
    os.close(reader)
    writer.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{to: access.log}", "stderr, off or an absolute path"),
        ("{sample: 5%}", "lacks 'to'"),
        ("{to: stderr, sample: 5}", "percentage"),
        ("{to: stderr, samples: 5%}", "did you mean 'sample'"),
        ("{to: stderr, errors_per_s: 0}", "from 1 to"),
    ],
)
def test_mistakes_in_the_file(text: str, told: str) -> None:
    file = f'version: 1\nsets: {{a: {{url: "http://h:1"}}}}\ndefault: {{weights: {{a: 100}}}}\naccess_log: {text}\n'
    with pytest.raises(ConfigError, match=told) as caught:
        load(file.encode())
    assert caught.value.mistakes[0].line == 4


def test_the_file_says_where_and_how_much() -> None:
    file = 'version: 1\nsets: {a: {url: "http://h:1"}}\ndefault: {weights: {a: 100}}\n'
    assert load(file.encode()).table.access_log.to == "off"
    file += "access_log: {to: off, sample: 1%}\n"
    assert load(file.encode()).table.access_log == AccessLogPolicy("off", 0.01, 100)
