"""Programs that open their standard files by name: /dev/stdin and its kin work however the input comes."""

from __future__ import annotations

import os
import time

import pytest

from tests.sets.api.conftest import Api, Tools

pytestmark = pytest.mark.docker

SIZES = (0, 61_440, 61_441, 10_000_000)
"""Nothing; the most that comes inline; the least that does not; more than all pipes hold."""


@pytest.fixture(params=["0", "65534", "worker"], ids=["root", "nobody", "named"])
def image(tools: Tools, request: pytest.FixtureRequest) -> str:
    """An image of each USER, whose log is a link to its standard output, as nginx's is."""
    return tools.make('ENTRYPOINT ["/tool"]', f"USER {request.param}", log="/dev/stdout")


@pytest.mark.parametrize("size", SIZES)
def test_a_body_of_known_length(api: Api, image: str, size: int) -> None:
    body = os.urandom(size)
    assert api.run("cat", image=image, body=body).content == body
    for stream in (0, 1):
        answer = api.run("reopen", image=image, body=body, stream=stream)
        assert (answer.status_code, answer.content == body) == (200, True), answer.text[:1000]
        assert api.task(answer.headers["X-Task-Id"])["stderr_bytes"] == len(str(size))


def test_a_body_whose_chunks_come_late(api: Api, image: str) -> None:
    with api.wire() as wire:
        wire.post(api.target("reopen", image=image), "Transfer-Encoding: chunked")
        for byte in "ab":
            time.sleep(0.2)
            wire.send(f"1\r\n{byte}\r\n")
        wire.send("0\r\n\r\n")
        answer = wire.answer()
    assert (answer.status, answer.body) == (200, b"ab")


@pytest.mark.parametrize("size", SIZES)
def test_a_program_that_waited_for_its_input(api: Api, image: str, size: int) -> None:
    body = os.urandom(size)
    for _ in range(3):
        answer = api.run("reopen", image=image, body=body, prestart=1)
        assert (answer.status_code, answer.content == body) == (200, True), answer.text[:1000]


@pytest.mark.parametrize("size", SIZES)
def test_an_async_task(api: Api, image: str, size: int) -> None:
    body = os.urandom(size)
    task = api.submit("reopen", image=image, body=body)
    assert api.task(task["id"], wait=30)["state"] == "succeeded"
    assert api.http.get(f"/v1/tasks/{task['id']}/stdout").content == body
    assert api.http.get(f"/v1/tasks/{task['id']}/stderr").content == str(size).encode()
