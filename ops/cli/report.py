"""Prints errors with a hint, a task's facts and the table of tasks."""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from ops.cli.streams import OutputFailed
from ops.client.errors import AnswerBroken, ApiProblem, ClientError, InputFailed, TaskFailed, Unreachable
from ops.client.model import Task

_HINTS_BY_NAME: Final = {
    "image-unknown": "check the image's name and tag; the set's engine must hold or be able to pull it",
    "image-denied": "push the image where the set may read it, or ask the operator to correct the set's login",
    "registry-not-allowed": "name an image of a registry that the set's setting `registries` lists",
    "task-unknown": "`gcompute tasks` lists this account's tasks",
    "router-unknown-task": "`gcompute tasks` lists this account's tasks",
    "file-unknown": "`gcompute status ID` lists the files that were kept; --output asks for them when a task begins",
}
_NOT_KEPT: Final = "output not kept: "
_HINTS: Final = {
    401: "give a token with GC_TOKEN or --token; it looks like gc_ACCOUNT_SECRET",
    403: "this account may not do that; check GC_TOKEN, GC_ACCOUNT and whose task it is",
    409: "wait for it with `gcompute wait ID`",
    410: "the output of a synchronous task is sent once and not kept; `gcompute submit` keeps it",
    413: "send less, or ask for a higher limit for the account",
    414: "arguments and environment travel in the request line, 64 KiB long at most; send the rest as input",
}


def error(failure: ClientError, *, as_json: bool, code: int) -> None:
    """Print an error on stderr: as text, or as one line of JSON with the problem's fields and our exit code."""
    if as_json:
        print(json.dumps(_document(failure) | {"exit_code_of_gcompute": code}), file=sys.stderr)
        return
    if isinstance(failure, TaskFailed):
        said(failure.document)
        say(f"task {failure.task_id or ''} failed: {failure.detail or failure.title}".replace("  ", " "))
        return
    say(_sentence(failure))
    hint = _hint(failure)
    if hint:
        say(f"hint: {hint}", prefix="")


def said(task: Mapping[str, Any]) -> None:
    """Print the beginning and the end of a failed task's stderr on our stderr, and mark the cut between them."""
    head, tail = task.get("stderr_head") or "", task.get("stderr_tail") or ""
    text = head + cut(task, "stderr") + tail
    if text:
        _say_raw(text if text.endswith("\n") else text + "\n")


def say_missing(task: Task, asked: Iterable[str] = ()) -> bool:
    """Print which output files are missing (of those `asked` for, or as the set reports) and why.

    Returns True if any is missing.
    """
    missing = [path for path in asked if path not in (task.get("files") or {})]
    why = (task.get("detail") or "").partition(_NOT_KEPT)[2]
    if missing or why:
        say(f"task {task['id']}: {_NOT_KEPT}{plain(why) or ', '.join(missing)}")
    return bool(missing or why)


def say_detail(task: Task, asked: Iterable[str] = ()) -> bool:
    """Print a task's `detail`, however the task ended, or which of the files `asked` for are missing.

    Returns True if any file is missing."""
    if task.get("dead"):
        say(f"the platform gave task {task['id']} up; to run it again: gcompute replay {task['id']}")
    detail = task.get("detail") or ""
    if not detail or detail in ending(task):
        return say_missing(task, asked)
    say(f"task {task['id']}: {plain(detail)}")
    return _NOT_KEPT in detail or any(path not in (task.get("files") or {}) for path in asked)


def cut(task: Mapping[str, Any], name: str) -> str:
    """Return the mark for the middle of an output that was not kept; empty if all of it was."""
    cut_bytes = task.get(f"{name}_cut_bytes")
    return f"\n[… {counted(cut_bytes, 'byte')} of {name} left out …]\n" if cut_bytes else ""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 byte, 2 bytes."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def say(text: str, *, prefix: str = "gcompute: ") -> None:
    """Print a line on stderr."""
    _say_raw(f"{prefix}{text}\n")


