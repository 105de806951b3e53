"""`--output`: files that a task leaves come here whole, or it is said which did not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import ROOT, Program

HERE = {"PYTHONPATH": str(ROOT)}


def leaves(api: FakeApi, files: dict[str, bytes], *, detail: str | None = None, **row: Any) -> None:
    """Let a run succeed as task a-1, which left these files."""
    api.on("POST", "/v1/run/", lambda call: call.output((call.read() and b"") or b"done"))
    sizes = {path: len(data) for path, data in files.items()}
    api.task({"id": "a-1", "state": "succeeded", "exit_code": 0, "files": sizes, "detail": detail} | row)
    for path, data in files.items():
        api.on("GET", f"/v1/tasks/a-1/files{path}", lambda call, data=data: call.output(data))  # type: ignore[misc]


def test_run_brings_each_file_under_its_own_or_another_name(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    leaves(api, {"/tmp/x.pdf": b"pdf" * 100_000, "/tmp/x.log": b"log", "/tmp/a b": b""})
    (tmp_path / "logs").mkdir()
    (tmp_path / "x.pdf").write_bytes(b"an older one")
    wanted = ["/tmp/x.pdf", "/tmp/x.log:logs", "/tmp/a b:else"]
    done = gcompute("run", *(f"--output={each}" for each in wanted), "tex", cwd=tmp_path, env=HERE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done", b"")
    assert api.calls[0].values("output") == ["/tmp/x.pdf", "/tmp/x.log", "/tmp/a b"]
    found = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == {"x.pdf": b"pdf" * 100_000, "logs/x.log": b"log", "else": b""}
    said = gcompute("run", "-v", "--output", "/tmp/x.log", "tex", cwd=tmp_path, env=HERE).stderr
    assert b"3 bytes in x.log\n" in said


def test_a_file_that_was_not_kept_is_named_with_the_reason(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    leaves(api, {"/tmp/x.log": b"log"}, detail="output not kept: /tmp/x.pdf: there is no such file")
    done = gcompute("run", "--output=/tmp/x.pdf", "--output=/tmp/x.log", "tex", cwd=tmp_path, env=HERE)
    assert (done.returncode, done.stdout) == (125, b"done")
    assert done.stderr == b"gcompute: task a-1: output not kept: /tmp/x.pdf: there is no such file\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]


@pytest.mark.parametrize("command", [["wait", "a-1"], ["result", "a-1"], ["submit", "--wait", "tex"]])
def test_every_command_that_hands_a_task_over_names_what_was_not_kept(
    api: FakeApi, gcompute: Program, command: list[str]
) -> None:
    leaves(api, {}, detail="output not kept: /tmp/x.pdf: there is no such file")
    api.on("POST", "/v1/run/", lambda call: call.json({"id": "a-1", "state": "queued"}, 202))
    api.on("GET", "/v1/tasks/a-1/stdout", lambda call: call.output(b""))
    done = gcompute(*command)
    assert done.returncode == 0, "the task itself succeeded"
    assert b"output not kept: /tmp/x.pdf: there is no such file\n" in done.stderr


def test_a_failed_task_brings_what_it_left_and_keeps_its_exit_code(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    leaves(api, {"/tmp/x.log": b"! Undefined control sequence"}, state="failed", exit_code=1)
    facts: dict[str, Any] = {"task": "a-1", "reason": "exit", "exit_code": 1, "signal": None}
    api.on("POST", "/v1/run/", lambda call: call.problem(422, "task-failed", "exit code 1", **facts))
    done = gcompute("run", "--output=/tmp/x.log", "--output=/tmp/x.pdf", "tex", cwd=tmp_path, env=HERE)
    assert done.returncode == 1
    assert (tmp_path / "x.log").read_bytes() == b"! Undefined control sequence"
    assert b"output not kept: /tmp/x.pdf" in done.stderr


def test_a_download_that_breaks_off_leaves_the_older_file(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    leaves(api, {"/tmp/x": b"0123456789"})

    def half(call: Call) -> None:
        call.head(Content_Length=10)
        call.send(b"0123")
        call.closes = True

    api.on("GET", "/v1/tasks/a-1/files/tmp/x", half)
    (tmp_path / "x").write_bytes(b"older")
    done = gcompute("run", "--output=/tmp/x", "tex", cwd=tmp_path, env=HERE)
    assert done.returncode == 125
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"older")]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["relative"], b"absolute path"),
        (["/tmp/.."], b"absolute path"),
        (["/tmp/"], b"absolute path"),
        (["/tmp/x:-"], b"standard output carries the algorithm's output"),
        (["/tmp/x:"], b"after the colon"),
        (["/tmp/x:missing/y"], b"there is no folder"),
        (["/tmp/x:folder"], b"it is a folder"),
        (["/tmp/x", "/srv/x"], b"two files would be saved as x"),
        (["/tmp/x:link", "/srv/x:target"], b"two files would be saved as target"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(
    api: FakeApi, gcompute: Program, tmp_path: Path, wanted: list[str], said: bytes
) -> None:
    (tmp_path / "folder/x").mkdir(parents=True)
    (tmp_path / "link").symlink_to("target")
    done = gcompute("run", *(f"--output={each}" for each in wanted), "tex", cwd=tmp_path, env=HERE)
    assert done.returncode == 125
    assert said in b" ".join(done.stderr.split())
    assert b"--output" in done.stderr
    assert api.connections == 0


def test_a_link_is_written_through_and_a_device_stays_one(
    api: FakeApi, gcompute: Program, tmp_path: Path
) -> None:
    leaves(api, {"/tmp/x": b"new"})
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    assert gcompute("run", "--output=/tmp/x:link", "tex", cwd=tmp_path, env=HERE).returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert gcompute("run", "--output=/tmp/x:pipe", "tex", cwd=tmp_path, env=HERE).returncode == 0
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_full_disk_here_is_named_with_the_file(api: FakeApi, gcompute: Program) -> None:
    leaves(api, {"/tmp/x": b"new"})
    done = gcompute("run", "--output=/tmp/x:/dev/full", "tex")
    assert done.returncode == 125
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
