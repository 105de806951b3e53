"""A synchronous run: its answer, its facts, and what becomes of it when the program ends badly."""

from __future__ import annotations

import time
from http.client import IncompleteRead

import pytest

from tests.sets.api.conftest import Api, Tools, mark, problem, running, until

pytestmark = pytest.mark.docker

HELD_BACK_BYTES = 65_536


def test_a_small_answer_has_all_facts_in_its_head(api: Api) -> None:
    answer = api.run("cat", "burn", "20", body=b"picture")
    assert answer.status_code == 200
    assert answer.content == b"picture"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == "7"
    assert answer.headers["X-Set"] == api.process.name
    assert answer.headers["X-Exit-Code"] == "0"
    assert answer.headers["X-Cold-Start"] in ("0", "1")
    assert 20_000 <= int(answer.headers["X-Cpu-Us"]) < 1_000_000
    assert int(answer.headers["X-Duration-Us"]) >= 20_000
    assert int(answer.headers["X-Queue-Us"]) >= 0
    task = api.task(answer.headers["X-Task-Id"])
    assert task["set"] == api.process.name
    assert (task["kind"], task["state"], task["reason"], task["exit_code"]) == ("sync", "succeeded", None, 0)
    assert (task["stdin_bytes"], task["stdout_bytes"], task["stderr_bytes"]) == (7, 7, 0)
    assert (task["stdout_head"], task["args"]) == ("picture", ["cat", "burn", "20"])
    assert task["cpu_us"] == int(answer.headers["X-Cpu-Us"])
    assert task["duration_us"] == int(answer.headers["X-Duration-Us"])
    assert task["queue_us"] == int(answer.headers["X-Queue-Us"])
    assert task["image_digest"].startswith("sha256:")
    assert task["created_at"] <= task["started_at"] <= task["ended_at"] < task["expires_at"]


def test_the_second_task_finds_a_warm_slot(api: Api) -> None:
    for _ in range(2):
        answer = api.run("say", "x", memory_mib=301)
    assert answer.headers["X-Cold-Start"] == "0"


@pytest.mark.parametrize("size", [0, 1, 61_440, 61_441, HELD_BACK_BYTES])
@pytest.mark.parametrize("sent", ["whole", "chunked"])
def test_up_to_64_kib_the_length_is_known(api: Api, size: int, sent: str) -> None:
    body = b"y" * size
    answer = api.run("cat", body=body if sent == "whole" else iter([body]))
    assert answer.content == body
    assert answer.headers["Content-Length"] == str(size)
    assert answer.headers["X-Exit-Code"] == "0"


def test_above_64_kib_it_is_chunked_and_the_facts_are_at_the_task(api: Api) -> None:
    answer = api.run("print", str(HELD_BACK_BYTES + 1))
    assert answer.content == b"x" * (HELD_BACK_BYTES + 1)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert "Content-Length" not in answer.headers
    assert "X-Exit-Code" not in answer.headers
    assert answer.headers["X-Set"] == api.process.name
    # Its usage was recorded before the last byte went out.
    task = api.task(answer.headers["X-Task-Id"])
    assert (task["state"], task["stdout_bytes"]) == ("succeeded", HELD_BACK_BYTES + 1)


def test_stream_sends_what_there_is(api: Api) -> None:
    with api.wire() as wire:
        wire.post(
            api.target("say", "first", "take", "1", "say", "second", stream=1), "Transfer-Encoding: chunked"
        )
        answer = wire.begun()
        assert answer.status == 200
        assert answer.getheader("Transfer-Encoding") == "chunked"
        assert answer.read(6) == b"first\n"
        # The program waits for its input: nothing but the stream can have brought the first line.
        wire.send("1\r\nx\r\n", "0\r\n\r\n")
        assert answer.read() == b"second\n"


