"""Lists of all sets as one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

import pytest
from msgspec.structs import replace

from router.dialects import native_lists
from router.dialects.merging import merge_pages
from router.relay import lists
from router.relay.lists import Lists
from router.routing.table import SetState
from tests.router.rig import Conversation, FakeSet, Play, Rig, eventually, free_port, running, table_for


def listing(*times: int) -> Callable[[FakeSet], Play]:
    """A set whose tasks were made at these times; pages as the contract says."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            head, body = await conversation.request()
            fake.requests.append((head, body))
            query = parse_qs(head.split(b" ")[1].decode().partition("?")[2])
            before = query.get("before", [f"{fake.name}-99999"])[0]
            limit = int(query["limit"][0])
            ids = [f"{fake.name}-{time:05d}" for time in sorted(times, reverse=True)]
            below = [task for task in ids if task < before]
            page = {
                "tasks": [{"id": task, "state": "succeeded"} for task in below[:limit]],
                "next": below[limit - 1] if len(below) > limit else None,
            }
            text = json.dumps(page).encode()
            await conversation.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)
                + text
            )

        return play

    return make


def get(target: str, more: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode()


async def test_the_newest_of_all_sets_page_by_page() -> None:
    async with running({"a": listing(*range(0, 100, 2)), "b": listing(*range(1, 60, 2))}) as rig:
        seen: list[str] = []
        target = "/v1/tasks?limit=7&state=succeeded"
        while True:
            page = json.loads((await rig.ask(get(target))).body)
            assert page["sets"] == ["a", "b"]
            assert page["partial"] is False
            seen += [task["id"] for task in page["tasks"]]
            if page["next"] is None:
                break
            target = f"/v1/tasks?limit=7&state=succeeded&before={page['next']}"
        times = [int(task.partition("-")[2]) for task in seen]
        assert times == sorted(times, reverse=True)
        assert sorted(times) == sorted([*range(0, 100, 2), *range(1, 60, 2)])
        assert b"state=succeeded" in rig.sets["b"].requests[0][0]


async def test_the_account_is_passed_on() -> None:
    async with running({"a": listing(1)}) as rig:
        await rig.ask(get("/v1/tasks", "X-Account: acme\r\nAuthorization: Bearer gc_acme_x\r\n"))
        head = rig.sets["a"].requests[0][0]
        assert b"X-Account: acme\r\n" in head
        assert b"Authorization: Bearer gc_acme_x\r\n" in head


async def test_a_dead_set_makes_it_partial_and_all_dead_a_problem() -> None:
    async with running({"a": listing(1, 2)}) as rig:
        rig.traffic.adopt(table_for({"a": rig.sets["a"].port, "dead": free_port()}))
        page = json.loads((await rig.ask(get("/v1/tasks"))).body)
        assert (page["sets"], page["partial"], len(page["tasks"])) == (["a"], True, 2)
        rig.traffic.adopt(table_for({"dead": free_port()}))
        answer = await rig.ask(get("/v1/tasks"))
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-no-set-answers")


def saying(status: int, body: bytes, lines: bytes = b"") -> Callable[[FakeSet], Play]:
    """A set that answers every request so."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            fake.requests.append(await conversation.request())
            await conversation.send(
                b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)
            )

        return play

    return make


def silent(fake: FakeSet) -> Play:
    """A set that takes a request and never answers."""

    async def play(conversation: Conversation) -> None:
        fake.requests.append(await conversation.request())
        await conversation.head()  # The end of the connection.

    return play


def large(size: int) -> Callable[[FakeSet], Play]:
    """A set with one task of so many bytes."""

    def make(fake: FakeSet) -> Play:
        task = {"id": f"{fake.name}-1", "stdout_head": "x" * size}
        return saying(200, json.dumps({"tasks": [task], "next": None}).encode())(fake)

    return make


async def page_of(rig: Rig, target: str = "/v1/tasks") -> dict[str, Any]:
    answer = await rig.ask(get(target))
    assert answer.status == 200, answer.body
    return dict(json.loads(answer.body))


async def test_a_refusal_by_all_is_the_answer() -> None:
    refusal = b'{"status": 401}'
    refusing = saying(401, refusal, b"WWW-Authenticate: Bearer\r\n")
    async with running({"c": saying(404, b"{}"), "a": refusing, "b": refusing}) as rig:
        answer = await rig.ask(get("/v1/tasks"))
        assert (answer.status, answer.body, answer.headers["x-set"]) == (401, refusal, "a")
        assert answer.headers["www-authenticate"] == "Bearer"
    async with running({"a": saying(429, b"{}", b"Retry-After: 7\r\n"), "b": saying(500, b"{}")}) as rig:
        answer = await rig.ask(get("/v1/tasks"))
        assert (answer.status, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("play", "reason"),
    [
        (saying(200, b"[1, 2]"), "could not be read: Expected `object`, got `array`"),
        (saying(200, b"nope"), "could not be read"),
        (saying(200, b'{"tasks": [{"id": 5}]}'), "could not be read"),
        (saying(429, b"{}"), "answered 429"),
        (saying(404, b"{}"), "answered 404"),
        (saying(500, b"{}"), "answered 500"),
        (saying(204, b""), "answered 204"),
    ],
)
async def test_what_one_set_says_does_not_spoil_the_list(
    play: Callable[[FakeSet], Play], reason: str
) -> None:
    async with running({"a": listing(1, 2), "b": play}) as rig:
        page = await page_of(rig)
        assert [task["id"] for task in page["tasks"]] == ["a-00002", "a-00001"]
        assert (page["sets"], page["partial"]) == (["a"], True)
        assert reason in page["missing"]["b"]


async def test_nonsense_alone_is_told_with_the_sets_name() -> None:
    async with running({"a": saying(200, b"nope")}) as rig:
        problem = (await rig.ask(get("/v1/tasks"))).problem
        assert problem["type"].endswith("router-list-unreadable")
        assert "set 'a'" in problem["detail"]


async def test_a_set_known_to_be_down_is_left_out_at_once() -> None:
    async with running({"a": listing(1), "b": listing(2)}) as rig:
        board = rig.traffic.board
        for _ in range(board.policy.fall):
            board.probe_failed("b", 0.0)
        page = await page_of(rig)
        assert (page["sets"], page["partial"]) == (["a"], True)
        assert "health" in page["missing"]["b"]
        assert rig.sets["b"].requests == []
        for _ in range(board.policy.fall):
            board.probe_failed("a", 0.0)
        # Nobody is left to ask but those that are down: one may just have come back.
        assert (await page_of(rig))["sets"] == ["a", "b"]


async def test_a_set_in_maintenance_is_named() -> None:
    async with running({"a": listing(1), "b": listing(2)}) as rig:
        ports = {name: fake.port for name, fake in rig.sets.items()}
        table = table_for(ports)
        away = replace(table.sets["b"], state=SetState.MAINT)
        rig.traffic.adopt(replace(table, sets={**table.sets, "b": away}))
        assert (await page_of(rig))["missing"] == {"b": "it is in maintenance"}


async def test_who_is_silent_is_not_waited_for_once_another_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ASK_TIMEOUT_S", 1000.0)
    monkeypatch.setattr(lists, "PATIENCE_S", 0.05)
    async with running({"a": silent, "b": listing(1)}) as rig:
        page = await page_of(rig)
        assert (page["sets"], page["partial"]) == (["b"], True)
        assert "no whole answer" in page["missing"]["a"]


async def test_all_silent_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ASK_TIMEOUT_S", 0.05)
    async with running({"a": silent, "b": silent}) as rig:
        problem = (await rig.ask(get("/v1/tasks"))).problem
        assert problem["type"].endswith("router-no-set-answers")
        assert "set 'b'" in problem["detail"]


async def test_lists_are_bounded_in_number() -> None:
    shared = Lists(at_once=2)
    async with running({"a": silent}, lists=shared) as rig:
        waiting = [await rig.client() for _ in range(2)]
        for client in waiting:
            await client.send(get("/v1/tasks"))
        await eventually(lambda: len(rig.sets["a"].requests) == 2)
        answer = await rig.ask(get("/v1/tasks"))
        assert answer.problem["type"].endswith("router-lists-busy")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        # A client that leaves makes room.
        waiting[0].close()
        await eventually(lambda: len(shared.running) == 1)
        waiting[0] = await rig.client()
        await waiting[0].send(get("/v1/tasks"))
        await eventually(lambda: len(rig.sets["a"].requests) == 3)
        # One that left before its list's task ran gives its place back, too.
        waiting[1].close()
        await eventually(lambda: len(shared.running) == 1)


async def test_one_list_is_bounded_in_bytes() -> None:
    shared = Lists(list_bytes=200_000)
    async with running({"a": listing(1), "b": large(300_000)}, lists=shared) as rig:
        page = await page_of(rig)
        assert (page["sets"], page["partial"]) == (["a"], True)
        assert "too large" in page["missing"]["b"]
        assert shared.held == 0


async def test_all_lists_are_bounded_in_bytes_until_clients_have_them() -> None:
    size = 8_000_000  # More than the kernel buffers.
    shared = Lists(held_bytes=size + size // 2)
    async with running({"a": large(size)}, lists=shared) as rig:
        slow = await rig.client()
        await slow.send(get("/v1/tasks"))
        await eventually(lambda: shared.held > size)
        answer = await rig.ask(get("/v1/tasks"))
        assert answer.problem["type"].endswith("router-lists-busy")
        assert len((await slow.answer()).body) > size
        await eventually(lambda: (shared.held, len(shared.running)) == (0, 0))
        # One that leaves in the middle of its answer gives back what it held.
        gone = await rig.client()
        await gone.send(get("/v1/tasks"))
        await eventually(lambda: shared.held > size)
        gone.close()
        await eventually(lambda: (shared.held, len(shared.running)) == (0, 0))
        assert len((await rig.ask(get("/v1/tasks"))).body) > size


async def test_large_lists_are_merged_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def noting(kind: str, bodies: Mapping[str, bytes], missing: Mapping[str, str], limit: int) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return merge_pages(kind, bodies, missing, limit)

    monkeypatch.setattr(native_lists, "merge_pages", noting)
    async with running({"a": large(10), "b": large(100_000)}) as rig:
        assert len((await page_of(rig))["tasks"]) == 2
        rig.traffic.adopt(table_for({"a": rig.sets["a"].port}))
        assert len((await page_of(rig))["tasks"]) == 1
    assert threads == [False, True]


async def test_a_client_that_leaves_while_its_list_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(kind: str, bodies: Mapping[str, bytes], missing: Mapping[str, str], limit: int) -> bytes:
        begun.set()
        assert go_on.wait(20)
        return merge_pages(kind, bodies, missing, limit)

    monkeypatch.setattr(native_lists, "merge_pages", slowly)
    shared = Lists()
    async with running({"a": large(100_000)}, lists=shared) as rig:
        client = await rig.client()
        await client.send(get("/v1/tasks"))
        await eventually(begun.is_set)
        client.close()
        await eventually(lambda: not rig.plane.clients)
        assert shared.held > 100_000  # The thread has them still.
        go_on.set()
        await eventually(lambda: (shared.held, len(shared.running)) == (0, 0))
        assert (await rig.ask(get("/v1/tasks"))).status == 200


async def test_a_query_comes_to_the_sets_as_it_was() -> None:
    async with running({"a": listing(1)}) as rig:
        await page_of(rig, "/v1/tasks?name=%C3%A9%E6%97%A5%FF&limit=3")
        line = rig.sets["a"].requests[0][0].split(b" ")[1]
        assert unquote_to_bytes(line) == b"/v1/tasks?name=\xc3\xa9\xe6\x97\xa5\xff&limit=3"
        many = "&".join(f"x{number}=1" for number in range(101))
        answer = await rig.ask(get(f"/v1/tasks?{many}"))
        assert (answer.status, answer.problem["type"].rpartition("/")[2]) == (400, "router-bad-query")


@pytest.mark.parametrize("limit", ["0", "1001", "ten", ""])
async def test_a_limit_that_is_none_is_for_the_sets_to_refuse(limit: str) -> None:
    async with running({"a": saying(400, b'{"status": 400}')}) as rig:
        assert (await rig.ask(get(f"/v1/tasks?limit={limit}"))).status == 400
        assert f"limit={limit} ".encode() in rig.sets["a"].requests[0][0]


async def test_head_tells_the_length_alone() -> None:
    async with running({"a": listing(1)}) as rig:
        client = await rig.client()
        await client.send(get("/v1/tasks").replace(b"GET", b"HEAD", 1) + get("/v1/tasks"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        answer = await client.answer()
        assert f"Content-Length: {len(answer.body)}\r\n".encode() in head


async def test_lists_share_a_connection_with_other_requests() -> None:
    async with running({"a": listing(1)}) as rig:
        client = await rig.client()
        await client.send(get("/v1/tasks") + get("/v1/tasks/zz-1") + get("/v1/tasks?limit=1"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]
