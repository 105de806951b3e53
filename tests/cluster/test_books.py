"""The comparison of the books finds each kind of broken promise, and nothing in books that are right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.books import Books, Call, Life, Outcome, Output, faults_of, read_output, summary

NAME = "0123456789abcdef"
OTHER = "fedcba9876543210"


def right() -> Books:
    """A sync call, a refused one, and an accepted task whose first attempt was lost."""
    return Books(
        calls=[
            Call(
                *("sync", "m1", 1.0, 2.0, 200),
                executed=None,
                task="a-1",
                cpu_us=101_000,
                own_cpu_us=100_000,
            ),
            Call("sync", "m2", 1.0, 2.0, 503, "set-full", executed=False),
            Call("async", "m3", 1.0, 1.1, 202, task="a-3"),
        ],
        outcomes=[Outcome("m3", "a-3", kept("a-3", "m3"), own_cpu_us=100_000)],
        kept=[kept("a-1", "m1"), kept("a-3", "m3")],
        lives=[Life("m1", 11, 1.1, 1.9), Life("m3", 12, 1.2, 3.0), Life("m3", 13, 3.5, 4.0)],
    )


def kept(task: str, mark: str, **changes: Any) -> dict[str, Any]:
    """A task as the set lists it."""
    return {"id": task, "name": mark, "state": "succeeded", "reason": None, "cpu_us": 101_000, **changes}


def only_fault(books: Books) -> str:
    found = faults_of(books)
    assert len(found) == 1, found
    return found[0]


def test_right_books_have_no_fault() -> None:
    assert faults_of(right()) == []


def test_a_summary_counts_answers_and_second_attempts() -> None:
    found = summary(right())
    assert found["answers"] == {"async 202": 1, "sync 200": 1, "sync set-full": 1}
    assert (found["accepted"], found["succeeded"], found["tasks that ran again"]) == (1, 1, 1)


def test_a_task_that_is_not_listed_is_lost() -> None:
    books = right()
    del books.kept[1]
    assert only_fault(books) == "lost: a-3 was accepted and is not listed"


@pytest.mark.parametrize("state", ["queued", "running", "unknown"])
def test_a_task_that_never_ends_is_lost(state: str) -> None:
    books = right()
    books.outcomes[0].facts = {} if state == "unknown" else kept("a-3", "m3", state=state)
    books.outcomes[0].own_cpu_us = 0
    assert only_fault(books) == f"lost: a-3 is {state} in the end"


def test_the_platform_may_give_a_task_up_but_not_blame_it() -> None:
    books = right()
    books.outcomes[0].own_cpu_us = 0
    books.outcomes[0].facts |= {"state": "failed", "reason": "platform", "cpu_us": 0}
    assert faults_of(books) == []
    books.outcomes[0].facts |= {"reason": "signal", "detail": "signal 9"}
    assert only_fault(books) == "lost: a-3 failed (signal: signal 9)"


def test_an_answer_without_a_record_is_unbilled() -> None:
    books = right()
    del books.kept[0]
    assert only_fault(books) == "unbilled: a-1 was answered and is not listed"


def test_a_key_with_two_tasks_is_doubled() -> None:
    books = right()
    books.kept.append(kept("a-4", "m3"))
    assert only_fault(books).startswith("doubled: m3 was submitted under one key")


def test_a_task_that_is_listed_twice_is_doubled() -> None:
    books = right()
    books.kept.append(kept("a-3", "m3"))
    assert only_fault(books) == "doubled: a-3 is listed 2 times"


def test_an_outcome_never_changes() -> None:
    books = right()
    books.outcomes[0].changed = "cpu_us was 1 and is 2"
    assert only_fault(books).startswith("doubled: a-3 had ended, and changed")


@pytest.mark.parametrize(
    ("billed_us", "word"), [(205_000, "billed twice"), (50_000, "unbilled"), (140_000, "")]
)
def test_a_bill_is_of_the_attempt_that_counts(billed_us: int, word: str) -> None:
    books = right()
    books.outcomes[0].facts["cpu_us"] = books.kept[1]["cpu_us"] = billed_us
    assert [each.partition(":")[0] for each in faults_of(books)] == [word] * bool(word)


def test_a_bill_stays_as_it_was_told() -> None:
    books = right()
    books.kept[0]["cpu_us"] = 102_000
    assert only_fault(books) == "billed: a-1 was told 101000 us and is kept with 102000 us"
    # An answer that streams has no bill in its head.
    books.calls[0].cpu_us = None
    assert faults_of(books) == []


def test_every_answer_says_if_a_program_ran() -> None:
    books = right()
    books.calls[1].executed = None
    assert only_fault(books).startswith("unsaid: sync m2 got 503")


def test_an_answer_that_denies_a_program_that_was_seen_is_wrong() -> None:
    books = right()
    books.lives.append(Life("m2", 14, 1.2, 1.4))
    assert only_fault(books).startswith("said wrongly: m2 ran")


def test_a_call_without_an_answer_is_a_fault_unless_its_client_was_cut_off() -> None:
    books = right()
    books.calls.append(Call("sync", "m5", 5.0, 6.0, error="reset"))
    assert only_fault(books) == "unanswered: sync m5: reset"
    books.unheard.append((5.5, 8.0))
    assert faults_of(books) == []


def test_two_programs_of_a_task_at_once_are_a_fault_unless_an_executor_was_frozen() -> None:
    books = right()
    books.lives[2] = Life("m3", 13, 2.5, 4.0)
    assert only_fault(books) == "at once: m3 ran as 12 until 3.00 and as 13 from 2.50"
    books.frozen.append((0.5, 2.7))
    assert faults_of(books) == []


def test_slots_that_remain_are_a_fault() -> None:
    books = right()
    books.left.append("container gc-x")
    assert only_fault(books) == "left over: container gc-x"


def output(first: str = NAME, mark: str = "m1", copy: bytes = b"in\nput", last: str = NAME) -> bytes:
    return b"%s %s\n%s\n%s 100 200\n" % (first.encode(), mark.encode(), copy, last.encode())


def test_an_output_is_read() -> None:
    assert read_output(output(), "m1", b"in\nput") == Output(NAME, 100, 200)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (output()[:-5], "is no whole output"),
        (b"", "is no whole output"),
        (output(last=OTHER), "two attempts are mixed"),
        (output(mark="m2"), "the output of m2"),
        (output(copy=b"input"), "input was another"),
    ],
)
def test_an_output_that_is_not_the_task_s(body: bytes, why: str) -> None:
    found = read_output(body, "m1", b"in\nput")
    assert isinstance(found, str)
    assert why in found
