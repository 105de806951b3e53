"""The Python client against a server that plays the API."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.client import AnswerBroken, Client, NotGeneralCompute, TaskFailed, Unreachable
from ops.client.body import source_of
from ops.client.wire import Address, Connection, Request
from tests.ops.cli.fake_api import Call, FakeApi


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


def echo(call: Call) -> None:
    call.output(call.read())


def test_one_connection_serves_call_after_call(api: FakeApi) -> None:
    api.on("POST", "/v1/run/", echo)
    with Client(api.url) as client:
        for number in range(5):
            with client.run("cat", body=b"%d" % number) as output:
                assert output.read() == b"%d" % number
                assert output.facts is not None
                assert output.facts.cpu_us == 1500
    assert api.connections == 1


def test_a_kept_connection_that_was_closed_is_replaced(api: FakeApi) -> None:
    closed = threading.Event()

    def once(call: Call) -> None:
        call.output(call.read())
        call.sock.shutdown(2)
        call.closes = True
        closed.set()

    api.on("POST", "/v1/run/", once)
    with Client(api.url) as client:
        for _ in range(3):
            assert client.run("cat", body=b"x").read() == b"x"
            assert closed.wait(10)
            closed.clear()
    assert api.connections == 3


def test_an_output_that_is_not_read_to_its_end_gives_its_connection_up(api: FakeApi) -> None:
    cancelled = threading.Event()

    def endless(call: Call) -> None:
        call.head(Transfer_Encoding="chunked", X_Task_Id="a-1")
        try:
            while True:
                call.chunk(b"y" * 65536)
        except OSError:
            cancelled.set()

    api.on("POST", "/v1/run/yes", endless)
    api.on("POST", "/v1/run/cat", echo)
    with Client(api.url) as client:
        with client.run("yes") as output:
            next(iter(output))
        assert cancelled.wait(10)
        assert client.run("cat", body=b"x").read() == b"x"


def test_bytes_after_an_answer_are_never_taken_for_the_next_one(api: FakeApi) -> None:
    def too_much(call: Call) -> None:
        call.read()
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue" + forged)

    api.on("POST", "/v1/run/", too_much)
    with Client(api.url) as client:
        for _ in range(3):
            assert client.run("cat").read() == b"true"
    assert api.connections == 3


def test_a_generators_pieces_are_sent_as_they_are_made(api: FakeApi) -> None:
    arrived = threading.Semaphore(0)

    def note(call: Call) -> None:
        pieces = []
        for piece in call.pieces():
            pieces.append(piece)
            arrived.release()
        call.output(b"|".join(pieces))

    def pieces() -> Iterator[bytes]:
        yield b"one"
        assert arrived.acquire(timeout=10), "the first piece must have left before the second is asked for"
        yield b"two"

    api.on("POST", "/v1/run/", note)
    with Client(api.url) as client:
        assert client.run("cat", body=pieces()).read() == b"one|two"


def test_a_refused_body_is_asked_for_no_more(api: FakeApi) -> None:
    head_seen = threading.Event()
    asked = []

    def refuse_slowly(call: Call) -> None:
        next(call.pieces())
        call.head(413, Content_Type="application/problem+json", Content_Length=2)
        assert head_seen.wait(10)
        call.send(b"{}")
        call.closes = True

    def pieces() -> Iterator[bytes]:
        for number in range(10):
            asked.append(number)
            yield b"piece"

    api.on("POST", "/upload", refuse_slowly)
    connection = Connection(Address.parse(api.url))
    answer = connection.request(Request("POST", b"/upload", [], source_of(pieces()), 10))
    asked.clear()
    head_seen.set()
    assert answer.read(100) == b"{}"
    assert asked == []
    connection.close()


def test_a_cut_answer_raises_the_tasks_own_failure(api: FakeApi) -> None:
    def cut(call: Call) -> None:
        call.read()
        call.head(Transfer_Encoding="chunked", X_Task_Id="a-1")
        call.chunk(b"half")
        call.closes = True

    api.on("POST", "/v1/run/", cut)
    api.task({"id": "a-1", "state": "failed", "reason": "exit", "exit_code": 4, "stderr_head": "why"})
    received: list[bytes] = []
    with Client(api.url) as client, client.run("cat") as output, pytest.raises(TaskFailed) as failure:
        received.extend(output)
    assert received == [b"half"]
    assert (failure.value.exit_code, failure.value.stderr_head, failure.value.task_id) == (4, "why", "a-1")


def test_a_cut_answer_without_a_row_stays_a_cut_answer(api: FakeApi) -> None:
    def cut(call: Call) -> None:
        call.read()
        call.head(Content_Length=10, X_Task_Id="a-1")
        call.send(b"half")
        call.closes = True

    api.on("POST", "/v1/run/", cut)
    with Client(api.url) as client, pytest.raises(AnswerBroken) as broken:
        client.run("cat").read()
    assert broken.value.task_id == "a-1"


@pytest.mark.parametrize("text", [b"[]", b"{}", b"not json", b'{"id": 3, "state": "x"}'])
def test_an_answer_of_another_shape_is_refused(api: FakeApi, text: bytes) -> None:
    def odd(call: Call) -> None:
        call.head(Content_Length=len(text))
        call.send(text)

    api.on("GET", "/v1/tasks", odd)
    with Client(api.url) as client:
        with pytest.raises(NotGeneralCompute):
            client.task("a-1")
        with pytest.raises(NotGeneralCompute):
            client.tasks()


def test_a_redirection_is_not_followed(api: FakeApi) -> None:
    api.on(
        "GET",
        "/v1/tasks/",
        lambda call: call.head(302, Location="http://elsewhere.invalid/", Content_Length=0),
    )
    with Client(api.url, token="gc_secret") as client, pytest.raises(NotGeneralCompute):
        client.task("a-1")


def test_the_address_may_have_a_path(api: FakeApi) -> None:
    api.on("POST", "/compute/v1/run/cat", echo)
    with Client(f"{api.url}/compute/") as client:
        assert client.run("cat", body=b"x").read() == b"x"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A key and a certificate for localhost, made for this test alone."""
    made = tmp_path / "localhost.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"),
            *("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")),
        ],
        check=True,
        capture_output=True,
    )
    made.write_bytes((tmp_path / "key").read_bytes() + (tmp_path / "certificate").read_bytes())
    return made


def test_tls_streams_both_ways_and_trusts_only_whom_it_knows(
    authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    api = FakeApi(tls=context)

    def reverse_as_it_comes(call: Call) -> None:
        call.head(Transfer_Encoding="chunked")
        for piece in call.pieces():
            call.chunk(piece[::-1])
        call.end()

    api.on("POST", "/v1/run/", reverse_as_it_comes)
    with Client(api.url) as client:
        with pytest.raises(Unreachable, match="certificate"):
            client.run("cat")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        received = sum(len(piece) for piece in client.run("cat", body=b"a" * (8 << 20)))
        assert received == 8 << 20
        assert client.run("cat", body=(b"%d" % number for number in range(9))).read() == b"012345678"
    api.close()
