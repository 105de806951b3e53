"""UGC's SubmitTask: what it asks for, as a run. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from scheduler.errors import BadRequest
from scheduler.task import Kind
from sets.api import values
from sets.api.call import ASYNC_TIMEOUT_MAX_S, SYNC_TIMEOUT_MAX_S, RunCall
from sets.api.ugc.codes import RetCode, UgcError
from sets.api.ugc.command_line import words_of
from sets.api.ugc.query import UgcQuery

SYNC_TIMEOUT_S: Final = 10
QUEUE_TIMEOUT_S: Final = 10.0
REGISTRY_HOST: Final = "cn-bj2.ugchub.service.ucloud.cn/"
"""Registry of the original: clients name images with it and without it."""
KINDS: Final = {"sync": "Sync", "async": "Async"}
MAX_OUTPUTS: Final = 64


class Submission(NamedTuple):
    """An image, and how it is to be run."""

    image: str
    kind: Kind
    call: RunCall


def submission_of(query: UgcQuery) -> Submission:
    """Read the parameters of SubmitTask. Raises `UgcError`."""
    image = query.need("ImageName").removeprefix(REGISTRY_HOST)
    kind = Kind.SYNC if query.choice("TaskType", KINDS, "Async") == "Sync" else Kind.ASYNC
    name = query.get("TaskName")
    try:
        call = RunCall(
            args=words_of(query.get("Cmd") or ""),
            name=None if name is None else values.label("TaskName", name),
            timeout_s=_timeout_s(query, kind),
            queue_timeout_s=QUEUE_TIMEOUT_S,
            outputs=_outputs(query),
        )
    except BadRequest as error:
        raise UgcError(RetCode.PARAMETER_WRONG, str(error)) from None
    return Submission(image, kind, call)


def _timeout_s(query: UgcQuery, kind: Kind) -> float:
    """Absent or 0: ten seconds for a sync task, and as long as any for an async one."""
    most_s = int(SYNC_TIMEOUT_MAX_S if kind is Kind.SYNC else ASYNC_TIMEOUT_MAX_S)
    given_s = query.whole_number("TimeOut", 0, 0, most_s)
    return float(given_s or (SYNC_TIMEOUT_S if kind is Kind.SYNC else most_s))


def _outputs(query: UgcQuery) -> tuple[str, ...]:
    """Absolute paths of the output files: names below `OutputDir`, or absolute ones."""
    names = query.all("OutputFileName")
    if len(names) > MAX_OUTPUTS:
        raise UgcError(RetCode.PARAMETER_WRONG, f"OutputFileName: {MAX_OUTPUTS} at most")
    folder = query.get("OutputDir") or "/"
    found = [name if name.startswith("/") else f"{folder.rstrip('/')}/{name}" for name in names]
    return tuple(values.path("OutputFileName", path) for path in dict.fromkeys(found))
