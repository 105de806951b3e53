"""Evidence from real requests in a running data plane: parts of the traffic, and the requests that are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from router.rollout.runner import Runner
from router.routing.plan import AbortWhen, Plan, Step
from tests.router.rig import OK, Conversation, FakeSet, Play, Rig, answering, eventually, running
from tests.router.rollout.test_runner import Release

BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 2\r\n\r\nno"
NO_MEMORY = (
    b"HTTP/1.1 422 Unprocessable\r\nX-Task-Id: b-1\r\nX-Reason: out_of_memory\r\nContent-Length: 2\r\n\r\nno"
)
HALF = Plan("b", (Step(5_000, 300.0),), AbortWhen(min_requests=1_000, p95_over_baseline=None))


def failing_for(image: bytes, answer: bytes) -> Callable[[FakeSet], Play]:
    """A set that answers well, but for one image."""

    def make(fake: FakeSet) -> Play:
        async def play(conversation: Conversation) -> None:
            while True:
                fake.requests.append(await conversation.request())
                failing = b"/v1/run/" + image in fake.requests[-1][0]
                await conversation.send(answer if failing else OK)

        return play

    return make


async def asked(rig: Rig, image: str, users: range) -> None:
    """One request of each of these users for an image."""
    client = await rig.client()
    for number in users:
        await client.send(
            b"POST /v1/run/%b?arg=secret HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\nContent-Length: 0\r\n\r\n"
            % (image.encode(), number)
        )
        await client.answer()


def started(rig: Rig, folder: Path) -> Release:
    release = Release(rig, folder, HALF)
    runner: Runner = release.runner()
    runner.follow(release.file)
    return release


def plays(answer: bytes) -> dict[str, Callable[[FakeSet], Play]]:
    return {"a": answering(OK), "b": failing_for(b"sick:1", answer)}


async def test_a_canary_that_fails_for_one_image_is_taken_back_and_the_image_named(tmp_path: Path) -> None:
    async with running(plays(BROKEN), weights={"a": 100, "b": 0}) as rig:
        release = started(rig, tmp_path)
        runner = release.runners[0]
        await runner.command("start")
        for number in range(20):
            await asked(rig, f"image-{number}:1", range(30 * number, 30 * number + 30))
        await release.turn(2)
        assert runner.status()["phase"] == "holding", runner.status()["reason"]
        await asked(rig, "sick:1", range(1_000, 1_040))
        await release.turn(2)
        status = runner.status()
        assert status["phase"] == "aborted", status["checks"]
        assert status["reason"].startswith("error rate of image 'sick:1', by callers 100.00% against 0.00%")
        assert [each["status"] for each in status["witnesses"]] == ["500"] * 3
        assert {each["request"] for each in status["witnesses"]} == {"POST /v1/run/…"}
        assert {each["image"] for each in status["witnesses"]} == {"sick:1"}
        assert "secret" not in str(status)
        ids = {each["id"].encode() for each in status["witnesses"]}
        failed = {head for head, _ in rig.sets["b"].requests if b"/v1/run/sick:1" in head}
        assert len(ids) == 3
        assert all(any(each in head for head in failed) for each in ids), "those that the set got"
        await runner.stop()


async def test_tasks_without_memory_are_told_apart_from_others(tmp_path: Path) -> None:
    async with running(plays(NO_MEMORY), weights={"a": 100, "b": 0}) as rig:
        release = started(rig, tmp_path)
        runner = release.runners[0]
        await runner.command("start")
        await asked(rig, "sick:1", range(100))
        await runner.turn()
        assert runner.observer.canary.out_of_memory == runner.observer.canary.task_failed > 20
        assert runner.observer.control.out_of_memory == 0
        await runner.stop()


async def test_a_request_that_hangs_is_shown_while_it_does(tmp_path: Path) -> None:
    async def hangs(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.head()

    async with running({"a": lambda _: hangs, "b": lambda _: hangs}, weights={"a": 100, "b": 0}) as rig:
        release = started(rig, tmp_path)
        runner = release.runners[0]
        await runner.command("start")
        clients = [await rig.client() for _ in range(12)]
        for number, client in enumerate(clients):
            await client.send(b"GET /x HTTP/1.1\r\nHost: h\r\nX-User-Id: u%d\r\n\r\n" % number)
        await eventually(lambda: rig.plane.active == len(clients))
        await release.turn(2)
        shown = runner.status()["open"]
        assert shown["canary"]["requests"] + shown["control"]["requests"] == len(clients)
        assert shown["canary"]["requests"] > 0
        await runner.stop()
