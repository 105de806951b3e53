"""Large bodies by HTTP/2 through each balancer: passed on as they come, in both directions, held by nobody."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from tests.ops.front.conftest import Front, before_3_2, until
from tests.ops.front.fake_set import FakeSet

STEP = 1024 * 1024
STEPS = 64
"""64 MiB."""


def test_an_upload_arrives_while_it_is_sent(front: Front, fake_set: FakeSet) -> None:
    """The set has every piece before the next one is sent: nothing in between waits for more than it got."""
    before = fake_set.received
    digest = hashlib.sha256()
    with front.client() as client:
        stream = client.begin("POST", "/v1/run/count:1")
        for number in range(STEPS):
            piece = bytes([number]) * STEP
            digest.update(piece)
            client.send(stream, piece)
            wanted = before + (number + 1) * STEP
            until(lambda wanted=wanted: fake_set.received >= wanted)  # type: ignore[misc]
        assert front.spooled() == []
        client.send(stream, b"", end=True)
        answer = json.loads(client.whole(stream).body)
    assert (answer["bytes"], answer["sha256"]) == (STEPS * STEP, digest.hexdigest())
    assert "content-length" not in answer["headers"]  # Nobody knew it: nobody had it all.


def test_an_echo_comes_back_while_it_is_sent(front: Front) -> None:
    with front.client() as client:
        stream = client.begin("POST", "/v1/run/echo:1")
        answer = client.streams[stream]
        for number in range(STEPS):
            # What is under way both ways at once fits into the windows.
            for _ in range(STEP // 32768):
                piece = bytes([number]) * 32768
                client.send(stream, piece)
                client.until(lambda: len(answer.body) >= 32768)
                assert answer.body == piece
                answer.body.clear()
        assert not answer.ended
        assert front.spooled() == []
        client.send(stream, b"", end=True)
        client.whole(stream)
        assert (answer.status, answer.ended, answer.reset, len(answer.body)) == (200, True, None, 0)


def test_a_large_upload_of_a_known_length(front: Front) -> None:
    body = bytes(STEPS * STEP)
    answer = front.ask("/v1/run/count:1", "--data-binary", "@-", body=body)
    assert (answer.version, answer.status) == ("2", 200)
    got = json.loads(answer.body)
    assert (got["bytes"], got["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert got["headers"]["content-length"] == str(len(body))


def test_a_download_goes_no_faster_than_its_reader(front: Front, fake_set: FakeSet) -> None:
    """What is under way to a reader that stops lies in sockets: nobody reads on, into memory or a file."""
    size = 4 * STEPS * STEP
    before = fake_set.sent
    with front.client() as client:
        client.reading = False
        stream = client.begin("GET", f"/v1/tasks/a-1/stdout?size={size}", end=True)
        answer = client.streams[stream]
        client.until(lambda: len(answer.body) > 60_000)  # The window's end.
        last = -1
        while fake_set.sent != last:
            last = fake_set.sent
            time.sleep(0.1)
        assert 0 < fake_set.sent - before < size // 4
        assert front.spooled() == []


def test_a_large_download_arrives_whole(front: Front) -> None:
    answer = front.ask(f"/v1/tasks/a-1/stdout?size={STEPS * STEP}")
    assert (answer.version, answer.status, answer.body == bytes(STEPS * STEP)) == ("2", 200, True)


def test_nothing_of_this_was_held(front: Front) -> None:
    """The tests before sent and got hundreds of megabytes."""
    assert front.memory_mib() < 100


def test_a_refusal_comes_before_the_upload_s_end(front: Front, fake_set: FakeSet) -> None:
    with front.client() as client:
        stream = client.begin("POST", "/v1/run/refused:1", {"content-length": "900000000"})
        client.send(stream, b"x" * 30_000)
        answer = client.streams[stream]
        client.until(lambda: b"executed" in answer.body)
        assert answer.status == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_runs_of_one_connection_do_not_wait_for_each_other(front: Front, fake_set: FakeSet) -> None:
    with front.client() as client:
        slow = client.begin("GET", "/v1/tasks/a-2?wait=3", end=True)
        streams = [client.begin("GET", f"/v1/tasks/a-{number}", end=True) for number in range(30)]
        for stream in streams:
            assert client.whole(stream).status == 200
        assert not client.streams[slow].ended
        assert client.whole(slow).status == 200


def test_an_upload_that_nobody_reads_does_not_hold_up_others(front: Front, fake_set: FakeSet) -> None:
    if before_3_2(front.name):
        pytest.skip("it does before HAProxy 3.1, by HTTP/2: the example offers none there")
    ended = fake_set.ended["/v1/run/deaf:1"]
    with front.client() as client:
        stuck = client.begin("POST", "/v1/run/deaf:1")
        sent = 0
        while client.opens(stuck, 0.5):
            size = min(client.window(stuck), 16384)
            client.send(stuck, bytes(size))
            sent += size
        # All that fits on the way to the set; then the stream waits, and it alone.
        assert sent < STEPS * STEP
        assert client.ask("GET", "/v1/tasks/a-3").status == 200
        assert fake_set.ended["/v1/run/deaf:1"] == ended  # It still waited.
        client.reset(stuck)
