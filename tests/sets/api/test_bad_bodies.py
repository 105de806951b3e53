"""Bodies and heads that no careful client sends: each a clear answer, other tasks unharmed."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from tests.sets.api.conftest import Api, mark, problem, running, until
from tests.sets.api.wire import chunked, head

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def others_are_unharmed(api: Api) -> object:
    yield
    assert api.run("cat", body=b"still here").content == b"still here"


# -- bodies


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_body_that_is_shorter_than_its_length(api: Api, length: int) -> None:
    word = mark()
    with api.wire() as wire:
        wire.post(api.target("cat", "say", word, name=word), f"Content-Length: {length}")
        wire.send("short")
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer().problem(400, "bad-request")["executed"] is True
    until(lambda: running(word) == [], "the program is gone")
    assert [task for task in api.tasks(name=word) if task["state"] != "cancelled"] == []


def test_bodies_that_stall(api: Api) -> None:
    word = mark()
    asynchronous = "Prefer: respond-async"
    # Where a program has read a part, the request may not be sent elsewhere as if nothing had happened.
    cases = {
        ("Content-Length: 10",): ("short", False),
        ("Content-Length: 10", asynchronous): ("short", False),
        ("Content-Length: 100000",): ("short", True),
        ("Content-Length: 100000", asynchronous): ("short", False),
        ("Transfer-Encoding: chunked",): ("5\r\nshort\r\n", True),
        ("Transfer-Encoding: chunked", asynchronous): ("5\r\nshort\r\n", False),
        ("transfer-encoding: chunked",): ("5\r\nsho", True),
    }
    with ExitStack() as stack:
        wires = [stack.enter_context(api.wire()) for _ in cases]
        begun = stack.enter_context(api.wire())
        begun.post(
            api.target("take", "5", "say", "begun", "cat", "say", word, stream=1), "Content-Length: 100000"
        )
        begun.send("short")
        for wire, (headers, (body, _)) in zip(wires, cases.items(), strict=True):
            # At a tenth of a core each they find a slot all at once.
            wire.post(api.target("cat", "say", word, cpu=0.1), *headers)
            wire.send(body)
        for wire, (headers, (_, executed)) in zip(wires, cases.items(), strict=True):
            assert wire.answer().problem(408, "body-stalled")["executed"] is executed, headers
        answer = begun.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"begun\n", False)
    until(lambda: running(word) == [], "the programs are gone")
    assert api.task(answer.headers["X-Task-Id"])["state"] == "cancelled"


def test_what_follows_a_body_is_not_part_of_it(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("cat"), "Content-Length: 4")
        wire.send("bodyand more that is no request\r\n\r\n")
        assert wire.answer().body == b"body"
        wire.answer().problem(400, "bad-request")
        assert wire.received() == b""


def test_requests_on_one_connection(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("cat"), "Content-Length: 3")
        wire.send(
            "one", head("POST", api.target("cat"), "Transfer-Encoding: chunked"), chunked([b"tw", b"o"])
        )
        assert wire.answer().body == b"one"
        assert wire.answer().body == b"two"


BAD_CHUNKS = ["zz\r\nxx\r\n", "3\r\nabcd\r\n", "-1\r\n", "0x5\r\n"]


@pytest.mark.parametrize("bad", BAD_CHUNKS)
def test_a_bad_chunk(api: Api, bad: str) -> None:
    word = mark()
    with api.wire() as wire:
        wire.post(api.target("cat", "say", word, name=word), "Transfer-Encoding: chunked")
        wire.send("5\r\nfirst\r\n")
        until(lambda: running(word) != [], "the program runs")
        wire.send(bad)
        assert wire.answer().problem(400, "bad-request")["executed"] is True
    until(lambda: running(word) == [], "the program is gone")
    assert [task for task in api.tasks(name=word) if task["state"] != "cancelled"] == []


@pytest.mark.parametrize("bad", BAD_CHUNKS)
@pytest.mark.parametrize("headers", [(), ("Prefer: respond-async",)])
def test_a_chunk_that_is_bad_from_the_beginning(api: Api, bad: str, headers: tuple[str, ...]) -> None:
    word = mark()
    with api.wire() as wire:
        target = api.target("cat", "say", word, name=word)
        wire.send(head("POST", target, "Transfer-Encoding: chunked", *headers) + "5\r\nfirst\r\n" + bad)
        assert wire.answer().problem(400, "bad-request")["executed"] is False
    assert api.tasks(name=word) == []


def test_a_bad_chunk_after_the_answer_began(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("take", "5", "say", "begun", "cat", stream=1), "Transfer-Encoding: chunked")
        wire.send("5\r\nfirst\r\n")
        answer = wire.begun()
        assert answer.read(6) == b"begun\n"
        wire.send("zz\r\n")

        # No second head, no problem's text, no last chunk: after the line end of the chunk only the connection's end.
        assert wire.received() == b"\r\n"


def test_an_input_over_the_limit(start_limited: Api) -> None:
    api = start_limited
    mib = 1 << 20
    for headers in ((), ("Prefer: respond-async",)):
        with api.wire() as wire:
            wire.post(api.target("sink"), f"Content-Length: {mib + 1}", "Expect: 100-continue", *headers)
            found = wire.answer().problem(413, "input-too-large")
            assert (found["executed"], str(mib) in found["detail"]) == (False, True)
        answer = api.run("sink", body=iter([b"x" * mib, b"y"]), headers=dict(h.split(": ") for h in headers))
        assert problem(answer, 413, "input-too-large")["executed"] is (not headers)
    assert api.run("sink", body=b"x" * mib).content == str(mib).encode()


@pytest.fixture
def start_limited(start_api: object) -> Api:
    return start_api("max_input_mib: 1\n")  # type: ignore[operator,no-any-return]


# -- Expect


def test_a_body_is_asked_for_when_it_is_wanted(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("cat"), "Content-Length: 4", "Expect: 100-continue")
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send("body")
        assert wire.answer().body == b"body"


@pytest.mark.parametrize("headers", [(), ("Prefer: respond-async",)])
def test_an_early_refusal_asks_for_no_body(api: Api, headers: tuple[str, ...]) -> None:
    for target, status, name in (
        (api.target("x", image="no-such-image:1"), 404, "image-unknown"),
        (api.target("x", cpu=0), 400, "bad-parameter"),
        (api.target("x", cpu=3), 400, "bad-parameter"),
    ):
        with api.wire() as wire:
            wire.post(target, "Content-Length: 1000000", "Expect: 100-continue", *headers)
            wire.answer().problem(status, name)


def test_a_refusal_is_read_also_by_who_sends_on(api: Api) -> None:
    """A connection that is closed while input is unread is reset, and the reset overtakes the answer."""
    for _ in range(10):
        with api.wire() as wire:
            wire.post(api.target("x", image="no-such-image:1"), "Content-Length: 3000000")
            wire.send(b"z" * 3_000_000)
            time.sleep(0.02)
            wire.answer().problem(404, "image-unknown")


def test_an_early_answer_says_that_the_connection_ends(api: Api) -> None:
    for _ in range(5):
        # A client that keeps connections would send its next request where nobody listens any more.
        answer = api.run("take", "1", "say", "enough", body=b"z" * 1_000_000)
        assert answer.content == b"enough\n"
    with api.wire() as wire:
        wire.post(api.target("take", "1", "say", "enough"), "Content-Length: 100000")
        wire.send("z")
        assert wire.answer().headers["Connection"] == "close"


# -- what the HTTP server itself refuses


@pytest.mark.parametrize(
    ("request_head", "status", "name"),
    [
        ("nonsense\r\n\r\n", 400, "bad-request"),
        ("GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400, "bad-request"),
        ("get /livez HTTP/1.1\r\nHost: x\r\n\r\n", 501, "not-implemented"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n", 400, "bad-request"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, "bad-request"),
        ("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "bad-request"),
        ("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\n", 400, "bad-request"),
        (
            "POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "bad-request",
        ),
        ("POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n", 501, "not-implemented"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\nX: " + "x" * 20_000 + "\r\n\r\n", 431, "header-too-large"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 200 + "\r\n", 431, "header-too-large"),
    ],
)
def test_a_bad_head(api: Api, request_head: str, status: int, name: str) -> None:
    with api.wire() as wire:
        wire.send(request_head)
        answer = wire.answer()
        found = answer.problem(status, name)
        assert answer.headers["X-Set"] == api.process.name
        assert found["executed"] is False
        assert wire.received() == b""


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/v1", 404, "not-found"),
        ("GET", "/v2/run/x", 404, "not-found"),
        ("GET", "/v1/run/x:1", 405, "method-not-allowed"),
        ("DELETE", "/v1/tasks/x", 405, "method-not-allowed"),
        ("POST", "/livez", 405, "method-not-allowed"),
        ("GET", "/v1/tasks/x/cancel", 405, "method-not-allowed"),
        ("BREW", "/livez", 501, "not-implemented"),
    ],
)
def test_no_such_thing(api: Api, method: str, path: str, status: int, name: str) -> None:
    answer = api.http.request(method, path)
    assert problem(answer, status, name)["executed"] is False
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "account", ["", "Upper", "a b", "-a", "a" * 64, "a_b", "é".encode("latin-1").decode("latin-1")]
)
def test_a_bad_account(api: Api, account: str) -> None:
    with api.wire() as wire:
        wire.send(f"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nX-Account: {account}\r\n\r\n".encode("latin-1"))
        assert wire.answer().problem(400, "bad-parameter")["field"] == "X-Account"


def test_a_path_of_odd_bytes(api: Api) -> None:
    for path in ("/v1/tasks/%FF%FE/stdout", "/" + quote("é" * 100), "/v1/tasks/" + "a/" * 500):
        assert api.http.get(path).status_code == 404
