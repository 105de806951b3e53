"""`gcompute map` against an API that a test plays: it goes on where an earlier call was broken off."""

from __future__ import annotations

import io
import json
import signal
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program


def batch(**counts: int) -> dict[str, Any]:
    states = ("waiting", "queued", "running", "succeeded", "failed", "timed_out", "cancelled")
    return {
        "id": "a-b",
        "state": "running",
        "inputs": 3,
        "ended_at": None,
        "counts": dict.fromkeys(states, 0) | counts,
    }


OVER = batch(succeeded=3) | {"state": "succeeded", "ended_at": "2026-11-30T00:00:00.000Z"}


def archive(*names: str, first: int = 1, data: bytes = b"out") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as file:
        for place, name in enumerate(names, first):
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = len(data), {"comment": f"after={place}"}
            file.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def send(call: Call, data: bytes) -> None:
    call.head(Content_Type="application/x-tar", Content_Length=len(data))
    call.send(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(name.encode())
    return folder


def submitted(call: Call) -> None:
    call.read()
    call.json(batch(waiting=3), 202)


def test_results_that_break_off_are_fetched_from_where_they_broke(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path
) -> None:
    asked: list[str] = []

    def results(call: Call) -> None:
        (after,) = call.values("after")
        asked.append(after)
        if after == "0":
            whole = archive("a", "b", "c")
            call.head(Content_Type="application/x-tar", Content_Length=len(whole))
            # In the middle of the header of b.
            call.send(whole[: 2048 + 700])
            call.closes = True
        else:
            send(call, archive("b", "c", first=2))

    api.on("POST", "/v1/batches/ocr:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(OVER))
    api.on("GET", "/v1/batches/a-b/results", results)
    to = tmp_path / "out"
    done = gcompute("map", "ocr:1", str(source), "-o", str(to), "--", "-l", "eng")
    assert done.returncode == 0, done.stderr
    assert asked == ["0", "1"]
    assert {path.name for path in to.iterdir()} == {"a", "b", "c", ".gcompute-map.json"}
    sent = api.calls[0]
    assert (sent.values("arg"), sent.headers["content-type"]) == (["-l", "eng"], "application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(sent.body)) as files:
        assert files.getnames() == ["a", "b", "c"]


def test_a_call_that_was_broken_off_sends_its_inputs_under_the_same_key(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path
) -> None:
    def refuse(call: Call) -> None:
        call.read()
        call.problem(429, "account-limit", "the account has 100 batches")

    to = tmp_path / "out"
    api.on("POST", "/v1/batches/ocr:1", refuse)
    refused = gcompute("map", "ocr:1", str(source), "-o", str(to))
    assert refused.returncode == 75, refused.stderr
    api.on("POST", "/v1/batches/ocr:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(OVER))
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive("a", "b", "c")))
    assert gcompute("map", "ocr:1", str(source), "-o", str(to)).returncode == 0
    first, second = (call for call in api.calls if call.method == "POST")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert json.loads((to / ".gcompute-map.json").read_bytes())["batch"] == "a-b"


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (False, b"interrupted before the batch was taken; the same command sends the inputs again"),
        (True, b"interrupted; the batch goes on, and the same command fetches its results"),
    ],
)
def test_an_interrupted_call_says_what_becomes_of_its_batch(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path, taken: bool, said: bytes
) -> None:
    asked, over = threading.Event(), threading.Event()

    def waits(call: Call) -> None:
        call.read()
        asked.set()
        over.wait()

    api.on("POST", "/v1/batches/ocr:1", submitted if taken else waits)
    api.on("GET", "/v1/batches/a-b", waits)
    with gcompute.start("map", "ocr:1", str(source), "-o", str(tmp_path / "out")) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    over.set()
    assert process.returncode == 130, err
    assert said in b" ".join(err.split())