def test_a_streamed_answer_of_nothing(api: Api) -> None:
    answer = api.run("exit", "0", stream=1)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("words", "reason", "code", "signal"),
    [
        (("warn", "no decode delegate", "exit", "1"), "exit", 1, None),
        (("say", "half", "warn", "no decode delegate", "exit", "200"), "exit", 200, None),
        (("warn", "no decode delegate", "signal", "11"), "signal", None, 11),
        (("warn", "no decode delegate", "signal", "9"), "signal", None, 9),
    ],
)
def test_a_program_that_fails(
    api: Api, words: tuple[str, ...], reason: str, code: int | None, signal: int | None
) -> None:
    answer = api.run(*words)
    found = problem(answer, 422, "task-failed")
    assert found["executed"] is True
    assert (found["reason"], found["exit_code"], found["signal"]) == (reason, code, signal)
    assert found["stderr_head"] == "no decode delegate"
    assert found["task"] == answer.headers["X-Task-Id"]
    assert answer.headers.get("X-Exit-Code") == (None if code is None else str(code))
    assert answer.headers["X-Reason"] == reason
    assert {"X-Cpu-Us", "X-Duration-Us", "X-Queue-Us", "X-Cold-Start"} <= {
        name.title() for name in answer.headers
    }
    task = api.task(found["task"])
    assert (task["state"], task["reason"], task["stderr_bytes"]) == ("failed", reason, 18)


def test_a_failed_task_shows_how_its_outputs_began_and_how_they_ended(api: Api) -> None:
    words = ("warn", "a" + "é" * 6000 + "why", "say", "found", "print", "20000", "say", "this", "exit", "3")
    found = problem(api.run(*words), 422, "task-failed")
    assert (found["stderr_head"], found["stderr_tail"]) == ("a" + "é" * 2047, "é" * 2046 + "why")
    assert (found["stderr_bytes"], found["stderr_cut_bytes"]) == (12_004, 12_004 - 4095 - 4095)
    assert found["stdout_head"] == "found\n" + "x" * 4090
    assert found["stdout_tail"] == "x" * 4091 + "this\n"
    assert (found["stdout_bytes"], found["stdout_cut_bytes"]) == (20_011, 20_011 - 8192)
    task = api.task(found["task"])
    assert {name: found[name] for name in found if name.startswith("std")} == {
        name: task[name] for name in task if name.startswith("std") and name != "stdin_bytes"
    }
    answer = api.http.get(f"/v1/tasks/{found['task']}/stderr")
    assert "stderr_tail" in problem(answer, 410, "result-gone")["detail"]


def test_a_stderr_that_head_and_tail_hold_is_whole(api: Api) -> None:
    text = "a" + "é" * 4000
    found = problem(api.run("warn", text, "exit", "1"), 422, "task-failed")
    assert (found["stderr_head"] + found["stderr_tail"], found["stderr_cut_bytes"]) == (text, 0)
    assert api.http.get(f"/v1/tasks/{found['task']}/stderr").text == text


def test_a_program_that_answers_on_stdout_and_fails_is_heard(api: Api) -> None:
    """As grep, diff and linters do."""
    found = problem(api.run("say", "line 3 differs", "exit", "1"), 422, "task-failed")
    assert (found["stdout_head"], found["stdout_tail"], found["stderr_head"]) == ("line 3 differs\n", "", "")
    assert found["detail"] == "exit code 1"


def test_a_program_that_needs_more_memory(api: Api) -> None:
    found = problem(api.run("eat", "200", memory_mib=64), 422, "task-failed")
    assert (found["reason"], found["executed"]) == ("out_of_memory", True)
    assert "64 MiB" in found["detail"]
    assert api.run("say", "on", memory_mib=64).content == b"on\n"


KILLED_FOR_MEMORY = "the kernel killed 1 of the task's processes for using more memory than memory_mib allows"


def test_a_child_that_is_killed_for_memory_is_told_though_its_parent_succeeds(api: Api) -> None:
    answer = api.run("child", "200", "say", "on", memory_mib=64)
    assert (answer.status_code, answer.content) == (200, b"on\n")
    assert answer.headers["X-Detail"].startswith(KILLED_FOR_MEMORY)
    task = api.task(answer.headers["X-Task-Id"])
    assert (task["state"], task["reason"], task["detail"]) == ("succeeded", None, answer.headers["X-Detail"])
    # The next one in that slot has nothing to tell.
    answer = api.run("say", "on", memory_mib=64)
    assert "X-Detail" not in answer.headers
    assert api.task(answer.headers["X-Task-Id"])["detail"] is None


@pytest.mark.parametrize("isolation", ["shared", "fresh"])
def test_a_child_that_is_killed_for_memory_is_told_of_a_task_that_times_out(api: Api, isolation: str) -> None:
    answer = api.run("child", "200", "sleep", "60", memory_mib=64, timeout_s=1, isolation=isolation)
    found = problem(answer, 504, "task-timed-out")
    assert found["reason"] == "timeout"
    assert KILLED_FOR_MEMORY in found["detail"]


