"""The types of the API: a task, a page of tasks, the facts of a sync answer, the parameters of a run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

ENDED_STATES: Final = frozenset({"succeeded", "failed", "timed_out", "cancelled"})


class Task(TypedDict, total=False):
    """A task's JSON as the API sends it; times are RFC 3339 in UTC, durations integer microseconds."""

    id: str
    set: str
    image: str
    image_digest: str | None
    args: list[str]
    name: str | None
    kind: str
    state: str
    waiting_for: str | None
    reason: str | None
    detail: str | None
    exit_code: int | None
    signal: int | str | None
    attempts: int
    failed_attempts: list[dict[str, Any]]
    dead: bool
    replay_of: str | None
    replayed_as: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    queue_us: int | None
    duration_us: int | None
    cpu_us: int | None
    memory_peak_kib: int | None
    max_rss_kib: int
    cold_start: bool | None
    stdin_bytes: int
    stdout_bytes: int
    stdout_head: str
    stdout_tail: str
    stdout_cut_bytes: int
    stderr_bytes: int
    stderr_head: str
    stderr_tail: str
    stderr_cut_bytes: int
    files: dict[str, int]
    expires_at: str | None


class Page(TypedDict, total=False):
    """One page of the task list, newest first; `next` is the cursor of the next page, None on the last one.

    `partial` is true when a set did not answer, so its tasks are missing; `missing` says why, by set name.
    """

    tasks: list[Task]
    next: str | None
    sets: list[str]
    partial: bool
    missing: dict[str, str]


class TaskOptions(TypedDict, total=False):
    """Parameters of any run; a parameter that is left out takes the API's default."""

    env: Mapping[str, str] | None
    name: str | None
    timeout_s: float | None
    cpu: float | None
    memory_mib: int | None
    isolation: Literal["shared", "fresh"] | None
    priority: Literal["normal", "spare"] | None
    cpu_features: Sequence[str]
    outputs: Sequence[str]


class SyncOptions(TaskOptions, total=False):
    """Parameters of a synchronous run."""

    queue_timeout_s: float | None
    stream: bool


class AsyncOptions(TaskOptions, total=False):
    """Parameters of a submission, including those that are sent as headers."""

    idempotency_key: str | None
    callback_url: str | None
    retries: int | None
    retry_exit_codes: Sequence[int]


_REPEATED: Final = {"cpu_features": "cpu_feature", "outputs": "output", "retry_exit_codes": "retry_exit_code"}
_HEADERS: Final = {"idempotency_key": "Idempotency-Key", "callback_url": "X-Callback-Url"}


def parameters(args: Iterable[str], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the query parameters, in order, of a run with these arguments and options."""
    pairs = [("arg", argument) for argument in args]
    for key, value in options.items():
        if value is None or value is False or key in _HEADERS:
            continue
        if key == "env":
            pairs += [("env", f"{name}={text}") for name, text in value.items()]
        elif key in _REPEATED:
            pairs += [(_REPEATED[key], str(each)) for each in value]
        else:
            pairs.append((key, _text(value)))
    return pairs


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return format(value, ".12g") if isinstance(value, float) else str(value)


def submit_headers(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headers for a submission's own options."""
    return [(header, str(options[key])) for key, header in _HEADERS.items() if options.get(key) is not None]


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts in a sync answer's headers about a task that ended within its first 64 KiB of output."""

    exit_code: int
    cpu_us: int
    duration_us: int
    queue_us: int
    cold_start: bool
    detail: str | None = None
    """A remark of the platform on a task that succeeded, e.g. that the kernel killed a process for memory."""

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> "Facts | None":
        """Return the facts; None if the answer streams, as the facts are only at the task's URL then."""
        try:
            return cls(
                exit_code=int(headers["x-exit-code"]),
                cpu_us=int(headers["x-cpu-us"]),
                duration_us=int(headers["x-duration-us"]),
                queue_us=int(headers["x-queue-us"]),
                cold_start=headers["x-cold-start"] == "1",
                detail=headers.get("x-detail"),
            )
        except (KeyError, ValueError):
            return None