def plain(text: str) -> str:
    """Return text from outside without the characters that could control a terminal."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )


def facts(task: Task) -> str:
    """Return the known facts of a task in one line."""
    parts = [f"task {task.get('id', '?')}"]
    if task.get("set"):
        parts[0] += f" on set {task['set']}"
    parts.append(ending(task))
    for key, words in (("duration_us", "ran"), ("cpu_us", "CPU"), ("queue_us", "waited")):
        value = task.get(key)
        if isinstance(value, int):
            parts.append(f"{words} {duration(value)}")
    peak = task.get("memory_peak_kib")
    if peak:
        parts.append(f"memory {peak / 1024:.1f} MiB")
    if task.get("cold_start") is not None:
        parts.append("cold start" if task["cold_start"] else "warm slot")
    return plain(", ".join(parts))


def ending(task: Task) -> str:
    """Return how a task ended, or its state."""
    state = task.get("state", "succeeded")
    if state == "failed":
        reason = {"out_of_memory": "out of memory", "not_executable": "not executable"}.get(
            task.get("reason") or "", ""
        )
        if reason:
            return f"failed: {reason}"
        if task.get("signal") is not None:
            return f"failed: signal {task['signal']}"
        if task.get("exit_code") is not None:
            return f"failed: exit code {task['exit_code']}"
        return f"failed: {task.get('reason') or 'reason unknown'}"
    return state.replace("_", " ")


def duration(microseconds: int) -> str:
    """Return a duration with a suitable unit."""
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1_000:.1f} ms"
    if microseconds < 120_000_000:
        return f"{microseconds / 1_000_000:.2f} s"
    minutes, seconds = divmod(microseconds // 1_000_000, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} h"


_COLUMNS: Final = ("ID", "STATE", "IMAGE", "NAME", "CREATED", "RAN", "CPU", "EXIT")


def _row(task: Task) -> tuple[str, ...]:
    ran, cpu = (task.get(key) for key in ("duration_us", "cpu_us"))
    by_signal, exit_code = task.get("signal"), task.get("exit_code")
    end = f"signal {by_signal}" if by_signal is not None else str(exit_code if exit_code is not None else "")
    cells = (
        task.get("id", ""),
        task.get("state", ""),
        task.get("image", ""),
        task.get("name") or "",
        (task.get("created_at") or "")[:19].replace("T", " "),
        duration(ran) if isinstance(ran, int) else "",
        duration(cpu) if isinstance(cpu, int) else "",
        end,
    )
    return tuple(plain(cell).replace("\n", " ").replace("\t", " ") for cell in cells)


def table(tasks: Iterable[Task], *, heading: bool = True) -> None:
    """Print tasks as a table: drawn on a terminal; in a pipe with tabs between columns, and nothing cut off."""
    rows = [_row(task) for task in tasks]
    if not sys.stdout.isatty():
        for row in ([_COLUMNS] if heading else []) + rows:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {
        "succeeded": "green",
        "failed": "red",
        "timed_out": "red",
        "running": "cyan",
        "queued": "yellow",
    }
    drawn = Table(box=None, pad_edge=False, show_header=heading, header_style="bold")
    for name in _COLUMNS:
        drawn.add_column(
            name, no_wrap=name == "ID", justify="right" if name in ("RAN", "CPU", "EXIT") else "left"
        )
    for row in rows:
        cells = [Text(cell) for cell in row]
        cells[1].stylize(styles.get(row[1], ""))
        drawn.add_row(*cells)
    Console().print(drawn)


def details(task: Mapping[str, Any]) -> None:
    """Print the fields of a task, one a line, in the order of the answer; empty fields are left out."""
    width = max((len(key) for key in task), default=0)
    for key, value in task.items():
        if value in (None, "", [], {}):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if key.endswith("_us") and isinstance(value, int):
            text = f"{value} ({duration(value)})"
        lines = plain(text).rstrip("\n").split("\n")
        print(f"{key:<{width}}  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<{width}}  {line}")


def _sentence(failure: ClientError) -> str:
    match failure:
        case Unreachable(refused=True):
            return f"no router at {failure.url} ({failure})"
        case Unreachable():
            return f"{failure.url}: {failure}"
        case ApiProblem():
            where = f" (said by router {failure.router})" if failure.router else ""
            return f"{failure}{where}"
        case _:
            return str(failure)


def _hint(failure: ClientError) -> str | None:
    match failure:
        case Unreachable(refused=True):
            return "start one with `make up`, or set --url or GC_URL"
        case Unreachable() | AnswerBroken():
            return "the call may have been executed; only a submission with --idempotency-key can be repeated safely"
        case ApiProblem(name=name) if name in _HINTS_BY_NAME:
            return _HINTS_BY_NAME[name]
        case ApiProblem(retry_after_s=int(seconds)):
            return f"try again in {seconds} s"
        case ApiProblem():
            return _HINTS.get(failure.status)
        case _:
            return None


def _document(failure: ClientError) -> dict[str, Any]:
    document: dict[str, Any]
    if isinstance(failure, ApiProblem):
        document = {"title": failure.title, "status": failure.status, **failure.document}
        document["retry_after_s"] = failure.retry_after_s
    else:
        names = {Unreachable: "unreachable", AnswerBroken: "answer-broken", InputFailed: "input-failed"}
        name = names.get(type(failure), "client-error")
        document = {"type": f"gcompute:{name}", "title": _sentence(failure), "status": None}
        if isinstance(failure, AnswerBroken):
            document["task"] = failure.task_id
    document["hint"] = _hint(failure)
    return document


def _say_raw(text: str) -> None:
    with suppress(
        OutputFailed
    ):  # Flush stdout first, to keep the order; an error of stdout is reported at the end.
        sys.stdout.flush()
    stream = sys.stderr
    encoded = (plain(text) if stream.isatty() else text).encode("utf-8", "replace")
    stream.flush()
    stream.buffer.write(encoded)
    stream.buffer.flush()