def test_a_program_that_kills_itself_is_not_out_of_memory(api: Api) -> None:
    found = problem(api.run("signal", "9"), 422, "task-failed")
    assert (found["reason"], found["detail"]) == ("signal", "ended by SIGKILL")


def test_files_in_tmp_count_as_memory(api: Api) -> None:
    found = problem(api.run("fill", "/tmp/much", "200", memory_mib=64), 422, "task-failed")
    assert found["reason"] == "out_of_memory"
    assert "files in /tmp included" in found["detail"]


def test_the_memory_peak_is_the_tasks_own(api: Api) -> None:
    def peak_mib(*words: str) -> float:
        answer = api.run(*words, memory_mib=128)
        assert answer.status_code == 200, answer.text
        peak_kib: int | None = api.task(answer.headers["X-Task-Id"])["memory_peak_kib"]
        # A kernel that cannot tell says nothing, rather than another task's peak.
        assert peak_kib is None or peak_kib > 0
        return (peak_kib or 0) / 1024

    for words in (
        ("eat", "40"),
        ("fill", "/tmp/x", "40"),
        ("child", "20", "fill", "/tmp/x", "20", "eat", "20"),
    ):
        assert peak_mib(*words) >= 40 or peak_mib("say", "x") == 0, words
        assert peak_mib("say", "x") < 30, "what an earlier task of the slot held"


def test_a_program_that_runs_too_long(api: Api) -> None:
    word = mark()
    answer = api.run("warn", "thinking", "children", "2", "sleep", "60", word, timeout_s=0.3)
    found = problem(answer, 504, "task-timed-out")
    assert (found["executed"], found["reason"], found["stderr_head"]) == (True, "timeout", "thinking")
    assert "0.3 s" in found["detail"]
    assert running(word) == []
    assert api.task(found["task"])["state"] == "timed_out"


@pytest.mark.parametrize("words", [("exit", "1"), ("signal", "9")])
def test_a_failure_after_the_first_byte_breaks_the_answer_off(api: Api, words: tuple[str, ...]) -> None:
    with api.wire() as wire:
        wire.post(api.target("print", "200000", *words), "Content-Length: 0")
        answer = wire.answer()
    assert answer.status == 200
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert not answer.whole
    assert answer.body == b"x" * 200_000
    assert api.task(answer.headers["X-Task-Id"])["state"] == "failed"


def test_the_row_of_an_answer_that_broke_off_shows_how_it_ended(api: Api) -> None:
    words = (
        "warn",
        "first",
        "print",
        "200000",
        "grumble",
        "20000",
        "say",
        "this",
        "warn",
        "why",
        "exit",
        "3",
    )
    with api.wire() as wire:
        wire.post(api.target(*words, stream=1), "Content-Length: 0")
        answer = wire.answer()
    assert not answer.whole
    task = api.task(answer.headers["X-Task-Id"])
    assert (task["state"], task["stdout_bytes"], task["stderr_bytes"]) == ("failed", 200_005, 20_008)
    assert (task["stderr_head"][:6], task["stderr_tail"][-4:]) == ("firstx", "xwhy")
    assert (task["stdout_head"][:1], task["stdout_tail"][-5:]) == ("x", "this\n")


def test_a_time_out_after_the_first_byte_breaks_the_answer_off(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("say", "begun", "sleep", "60", stream=1, timeout_s=0.3), "Content-Length: 0")
        answer = wire.answer()
    assert (answer.status, answer.body, answer.whole) == (200, b"begun\n", False)
    assert api.task(answer.headers["X-Task-Id"])["state"] == "timed_out"


def test_a_sync_tasks_row_stays_and_its_output_does_not(api: Api) -> None:
    task_id = api.run("say", "x").headers["X-Task-Id"]
    for path in ("stdout", "files/tmp/x"):
        problem(
            api.http.get(f"/v1/tasks/{task_id}/{path}"),
            404 if "files" in path else 410,
            "file-unknown" if "files" in path else "result-gone",
        )
    assert api.http.get(f"/v1/tasks/{task_id}/stderr").content == b""
    task = api.task(task_id)
    assert task["state"] == "succeeded"


def test_the_images_content_type(api: Api, tools: Tools) -> None:
    label = "LABEL org.general-compute.content-type"
    for said, sent in (
        ("image/png", "image/png"),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ("nonsense", "application/octet-stream"),
        (r"text/x\nX-Evil: 1", "application/octet-stream"),
    ):
        image = tools.make('ENTRYPOINT ["/tool"]', f'{label}="{said}"')
        answer = api.run("say", "x", image=image, memory_mib=16)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, sent)
        assert "X-Evil" not in answer.headers


