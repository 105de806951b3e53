"""Lists of all sets as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from hypothesis import given
from hypothesis import strategies as st

from router.lists import cursor_for, merge_tasks, merge_usage
from tests.router.rig import Conversation, FakeSet, Play, free_port, running, table_for


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
        rig.plane.adopt(table_for({"a": rig.sets["a"].port, "dead": free_port()}))
        page = json.loads((await rig.ask(get("/v1/tasks"))).body)
        assert (page["sets"], page["partial"], len(page["tasks"])) == (["a"], True, 2)
        rig.plane.adopt(table_for({"dead": free_port()}))
        answer = await rig.ask(get("/v1/tasks"))
        assert answer.status == 503
        assert answer.problem["type"].endswith("router-no-set-answers")


async def test_a_refusal_of_the_request_itself_is_the_answer() -> None:
    refusal = b'{"status": 401}'

    def refusing(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.send(
                b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n"
                % len(refusal)
                + refusal
            )

        return play

    async with running({"a": refusing, "b": refusing}) as rig:
        answer = await rig.ask(get("/v1/tasks"))
        assert (answer.status, answer.body, answer.headers["x-set"]) == (401, refusal, "a")


async def test_a_set_that_answers_nonsense_is_told() -> None:
    def nonsense(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            await conversation.request()
            await conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope")

        return play

    async with running({"a": nonsense}) as rig:
        assert (await rig.ask(get("/v1/tasks"))).problem["type"].endswith("router-list-unreadable")


async def test_lists_share_a_connection_with_other_requests() -> None:
    async with running({"a": listing(1)}) as rig:
        client = await rig.client()
        await client.send(get("/v1/tasks") + get("/v1/tasks/zz-1") + get("/v1/tasks?limit=1"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]


IDS = st.sets(st.integers(0, 10_000), max_size=30)


@given(st.lists(IDS, min_size=1, max_size=4), st.integers(1, 20))
def test_merging_keeps_order_and_loses_nothing(sets: list[set[int]], limit: int) -> None:
    bodies = []
    everything = []
    for number, times in enumerate(sets):
        ids = [f"s{number}-{time:05d}" for time in sorted(times, reverse=True)]
        everything += ids
        bodies.append(
            json.dumps(
                {
                    "tasks": [{"id": task} for task in ids[:limit]],
                    "next": ids[limit - 1] if ids[limit:] else None,
                }
            ).encode()
        )
    page = json.loads(merge_tasks(bodies, ["x"], False, limit))
    newest = sorted(everything, key=lambda task: (task.partition("-")[2], task), reverse=True)
    assert [task["id"] for task in page["tasks"]] == newest[:limit]
    assert (page["next"] is None) == (len(newest) <= limit)


def test_cursors() -> None:
    assert cursor_for("b", "a-0123") == "b-0123"
    assert cursor_for("b", "garbage") == "garbage"


def test_usage_rows_of_the_same_texts_are_added() -> None:
    def usage(*rows: dict[str, Any], **more: Any) -> bytes:
        return json.dumps({"usage": rows, **more}).encode()

    merged = json.loads(
        merge_usage(
            [
                usage({"day": "1", "image": "x", "tasks": 2, "cpu_us": 10, "amount": "0.10"}, total=1),
                usage(
                    {"day": "1", "image": "x", "tasks": 3, "cpu_us": 5, "amount": "0.05"},
                    {"day": "2", "image": "x", "tasks": 1, "cpu_us": 1, "amount": "0.01"},
                    total=2,
                ),
            ],
            ["a", "b"],
            False,
        )
    )
    assert merged["usage"] == [
        {"day": "1", "image": "x", "tasks": 5, "cpu_us": 15, "amount": "0.15"},
        {"day": "2", "image": "x", "tasks": 1, "cpu_us": 1, "amount": "0.01"},
    ]
    assert (merged["total"], merged["sets"], merged["partial"]) == (3, ["a", "b"], False)