@pytest.mark.parametrize("name", ["../x", "/etc/x"])
def test_a_result_that_would_leave_the_folder_is_not_saved(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path, name: str
) -> None:
    api.on("POST", "/v1/batches/ocr:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(OVER))
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive(name)))
    done = gcompute("map", "ocr:1", str(source), "-o", str(tmp_path / "out"))
    assert done.returncode == 76, done.stderr
    assert b"does not belong in their folder" in b" ".join(done.stderr.split())
    assert not (tmp_path / "x").exists()


def test_a_result_with_the_name_of_its_notes_is_left_out(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path
) -> None:
    """Only an input of JSON lines can have that name."""
    to = tmp_path / "out"
    api.on("POST", "/v1/batches/ocr:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(OVER))
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive("a", ".gcompute-map.json", "b")))
    done = gcompute("map", "ocr:1", str(source), "-o", str(to))
    assert done.returncode == 0, done.stderr
    assert b"the result .gcompute-map.json is not saved" in b" ".join(done.stderr.split())
    assert json.loads((to / ".gcompute-map.json").read_bytes())["after"] == 3
    assert {path.name for path in to.iterdir()} == {"a", "b", ".gcompute-map.json"}
    # The results are the source of the next call, which does not send the notes.
    api.on("POST", "/v1/batches/next:1", submitted)
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive("a", "b")))
    done = gcompute("map", "next:1", str(to), "-o", str(tmp_path / "next"))
    assert done.returncode == 0, done.stderr
    (sent,) = (call for call in api.calls if call.path == "/v1/batches/next:1")
    with tarfile.open(fileobj=io.BytesIO(sent.body)) as files:
        assert files.getnames() == ["a", "b"]


@pytest.mark.parametrize("from_file", [True, False])
def test_outputs_of_earlier_tasks_are_the_inputs(
    api: FakeApi, gcompute: Program, tmp_path: Path, from_file: bool
) -> None:
    api.on("POST", "/v1/batches/count:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(OVER))
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive("a", "b", "c")))
    ids = b"a-1\na-2\na-3\n"
    (tmp_path / "ids").write_bytes(ids)
    source, given = (str(tmp_path / "ids"), b"") if from_file else ("-", ids)
    command = ("map", "count:1", "--ids", source, "-o", str(tmp_path / "out"), "--", "-w")
    done = gcompute(*command, stdin=given)
    assert done.returncode == 0, done.stderr
    sent = api.calls[0]
    assert (sent.body, sent.headers["content-type"]) == (ids, "text/plain")
    # A router finds the set that has the tasks by the first of them.
    assert (sent.values("inputs_of"), sent.values("arg")) == (["a-1"], ["-w"])
    # Once the batch is there, its ids are not needed again.
    assert gcompute(*command).returncode == 0
    empty = gcompute("map", "count:1", "--ids", "-", "-o", str(tmp_path / "other"), stdin=b"\n")
    assert empty.returncode == 64
    assert b"has no ids" in empty.stderr


def test_a_batch_that_waits_says_why_once(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path
) -> None:
    waiting = batch(waiting=3) | {"waiting_for": "this account keeps 9 MiB and may keep 9"}
    answers = [waiting, waiting, waiting, batch(waiting=3) | {"waiting_for": None}, waiting, OVER]
    api.on("POST", "/v1/batches/ocr:1", submitted)
    api.on("GET", "/v1/batches/a-b", lambda call: call.json(answers.pop(0) if len(answers) > 1 else OVER))
    api.on("GET", "/v1/batches/a-b/results", lambda call: send(call, archive()))
    done = gcompute("map", "ocr:1", str(source), "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"gcompute: the batch waits: this account keeps 9 MiB and may keep 9\n"


def test_what_it_refuses_before_anything_is_sent(
    api: FakeApi, gcompute: Program, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        (["ocr:1", str(source)], b"name the folder for the results"),
        (["ocr:1", str(source / "a"), "-o", str(tmp_path / "x")], b"is no folder"),
        (["ocr:1", str(tmp_path / "empty"), "-o", str(tmp_path / "y")], b"has no files"),
    ):
        done = gcompute("map", *words)
        assert done.returncode == 64, done.stderr
        assert said in b" ".join(done.stderr.replace(b"\xe2\x94\x82", b"").split())
    assert api.calls == []