def test_what_the_program_sees(api: Api) -> None:
    assert api.run("env", "COLOUR", env="COLOUR=a=b c").content == b"a=b c"
    assert api.run("env", "GENERAL_COMPUTE_SLOT_TOKEN").content == b"(unset)"
    assert api.run("args", "", "é", "a b&c", "\n").content == "\0é\0a b&c\0\n\0".encode()


@pytest.mark.parametrize(
    "name", ["GC_TOKEN", "GC_INITIAL_HEAP_SIZE", "NOMAD_ADDR", "GENERAL_COMPUTE_SLOT_TOKENS", "a.b-c", "1A"]
)
def test_a_variable_of_any_name_reaches_the_program(api: Api, tools: Tools, name: str) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', f"ENV {name}=of-the-image")
    assert api.run("env", name, image=image).content == b"of-the-image"
    assert api.run("env", name, image=image, env=f"{name}=of-the-caller").content == b"of-the-caller"
    assert api.run("env", name, env=f"{name}=of-the-caller").content == b"of-the-caller"


def test_what_the_engine_gives_each_program(api: Api) -> None:
    assert api.run("env", "HOSTNAME").content == b"slot"
    assert api.run("env", "PATH").content.startswith(b"/usr/local/sbin:")


def test_without_arguments_the_images_own_cmd_runs(api: Api, tools: Tools) -> None:
    image = tools.make('ENTRYPOINT ["/tool"]', 'CMD ["say", "by default"]')
    assert api.run(image=image).content == b"by default\n"
    assert api.run("say", "asked", image=image).content == b"asked\n"


def test_an_image_with_nothing_to_run(api: Api, tools: Tools) -> None:
    image = tools.make("ENV A=b")
    assert problem(api.run(image=image), 400, "bad-parameter")["field"] == "arg"
    assert api.run("/tool", "say", "by hand", image=image).content == b"by hand\n"


def test_a_shared_slot_is_started_once(api: Api) -> None:
    answers = [api.run("say", "x", isolation="shared", memory_mib=302) for _ in range(3)]
    assert [answer.headers["X-Cold-Start"] for answer in answers] == ["1", "0", "0"]


def test_fresh_slots_are_ready_ahead_of_their_tasks(api: Api) -> None:
    def ask() -> str:
        return api.run("say", "x", isolation="fresh", memory_mib=302).headers["X-Cold-Start"]

    assert ask() == "1"

    def after_a_while() -> bool:
        # A second request, sent at once, may be faster than a busy engine.
        time.sleep(1)
        return ask() == "0"

    until(after_a_while, "a fresh slot is ready before its task", timeout_s=60)


def test_a_program_that_does_not_read_its_input(api: Api) -> None:
    assert api.run("say", "done", body=b"z" * 50_000).content == b"done\n"
    assert api.run("say", "done", body=b"z" * 10_000_000).content == b"done\n"


def test_a_program_that_closes_stdout_early_and_goes_on(api: Api) -> None:
    answer = api.run("say", "early", "mute", "take", "5", "burn", "30", body=b"input")
    assert answer.content == b"early\n"
    assert int(answer.headers["X-Cpu-Us"]) >= 30_000
    found = problem(api.run("say", "early", "mute", "exit", "4"), 422, "task-failed")
    assert found["exit_code"] == 4


def test_a_program_that_leaves_children(api: Api) -> None:
    word = mark()
    answer = api.run("children", "3", "say", "parent", word)
    # `word` is no command of the tool: it ends there, with a status that is its own.
    assert problem(answer, 422, "task-failed")["exit_code"] == 64
    assert running(word) == []
    assert api.run("children", "3", "print", "100000").content == b"x" * 100_000


def test_an_answer_that_is_read_slowly_waits_for_its_reader(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("print", "20000000"), "Content-Length: 0")
        answer = wire.begun()
        size = 0
        while piece := answer.read(1 << 20):
            size += len(piece)
    assert size == 20_000_000


def test_half_an_answer_is_never_whole_for_a_client(api: Api) -> None:
    with api.wire() as wire:
        wire.post(api.target("print", "70000", "exit", "1"), "Content-Length: 0")
        with pytest.raises(IncompleteRead):
            wire.begun().read()
    until(lambda: api.tasks(limit=1)[0]["state"] == "failed", "the task's end is recorded")
