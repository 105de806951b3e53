"""Compares what clients were told with what the platform keeps, and with what a witness saw run. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

FINAL = frozenset({"succeeded", "failed", "timed_out", "cancelled"})
BILL_SHARE = 0.5
BILL_SLACK_US = 40_000
"""A bill may exceed what the program measured by this share and this much more: the kernel's work for its start and its
clean-up. One that has a lost attempt in it exceeds it further, as programs of the rig use more than that."""
CLOCK_TICK_S = 0.02
"""The kernel tells the birth of a process by the hundredth of a second, rounded down."""

_OUTPUT = re.compile(rb"([0-9a-f]{16}) (\S+)\n(.*)\n([0-9a-f]{16}) (\d+) (\d+)\n", re.DOTALL)


@dataclass(frozen=True)
class Output:
    """The standard output of one whole run of `attempt.c`."""

    attempt: str
    cpu_us: int
    ended_us: int


def read_output(body: bytes, mark: str, stdin: bytes) -> Output | str:
    """Read an output; a text says why it is not the one of this task."""
    found = _OUTPUT.fullmatch(body)
    if found is None:
        return f"what came ({len(body)} bytes) is no whole output"
    first, named, copy, last, cpu_us, ended_us = found.groups()
    if first != last:
        return "two attempts are mixed in it"
    if named.decode() != mark:
        return f"it is the output of {named.decode()}"
    if copy != stdin:
        return "its input was another one"
    return Output(first.decode(), int(cpu_us), int(ended_us))


@dataclass
class Call:
    """One request, and its answer. `status` 0: the connection ended without an answer; `broken`: within the answer.

    `executed` is the answer's own word for it; `flaw` says why a body of 200 is not the task's output. `cpu_us` is the
    bill in the answer's head, if that has one; `own_cpu_us` is what the program measured.
    """

    kind: str
    mark: str
    sent_at: float
    ended_at: float = 0.0
    status: int = 0
    problem: str = ""
    executed: bool | None = None
    broken: bool = False
    task: str = ""
    cpu_us: int | None = None
    own_cpu_us: int = 0
    flaw: str = ""
    error: str = ""


@dataclass
class Outcome:
    """An accepted asynchronous task as its client found it in the end. `flaw`: as in `Call`; `changed`: the facts that
    a second look at the ended task showed otherwise."""

    mark: str
    task: str
    facts: dict[str, Any] = field(default_factory=dict)
    own_cpu_us: int = 0
    flaw: str = ""
    changed: str = ""


@dataclass(frozen=True)
class Life:
    """A process of a program, seen from the machine. Times are seconds since the machine's start; `last_s`: when it
    was last seen."""

    mark: str
    pid: int
    began_s: float
    last_s: float


@dataclass
class Books:
    """All that is compared. `kept`: the tasks that the set lists; `left`: what remains of slots when all has ended;
    `unheard`: times when clients could go without an answer, because the router or they themselves were cut off."""

    calls: list[Call]
    outcomes: list[Outcome]
    kept: list[dict[str, Any]]
    lives: list[Life]
    left: list[str] = field(default_factory=list)
    frozen: list[tuple[float, float]] = field(default_factory=list)
    unheard: list[tuple[float, float]] = field(default_factory=list)


def faults_of(books: Books) -> list[str]:
    """Return every broken promise, each in a line."""
    return [
        *_lost(books),
        *_doubled(books),
        *_mixed(books),
        *_misbilled(books),
        *_unsaid(books),
        *_overlapping(books),
        *(f"left over: {each}" for each in books.left),
    ]


def _lost(books: Books) -> Iterable[str]:
    """Accepted tasks that are unknown, never ended, or failed for another reason than the platform's."""
    kept = {each["id"]: each for each in books.kept}
    for outcome in books.outcomes:
        facts = outcome.facts
        if outcome.task not in kept:
            yield f"lost: {outcome.task} was accepted and is not listed"
        elif facts.get("state") not in FINAL:
            yield f"lost: {outcome.task} is {facts.get('state', 'unknown')} in the end"
        elif facts["state"] != "succeeded" and facts.get("reason") != "platform":
            yield f"lost: {outcome.task} {facts['state']} ({facts.get('reason')}: {facts.get('detail')})"
    for call in books.calls:
        if call.kind == "sync" and call.status == 200 and not call.broken and call.task not in kept:
            yield f"unbilled: {call.task} was answered and is not listed"


