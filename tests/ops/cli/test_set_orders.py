"""`gcompute set drain`, `resume` and `backup`, against a set that says what the test wants."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cli import exits
from tests.ops.cli.fake_api import Call, FakeApi
from tests.ops.cli.program import Program

TOKEN = {"GC_OPERATOR_TOKEN": "gc_ops_secret"}


def state(running: int, *, draining: bool = True) -> dict[str, object]:
    return {"set": "a", "draining": draining, "running": running, "waiting": 7}


def says(api: FakeApi, method: str, *states: dict[str, object]) -> None:
    """Answer with these one after another, and with the last for ever."""
    left: Iterator[dict[str, object]] = iter(states)

    def answer(call: Call) -> None:
        call.json(next(left, states[-1]))

    api.on(method, "/v1/admin/drain", answer)


def test_drain_waits_until_nothing_runs(api: FakeApi, gcompute: Program) -> None:
    says(api, "PUT", state(3))
    says(api, "GET", state(1), state(0))
    done = gcompute("set", "drain", "--url", api.url, env=TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"set a is drained; tasks that run: 0, that wait: 7\n"
    told = done.stderr.decode().splitlines()
    assert told == [f"gcompute: set a drains: tasks that run: {count}, that wait: 7" for count in (3, 1)]
    assert {call.headers["authorization"] for call in api.calls} == {"Bearer gc_ops_secret"}


def test_drain_gives_up_at_its_timeout_and_tells_what_runs(api: FakeApi, gcompute: Program) -> None:
    says(api, "PUT", state(3))
    done = gcompute("set", "drain", "--timeout", "0", "--url", api.url, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (exits.TRY_AGAIN, state(3))


def test_a_set_that_was_resumed_or_restarted_meanwhile_is_told(api: FakeApi, gcompute: Program) -> None:
    says(api, "PUT", state(3))
    says(api, "GET", state(2, draining=False))
    done = gcompute("set", "drain", "--url", api.url)
    assert done.returncode == exits.UNAVAILABLE
    assert b"set a was resumed or restarted, and takes tasks" in done.stdout


def test_resume_tells_whether_the_set_takes_tasks(api: FakeApi, gcompute: Program) -> None:
    says(api, "DELETE", state(0, draining=False), state(0))
    done = gcompute("set", "resume", "--url", api.url)
    assert (done.returncode, done.stdout) == (0, b"set a takes tasks; tasks that run: 0, that wait: 7\n")
    done = gcompute("set", "resume", "--url", api.url)
    assert (done.returncode, b"is being stopped" in done.stdout) == (exits.UNAVAILABLE, True)


def test_an_answer_that_is_no_sets_is_told(api: FakeApi, gcompute: Program) -> None:
    says(api, "PUT", {"hello": "world"})
    done = gcompute("set", "drain", "--url", api.url)
    assert done.returncode == exits.PROTOCOL
    assert b"without `running`" in done.stderr


def test_a_file_with_mistakes_or_without_a_store_is_told(gcompute: Program, tmp_path: Path) -> None:
    config = tmp_path / "set.yaml"
    config.write_text("name: a\n")
    done = gcompute("set", "backup", str(config), str(tmp_path / "backup"))
    assert (done.returncode, b"the setting 'state_dir' is missing" in done.stderr) == (exits.CONFIG, True)
    config.write_text(f"name: a\nstate_dir: {tmp_path}/state\n")
    done = gcompute("set", "backup", str(config), str(tmp_path / "backup"))
    assert (done.returncode, b"there is no store" in done.stderr) == (exits.IO, True)
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("words", [("set", "dran"), ("set", "backup")])
def test_wrong_words_are_told_with_their_usage(gcompute: Program, words: tuple[str, ...]) -> None:
    done = gcompute(*words)
    assert done.returncode == exits.USAGE
    assert b"Usage: gcompute set" in done.stderr
