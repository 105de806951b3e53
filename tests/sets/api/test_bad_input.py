"""What no careful client sends, and images that cannot run: each a clear answer, other tasks unharmed."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from tests.sets.api.conftest import Api, Tools, mark, problem, running, until
from tests.sets.api.wire import chunked, head

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def others_are_unharmed(api: Api) -> object:
    yield
    assert api.run("cat", body=b"still here").content == b"still here"


# -- images


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
@pytest.mark.parametrize(
    "image", ["no-such-image:1", "a/b/c:9", "ocr@sha256:" + "0" * 64, "sha256:" + "0" * 64]
)
def test_an_unknown_image(api: Api, image: str, headers: dict[str, str]) -> None:
    found = problem(api.run("x", image=image, headers=headers), 404, "image-unknown")
    assert found["executed"] is False
    assert image in found["detail"]


@pytest.mark.parametrize(
    "image", ["Upper:1", "a:b:c", "a//b", "-x", "%00", "a%20b", "%FF", "a" * 5000, "%2e%2e"]
)
def test_a_malformed_reference(api: Api, image: str) -> None:
    found = problem(api.http.post(f"/v1/run/{image}"), 400, "bad-parameter")
    assert (found["field"], found["executed"]) == ("image", False)


@pytest.mark.parametrize("path", ["/v1/run/", "/v1/run"])
def test_no_image_at_all(api: Api, path: str) -> None:
    answer = api.http.post(path)
    assert answer.status_code in (400, 404)
    assert answer.json()["detail"]


def broken_binaries() -> dict[str, tuple[bytes, str]]:
    elf = bytearray(64)
    elf[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 183)
    return {
        "other-machine": (bytes(elf), "Exec format error"),
        "truncated": (b"\x7fELF\x02\x01\x01", "Exec format error"),
        "text": (b"no program\n", "Exec format error"),
        "empty": (b"", "Exec format error"),
        "no-interpreter": (b"#!/bin/no-such-shell\n", "No such file"),
    }


@pytest.mark.parametrize("kind", [*broken_binaries(), "missing", "directory", "relative"])
def test_an_entrypoint_that_cannot_be_executed(api: Api, tools: Tools, kind: str) -> None:
    content, said = broken_binaries().get(kind, (b"x", ""))
    entrypoint = {"missing": "/no/such/program", "directory": "/etc", "relative": "no-such-word"}.get(
        kind, "/p"
    )
    image = tools.make(f'ENTRYPOINT ["{entrypoint}"]', p=content)
    answer = api.run("x", image=image, memory_mib=16)
    found = problem(answer, 422, "task-failed")
    assert (found["reason"], found["executed"], found["exit_code"]) == ("not_executable", False, None)
    assert entrypoint in found["detail"]
    assert said in found["detail"]
    task = api.submit("x", image=image, memory_mib=16)
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"]) == ("failed", "not_executable")
    assert entrypoint in ended["detail"]


def test_an_image_whose_user_does_not_exist(api: Api, tools: Tools) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', "USER nobody-here")
    found = problem(api.run("say", "x", image=image), 422, "image-unusable")
    assert "USER" in found["detail"]
    task = api.submit("say", "x", image=image)
    ended = api.task(task["id"], wait=20)
    assert (ended["state"], ended["reason"]) == ("failed", "not_executable")
    assert "USER" in ended["detail"]


@pytest.mark.parametrize("label", ["isolation=solitary", "cpu-features=no_such_flag"])
def test_an_image_with_a_bad_label(api: Api, tools: Tools, label: str) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', f"LABEL org.general-compute.{label}")
    answer = api.run("say", "x", image=image)
    assert answer.status_code in (400, 422)
    assert label.partition("=")[2] in answer.json()["detail"]
    assert answer.json()["executed"] is False


# -- parameters


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("arg=%FF", "arg"),
        ("arg=a%00b", "arg"),
        ("env=X=%00", "env"),
        ("env=%FF=1", "env"),
        ("env=NAME", "env"),
        ("env==x", "env"),
        ("env=GENERAL_COMPUTE_SLOT_TOKEN=x", "env"),
        ("name=" + "n" * 129, "name"),
        ("name=a&name=b", "name"),
        ("timeout_s=301", "timeout_s"),
        ("timeout_s=0", "timeout_s"),
        ("timeout_s=-1", "timeout_s"),
        ("timeout_s=nan", "timeout_s"),
        ("timeout_s=inf", "timeout_s"),
        ("timeout_s=1e1", "timeout_s"),
        ("timeout_s=", "timeout_s"),
        ("timeout_s=1&timeout_s=2", "timeout_s"),
        ("queue_timeout_s=x", "queue_timeout_s"),
        ("stream=yes", "stream"),
        ("stream=", "stream"),
        ("cpu=0", "cpu"),
        ("cpu=0.001", "cpu"),
        ("cpu=1.555", "cpu"),
        ("cpu=3", "cpu"),
        ("cpu=99999999999999", "cpu"),
        ("memory_mib=0", "memory_mib"),
        ("memory_mib=1.5", "memory_mib"),
        ("memory_mib=16777216", "memory_mib"),
        ("memory_mib=99999999999999999999", "memory_mib"),
        ("isolation=none", "isolation"),
        ("cpu_feature=", "cpu_feature"),
        ("cpu_feature=AVX 512", "cpu_feature"),
        ("cpu_feature=no_such_flag", "cpu_feature"),
        ("priority=high", "priority"),
        ("priority=spare", "priority"),
        ("output=tmp/x", "output"),
        ("Arg=x", "Arg"),
        ("args=x", "args"),
        ("=x", ""),
        ("%FF=x", "\ufffd"),
        ("x" * 4000 + "=1", "x" * 4000),
    ],
)
def test_a_bad_parameter_is_named(api: Api, query: str, field: str) -> None:
    found = problem(api.http.post(f"/v1/run/{api.image}?{query}"), 400, "bad-parameter")
    assert (found["field"], found["executed"]) == (field, False)
    assert len(found["detail"]) < 600


@pytest.mark.parametrize(
    "path",
    [
        *("relative", "/", "/a/", "/a/../b", "//a", "/a/./b", "/" + "x" * 4096, "", "/a%00"),
        *("/proc/self/root/../x", "/tmp/%FF", "/" + "%C3%A9" * 2048, "/x" * 10_000),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}], ids=["sync", "async"])
def test_a_bad_output(api: Api, path: str, headers: dict[str, str]) -> None:
    answer = api.http.post(f"/v1/run/{api.image}?output={path}", headers=headers)
    assert problem(answer, 400, "bad-parameter")["field"] == "output"


def test_too_many_outputs(api: Api) -> None:
    query = "&".join(f"output=/tmp/{n}" for n in range(65))
    answer = api.http.post(f"/v1/run/{api.image}?{query}", headers={"Prefer": "respond-async"})
    assert problem(answer, 400, "bad-parameter")["field"] == "output"


def test_an_async_time_out_above_a_day(api: Api) -> None:
    answer = api.run("say", "x", timeout_s=86_401, headers={"Prefer": "respond-async"})
    assert problem(answer, 400, "bad-parameter")["field"] == "timeout_s"
    assert api.submit("say", "x", timeout_s=86_400)


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
def test_60_kb_of_arguments(api: Api, headers: dict[str, str]) -> None:
    words = ["a" * 30_000, "b" * 29_000, "c" * 1000]
    answer = api.run("args", *words, headers=headers)
    if headers:
        task = api.task(answer.json()["id"], wait=20)
        assert task["state"] == "succeeded", task
        answer = api.http.get(f"/v1/tasks/{task['id']}/stdout")
    assert answer.content == b"".join(word.encode() + b"\0" for word in words)


def test_many_arguments(api: Api) -> None:
    words = [str(n) for n in range(7000)]
    assert api.run("args", *words).content == b"".join(word.encode() + b"\0" for word in words)


def test_too_many_arguments(api: Api) -> None:
    for headers in ({}, {"Prefer": "respond-async"}):
        answer = api.http.post(f"/v1/run/{api.image}?" + "&".join(["arg="] * 8193), headers=headers)
        assert problem(answer, 400, "bad-parameter")["field"] == "arg"


def test_a_request_line_above_64_kib(api: Api) -> None:
    target = api.target("args", "a" * 60_000)
    for size, status in ((65_536, 200), (65_537, 414), (100_000, 414), (1_000_000, 414)):
        padded = target + "a" * (size - len(f"POST {target} HTTP/1.1"))
        with api.wire() as wire:
            wire.post(padded, "Content-Length: 0")
            answer = wire.answer()
            assert answer.status == status, size
            if status == 414:
                assert answer.problem(414, "uri-too-long")["executed"] is False


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
        ("GET", "/", 404, "not-found"),
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