def _doubled(books: Books) -> Iterable[str]:
    """Marks with two tasks, tasks that are listed twice, outcomes that changed after the end."""
    for name, count in Counter(each["id"] for each in books.kept).items():
        if count > 1:
            yield f"doubled: {name} is listed {count} times"
    submitted = {call.mark for call in books.calls if call.kind == "async"}
    tasks_of: dict[str, set[str]] = defaultdict(set)
    for each in books.kept:
        if each["name"] in submitted:
            tasks_of[each["name"]].add(each["id"])
    for mark, tasks in tasks_of.items():
        if len(tasks) > 1:
            yield f"doubled: {mark} was submitted under one key and became {', '.join(sorted(tasks))}"
    for outcome in books.outcomes:
        if outcome.changed:
            yield f"doubled: {outcome.task} had ended, and changed: {outcome.changed}"


def _mixed(books: Books) -> Iterable[str]:
    told: list[Call | Outcome] = [*books.calls, *books.outcomes]
    for each in told:
        if each.flaw:
            yield f"mixed: {each.task} ({each.mark}): {each.flaw}"


def _misbilled(books: Books) -> Iterable[str]:
    """Bills that hold more than the attempt that counts, or less."""
    bills = [(each.task, each.cpu_us, each.own_cpu_us) for each in books.calls if each.own_cpu_us]
    bills += [
        (each.task, each.facts["cpu_us"], each.own_cpu_us) for each in books.outcomes if each.own_cpu_us
    ]
    kept = {each["id"]: each["cpu_us"] for each in books.kept}
    for task, told_us, own_us in bills:
        billed_us = kept.get(task, told_us)
        if billed_us is None:
            continue
        if told_us is not None and told_us != billed_us:
            yield f"billed: {task} was told {told_us} us and is kept with {billed_us} us"
        # The program reads its clock a little before its end, and after its start.
        if billed_us < own_us * 0.9:
            yield f"unbilled: {task} used {own_us} us and is billed {billed_us} us"
        if billed_us > own_us * (1 + BILL_SHARE) + BILL_SLACK_US:
            yield f"billed twice: {task} used {own_us} us and is billed {billed_us} us"


def _unsaid(books: Books) -> Iterable[str]:
    """Answers that do not say whether a program ran, say so wrongly, or never came."""
    seen = {life.mark for life in books.lives}
    for call in books.calls:
        if call.status == 0 and not _within(call, books.unheard):
            yield f"unanswered: {call.kind} {call.mark}: {call.error}"
        if call.status >= 400 and call.executed is None:
            yield f"unsaid: {call.kind} {call.mark} got {call.status} {call.problem}, which does not say `executed`"
        if call.kind == "sync" and call.executed is False and call.mark in seen:
            yield f"said wrongly: {call.mark} ran, and {call.status} {call.problem} says that it did not"


def _within(call: Call, times: Iterable[tuple[float, float]]) -> bool:
    return any(began <= call.ended_at and call.sent_at <= ended for began, ended in times)


def _overlapping(books: Books) -> Iterable[str]:
    """Two programs of one task that ran at the same time. While an executor is frozen its programs are not killed."""
    of: Mapping[str, list[Life]] = defaultdict(list)
    for life in books.lives:
        of[life.mark].append(life)
    for mark, lives in of.items():
        lives.sort(key=lambda life: life.began_s)
        for earlier, later in pairwise(lives):
            if later.began_s + CLOCK_TICK_S < earlier.last_s and not any(
                began <= earlier.last_s and later.began_s <= ended for began, ended in books.frozen
            ):
                yield (
                    f"at once: {mark} ran as {earlier.pid} until {earlier.last_s:.2f} "
                    f"and as {later.pid} from {later.began_s:.2f}"
                )


def summary(books: Books) -> dict[str, Any]:
    """Return counts for a report."""
    answers = Counter(
        f"{call.kind} {'broken off' if call.broken else call.problem or call.status or 'no answer'}"
        for call in books.calls
    )
    attempts = Counter(life.mark for life in books.lives)
    return {
        "calls": len(books.calls),
        "answers": dict(sorted(answers.items())),
        "accepted": len(books.outcomes),
        "succeeded": sum(each.facts.get("state") == "succeeded" for each in books.outcomes),
        "given up by the platform": sum(each.facts.get("reason") == "platform" for each in books.outcomes),
        "programs seen": len(books.lives),
        "tasks that ran again": sum(count > 1 for count in attempts.values()),
    }
