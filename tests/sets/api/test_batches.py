"""Batches over HTTP, in real slots: inputs in, one archive of results out, also through `kill -9`."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.ops.cli.program import Program
from tests.scheduler.batches.conftest import lines, tar
from tests.sets.api.conftest import Api, StartApi, problem, until

pytestmark = pytest.mark.docker

LINES = "application/jsonl"
TAR = "application/x-tar"


def send(
    api: Api, body: Any, *words: str, form: str = LINES, headers: dict[str, str] | None = None, **query: Any
) -> httpx.Response:
    pairs = [("arg", word) for word in words] + [(name, str(value)) for name, value in query.items()]
    target = f"/v1/batches/{api.image}?{urlencode(pairs)}"
    return api.http.post(target, content=body, headers={"Content-Type": form, **(headers or {})})


def sent(api: Api, body: Any, *words: str, **more: Any) -> str:
    """The id of a batch that was taken."""
    answer = send(api, body, *words, **more)
    assert answer.status_code == 202, answer.text
    batch_id: str = answer.json()["id"]
    assert answer.headers["Location"] == f"/v1/batches/{batch_id}"
    return batch_id


def over(api: Api, batch_id: str) -> dict[str, Any]:
    """The batch, once it is over."""

    def ended() -> Any:
        answer = api.http.get(f"/v1/batches/{batch_id}?wait=20")
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.json()["ended_at"] else None

    found: dict[str, Any] = until(ended, "the batch is over", 200)
    return found


def results(api: Api, batch_id: str, after: int = 0) -> tuple[dict[str, bytes], int]:
    """The entries of the archive, and the place of the last one."""
    answer = api.http.get(f"/v1/batches/{batch_id}/results", params={"after": after} if after else None)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, TAR), answer.text
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            assert entry.name not in found
            found[entry.name] = file.read()
            after = int(entry.pax_headers.get("comment", f"after={after}").removeprefix("after="))
    return found, after


def test_an_archive_of_files_in_an_archive_of_results_out(api: Api) -> None:
    files = {f"scans/page-{number}": bytes([number]) * (number * 40_000) for number in range(5)}
    batch_id = sent(
        api, tar(list(files.items())), "cat", form=TAR, headers={"X-Account": "tars"}, name="pages"
    )
    assert problem(api.http.get(f"/v1/batches/{batch_id}"), 404, "batch-unknown")["executed"] is False
    api.http.headers["X-Account"] = "tars"
    try:
        batch = over(api, batch_id)
        assert (batch["state"], batch["name"], batch["inputs"]) == ("succeeded", "pages", 5)
        assert batch["counts"] == {
            "waiting": 0, "queued": 0, "running": 0, "succeeded": 5, "failed": 0, "timed_out": 0, "cancelled": 0,
        }  # fmt: skip
        assert results(api, batch_id)[0] == files
        (task,) = api.tasks(name="scans/page-3")
        assert (task["batch"], task["stdin_bytes"], task["dead"]) == (batch_id, 120_000, False)
    finally:
        del api.http.headers["X-Account"]


def test_failures_are_in_the_archive_and_run_again_by_a_retry(api: Api) -> None:
    batch_id = sent(
        api,
        lines(
            {"name": "good", "args": ["say", "yes"]},
            {"name": "bad", "args": ["warn", "oh no", "exit", "3"]},
            {"name": "kept", "args": ["file", "/tmp/out", "7"]},
        ),
        output="/tmp/out",
    )
    batch = over(api, batch_id)
    assert (batch["state"], batch["counts"]["succeeded"], batch["counts"]["failed"]) == ("failed", 2, 1)
    found, after = results(api, batch_id)
    assert set(found) == {"good", "bad.error.json", "kept", "kept.files/tmp/out"}
    assert found["good"] == b"yes\n"
    failure = json.loads(found["bad.error.json"])
    assert (failure["exit_code"], failure["stderr_head"], failure["batch"]) == (3, "oh no", batch_id)
    assert results(api, batch_id, after) == ({}, after)
    assert api.http.post(f"/v1/batches/{batch_id}/retry").status_code == 200
    assert over(api, batch_id)["retried"] == 1
    again, last = results(api, batch_id, after)
    assert set(again) == {"bad.error.json"}
    assert last == after + 1


def test_results_come_while_the_batch_runs_and_a_cancelled_one_ends(api: Api) -> None:
    batch_id = sent(
        api,
        lines(*({"args": ["say", f"{number}"]} for number in range(3)), {"args": ["sleep", "600"]}),
    )

    def some() -> Any:
        found, after = results(api, batch_id)
        return (found, after) if len(found) == 3 else None

    found, after = until(some, "three tasks have ended")
    assert found == {f"00000{number + 1}": b"%d\n" % number for number in range(3)}
    assert api.http.get(f"/v1/batches/{batch_id}").json()["state"] == "running"
    cancelled = api.http.post(f"/v1/batches/{batch_id}/cancel")
    assert cancelled.status_code == 200
    assert over(api, batch_id)["state"] == "cancelled"
    rest, _ = results(api, batch_id, after)
    assert json.loads(rest["000004.error.json"])["state"] == "cancelled"


def test_a_key_makes_one_batch_and_no_task(api: Api) -> None:
    key = {"Idempotency-Key": "batch-key"}
    first = sent(api, lines({"args": ["say", "x"]}), headers=key)
    assert sent(api, lines({"args": ["say", "x"]}), headers=key) == first
    problem(send(api, lines({"args": ["say", "y"]}), headers=key), 422, "idempotency-conflict")
    problem(api.run("say", "x", headers={"Prefer": "respond-async", **key}), 422, "idempotency-conflict")
    assert api.http.get("/v1/idempotency", headers=key).json()["id"] == first


@pytest.mark.parametrize(
    ("body", "form", "status", "name", "said"),
    [
        (
            b'{"input": 5}\n',
            LINES,
            400,
            "bad-parameter",
            "input 1 (byte 0): Expected `str | null`, got `int`",
        ),
        (b"", LINES, 400, "bad-parameter", "the batch has no inputs"),
        (
            tar([("../x", b"1")]),
            TAR,
            400,
            "bad-parameter",
            "entry '../x' (byte 0): the name '../x' is not a plain",
        ),
        (tar([("a", bytes(100_000))])[:50_000], TAR, 400, "bad-parameter", "the archive ends within it"),
        (b"{}", "text/html", 415, "unsupported-media-type", "application/x-tar"),
        (b"{}", "", 415, "unsupported-media-type", "application/jsonl"),
    ],
)
def test_a_bad_batch_is_refused_and_nothing_of_it_stays(
    api: Api, body: bytes, form: str, status: int, name: str, said: str
) -> None:
    before = set((api.process.folder / "state/blobs").rglob("*"))
    assert said in problem(send(api, body, "cat", form=form), status, name)["detail"]
    left = {path for path in (api.process.folder / "state/blobs").rglob("*") if path.is_file()}
    assert left <= before


def test_results_of_earlier_tasks_are_the_inputs_of_a_batch(api: Api) -> None:
    first = sent(
        api,
        lines(
            {"name": "chained/small", "args": ["say", "one"]},
            {"name": "chained/large", "args": ["print", "100000"]},
            {"name": "chained/bad", "args": ["exit", "1"]},
        ),
    )
    over(api, first)
    small, large, bad = (api.tasks(name=f"chained/{name}")[0]["id"] for name in ("small", "large", "bad"))
    outputs, _ = results(api, first)
    copy = sent(api, lines({"name": "chained/small", "args": ["say", "two"]}))
    over(api, copy)
    (namesake,) = (task["id"] for task in api.tasks(name="chained/small") if task["id"] != small)
    second = sent(
        api, f"{small}\n\n{large}\r\n{namesake}".encode(), "cat", form="text/plain", inputs_of=first
    )
    assert over(api, second)["state"] == "succeeded"
    assert results(api, second)[0] == {
        "chained/small": outputs["chained/small"],
        "chained/large": outputs["chained/large"],
        namesake: b"two\n",
    }
    for line, said in (
        (small, f"line 2: task {small} is in line 1, too; name each task once"),
        (bad, f"line 2: task {bad} is failed, so it has no result"),
        ("other-1", "line 2: no task other-1 of this account"),
        ("\xff" * 500, "line 2: no task"),
    ):
        answer = send(api, f"{small}\n{line}\n".encode("latin-1"), "cat", form="text/plain")
        assert said in problem(answer, 400, "bad-parameter")["detail"]
    problem(send(api, b"\n", "cat", form="text/plain"), 400, "bad-parameter")


def test_batches_of_the_account_are_listed_newest_first(api: Api) -> None:
    mine = {"X-Account": "lister"}
    older = sent(api, lines({"args": ["say", "x"]}), headers=mine, name="older")
    newer = sent(api, lines({"args": ["sleep", "600"]}, {}), headers=mine)

    def page(**query: Any) -> dict[str, Any]:
        answer = api.http.get("/v1/batches", params=query, headers=mine)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    until(lambda: page()["batches"][1]["state"] == "succeeded", "the older one is over")
    whole = page()
    assert [batch["id"] for batch in whole["batches"]] == [newer, older]
    assert (whole["next"], whole["partial"]) == (None, False)
    assert whole["batches"][1] == api.http.get(f"/v1/batches/{older}", headers=mine).json()
    first = page(limit=1)
    assert ([batch["id"] for batch in first["batches"]], first["next"]) == ([newer], newer)
    assert [batch["id"] for batch in page(before=first["next"])["batches"]] == [older]
    assert api.http.get("/v1/batches", headers={"X-Account": "nobody"}).json()["batches"] == []
    problem(api.http.get("/v1/batches?limit=1001", headers=mine), 400, "bad-parameter")
    problem(api.http.get("/v1/batches?state=running", headers=mine), 400, "bad-parameter")

    text = api.http.get("/metrics").text
    assert "\ngc_batches_open 1.0\n" in text
    assert re.search(r'^gc_batch_inputs\{state="running"\} [12]\.0$', text, re.MULTILINE)
    assert 'gc_batch_inputs{state="waiting"} 0.0' in text
    made = re.search(r"^gc_batch_tasks_made_total (\S+)$", text, re.MULTILINE)
    ended = re.search(r'^gc_batch_tasks_ended_total\{state="succeeded"\} (\S+)$', text, re.MULTILINE)
    assert made is not None
    assert ended is not None
    assert float(made[1]) > float(ended[1]) >= 1
    assert api.http.post(f"/v1/batches/{newer}/cancel", headers=mine).status_code == 200


@pytest.mark.parametrize("order", ["cancel", "retry"])
def test_an_image_that_is_named_as_an_order_needs_its_tag(api: Api, order: str) -> None:
    refused = api.http.post(f"/v1/batches/acme/{order}", content=lines({}), headers={"Content-Type": LINES})
    said = problem(refused, 400, "bad-parameter")["detail"]
    assert f"name an image of this name with its tag or digest, such as acme/{order}:latest" in said
    # With it, the image is looked up; without inputs, it is an order to a batch, which is not there.
    tagged = api.http.post(f"/v1/batches/acme/{order}:1", content=lines({}), headers={"Content-Type": LINES})
    problem(tagged, 404, "image-unknown")
    problem(api.http.post(f"/v1/batches/acme/{order}"), 404, "batch-unknown")


def test_limits_of_a_set(start_api: StartApi) -> None:
    api = start_api("max_batch_inputs: 2\nmax_batch_mib: 1\nmax_batches_account: 1\nmax_input_mib: 1\n")
    problem(send(api, lines({}, {}, {}), "cat"), 400, "bad-parameter")
    problem(send(api, bytes((1 << 20) + 1), "cat"), 413, "input-too-large")

    def chunks() -> Any:
        for _ in range(20):
            yield bytes(100_000)

    problem(send(api, chunks(), "cat"), 413, "input-too-large")
    assert over(api, sent(api, lines({}, {}), "cat"))["state"] == "succeeded"
    refused = send(api, lines({}), "cat")
    problem(refused, 429, "account-limit")
    assert refused.headers["Retry-After"] == "60"


def test_kill_9_loses_no_input_and_runs_none_twice(start_api: StartApi) -> None:
    api = start_api()
    count = 150
    batch_id = sent(api, lines(*({"input": f"{number}"} for number in range(count))), "cat")

    def succeeded() -> int:
        counts: dict[str, int] = api.http.get(f"/v1/batches/{batch_id}").json()["counts"]
        return counts["succeeded"]

    for goal in (20, 60, 100):
        until(partial(_reached, succeeded, goal), f"{goal} tasks have ended")
        api.process.kill()
        api.process.start()
    batch = over(api, batch_id)
    assert (batch["state"], batch["counts"]["succeeded"]) == ("succeeded", count)
    found, after = results(api, batch_id)
    assert found == {f"{number + 1:06d}": b"%d" % number for number in range(count)}
    assert after == count


def _reached(count: Callable[[], int], goal: int) -> bool:
    return count() >= goal


def test_a_folder_is_mapped_and_what_failed_is_mapped_again(api: Api, tmp_path: Path) -> None:
    source, to = tmp_path / "in", tmp_path / "out"
    inputs = {"a": b"1", "b/c d": b"x" * 100_000, "b/empty": b""}
    for name, data in inputs.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    gcompute = Program(api.process.url)
    done = gcompute("map", api.image, str(source), "-o", str(to), "--", "cat")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    assert b"succeeded: 3 succeeded of 3 inputs" in done.stdout
    assert {name: (to / name).read_bytes() for name in inputs} == inputs
    # The same call again finds everything there.
    again = gcompute("map", api.image, str(source), "-o", str(to), "--", "cat")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    other = gcompute("map", api.image, str(source), "-o", str(to), "--", "sink")
    assert other.returncode == 64
    assert b"has results of another call; name another folder" in b" ".join(other.stderr.split())

    bad = gcompute(
        "map",
        api.image,
        "-",
        "-o",
        str(tmp_path / "lines"),
        stdin=lines({"name": "n", "args": ["exit", "3"]}),
    )
    assert bad.returncode == 1, bad.stderr
    assert b"failed: 1 failed of 1 input\n" in bad.stdout
    assert json.loads((tmp_path / "lines/n.error.json").read_bytes())["exit_code"] == 3
    batch_id = bad.stdout.split()[0].decode()
    assert gcompute("batch", "retry", batch_id).returncode == 0
    assert over(api, batch_id)["retried"] == 1
    assert gcompute("batch", "show", batch_id).returncode == 1
    found = gcompute("batch", "results", batch_id)
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        assert archive.getnames() == ["n.error.json"]
    assert gcompute("batch", "cancel", batch_id).returncode == 0
    assert gcompute("batch", "show", "a-none").returncode == 66
