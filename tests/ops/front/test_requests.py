"""Requests by HTTP/2 through each balancer: what they carry arrives, and what comes back is what the set said."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.ops.front.conftest import Answer, Front, before_3_2, until
from tests.ops.front.fake_set import FakeSet


def sent(answer: Answer) -> dict[str, str]:
    """The headers that the set got."""
    return dict(json.loads(answer.body)["headers"])


def test_a_small_get(front: Front) -> None:
    answer = front.ask("/v1/tasks/a-2?x=%20y")
    assert (answer.version, answer.status) == ("2", 200)
    assert (answer.header("x-set"), answer.header("x-task-id")) == ("a", "a-1")
    assert json.loads(answer.body)["target"] == "/v1/tasks/a-2?x=%20y"


def test_http_1_1_is_served_too(front: Front) -> None:
    answer = front.ask("/v1/tasks/a-2", http="--http1.1")
    assert (answer.version, answer.status) == ("1.1", 200)


def test_headers_of_the_contract_arrive(front: Front) -> None:
    headers = {
        "authorization": "Bearer gc_acme_secret",
        "prefer": "respond-async",
        "idempotency-key": "order-17",
        "x-callback-url": "https://example.test/done",
        "x-user-id": "u1",
        "x-request-id": "mine-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    options = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    answer = front.ask("/v1/run/count:1", "--data-binary", "hello", *options)
    assert (answer.version, answer.status) == ("2", 200)
    got = sent(answer)
    assert {name: got[name] for name in headers} == headers
    assert json.loads(answer.body)["bytes"] == 5


def test_the_client_s_address_arrives_whatever_the_client_claims(front: Front) -> None:
    got = sent(front.ask("/v1/tasks/a-2", "-H", "X-Forwarded-For: 192.0.2.9", "-H", "X-Forwarded-Proto: ftp"))
    assert (got["x-forwarded-for"], got["x-forwarded-proto"]) == ("127.0.0.1", "https")


def test_a_problem_passes_as_it_is(front: Front) -> None:
    answer = front.ask("/v1/run/refused:1", "--data-binary", "x")
    assert (answer.version, answer.status, answer.header("content-type")) == (
        "2",
        404,
        "application/problem+json",
    )
    assert json.loads(answer.body)["executed"] is False
    # … and so does the router's own.
    answer = front.ask("/v1/run/cat:1", "-X", "BREW")
    assert (answer.status, answer.header("content-type")) == (501, "application/problem+json")
    assert answer.header("x-router") in ("r1", "r2")


@pytest.mark.parametrize("http", ["--http2", "--http1.1"])
def test_the_longest_request_line_that_the_contract_allows(front: Front, http: str) -> None:
    path = "/v1/tasks/a-2?arg="
    path += "x" * (64 * 1024 - len(f"GET {path} HTTP/1.1") - 1)
    if http == "--http2":
        path = path[:-1024]  # curl sends no more than 64 KiB in all.
    answer = front.ask(path, http=http)
    assert answer.status == 200
    assert json.loads(answer.body)["target"] == path


def test_a_long_wait_is_not_cut(front: Front) -> None:
    answer = front.ask("/v1/tasks/a-2?wait=4")
    assert (answer.status, answer.seconds >= 4) == (200, True)


def test_a_body_is_asked_for_before_it_is_sent(front: Front, fake_set: FakeSet) -> None:
    before = len(fake_set.continued)
    answer = front.ask(
        "/v1/run/careful:1", "-H", "Expect: 100-continue", "--data-binary", "hello", http="--http1.1"
    )
    assert (answer.code, answer.status, json.loads(answer.body)["bytes"]) == (0, 200, 5)
    if front.name == "haproxy":
        # Relayed: the 100 is the set's.
        assert "100 Continue" in answer.head
        assert fake_set.continued[before:] == [0]
    # By HTTP/2 curl waits for nothing.
    answer = front.ask("/v1/run/careful:1", "-H", "Expect: 100-continue", "--data-binary", "hello")
    assert (answer.version, answer.status, json.loads(answer.body)["bytes"]) == ("2", 200, 5)


def test_trailers_of_an_answer(front: Front) -> None:
    """HAProxy passes them on; nginx drops them, as the README says."""
    with front.client() as client:
        answer = client.ask("POST", "/v1/run/trailers:1", {"te": "trailers"}, b"x")
    assert (answer.status, bytes(answer.body), answer.ended) == (200, b"out", True)
    assert answer.trailers == ({"x-exit-code": "0"} if front.name == "haproxy" else {})


def test_trailers_of_a_request(front: Front, fake_set: FakeSet) -> None:
    """Neither passes them on. nginx takes them for a mistake by HTTP/2, and closes the connection."""
    with front.client() as client:
        stream = client.begin("POST", "/v1/run/trailers:1")
        client.send(stream, b"x")
        client.send_trailers(stream, {"x-sum": "1"})
        if front.name == "haproxy":
            assert client.whole(stream).status == 200
            assert fake_set.trailers == []
        else:
            with pytest.raises(ConnectionError):
                client.whole(stream)


@pytest.mark.parametrize("http", ["--http2", "--http1.1"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_an_answer_that_breaks_off_is_seen(front: Front, framing: str, http: str) -> None:
    if (framing, http) == ("chunked", "--http2") and before_3_2(front.name):
        pytest.skip(
            "it is not before HAProxy 3.2 (and late releases of 2.8 to 3.1): the example offers no HTTP/2 there"
        )
    answer = front.ask(f"/v1/run/breaks:1?framing={framing}", "--data-binary", "x", http=http)
    assert answer.status == 200
    assert answer.body == b"half"
    assert answer.code in (18, 56, 92), answer.errors  # Not 0: a whole answer.


def test_haproxy_offers_http_2_where_a_broken_answer_is_seen(plain_haproxy: Front) -> None:
    answer = plain_haproxy.ask("/v1/run/breaks:1?framing=chunked", "--data-binary", "x")
    assert (answer.version, answer.status) == ("1.1" if before_3_2("haproxy") else "2", 200)
    assert answer.code in (18, 56, 92), answer.errors


@pytest.mark.parametrize("http", ["--http2", "--http1.1"])
def test_a_client_that_leaves_cancels_its_run(front: Front, fake_set: FakeSet, http: str) -> None:
    path = "/v1/run/silent:1"
    seen, ended = fake_set.seen[path], fake_set.ended[path]
    client = subprocess.Popen(
        front.curl(path, "--data-binary", "x", http=http),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: fake_set.seen[path] == seen + 1)
    assert fake_set.ended[path] == ended
    client.kill()
    client.wait()
    until(lambda: fake_set.ended[path] == ended + 1, 5)
