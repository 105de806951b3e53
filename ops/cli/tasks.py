"""`gcompute status`, `result`, `wait`, `cancel` and `tasks`: follow and control tasks."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from ops.cli import exits, report
from ops.cli.command import Argument, BadParameter, Option
from ops.cli.downloads import save
from ops.cli.ids import on_task
from ops.cli.session import Session, connected, ends_as_task
from ops.cli.streams import write_out
from ops.cli.waiting import follow
from ops.client import Client, Task

_ID: Final = "A task's id, or enough of its beginning or end, e.g. its last four characters."
TaskId = Annotated[str, Argument(metavar="ID", help=_ID)]
TaskIds = Annotated[list[str], Argument(metavar="ID…", help=_ID)]

_PAGE: Final = 20
_WHOLE_LIST_PAGE: Final = 100


@connected
def status(
    session: Session,
    task_id: TaskId,
    timeline: Annotated[
        bool, Option(("--timeline",), help="Show when the task waited, ran and was recorded, as a picture.")
    ] = False,
) -> int:
    """Show all facts about a task.

    Examples:

        gcompute status a-01jd3x

        gcompute status a-01jd3x --timeline

        gcompute status --json a-01jd3x | jq .cpu_us
    """
    if timeline:
        return _timeline(session, task_id)
    with session.client() as client:
        task = on_task(client, task_id, client.task)
    if session.as_json:
        print(json.dumps(task))
    else:
        report.details(task)
    return 0


def _timeline(session: Session, task_id: str) -> int:
    with session.client() as client:
        found = on_task(client, task_id, client.timeline)
    if session.as_json:
        print(json.dumps(found))
    else:
        from ops.cli.timeline import draw

        draw(found)
    return 0


@ends_as_task
def result(
    session: Session,
    task_id: TaskId,
    stderr: Annotated[
        bool, Option(("--stderr",), help="Fetch its standard error instead of its output.")
    ] = False,
    file: Annotated[
        str | None, Option(metavar="PATH", help="Fetch this file, kept with --output, by its absolute path.")
    ] = None,
    to: Annotated[
        Path | None,
        Option(
            ("-o", "--to"), metavar="FILE", help="Write to this file; it appears only once it is complete."
        ),
    ] = None,
) -> int:
    """Fetch the output of a submitted task that has ended. Exits as the task did, and says so if it failed.

    Examples:

        gcompute result a-01jd3x > page.txt

        gcompute result a-01jd3x --file /tmp/out.pdf -o out.pdf

        gcompute result a-01jd3x --stderr
    """
    if file is not None and (stderr or not file.startswith("/")):
        reason = "cannot be combined with --stderr" if stderr else f"{file!r} must be an absolute path"
        raise BadParameter(reason, param_hint="--file")
    if to is not None and to.is_dir():
        raise BadParameter(f"{to} is a folder; name a file", param_hint="--to")
    what = file or ("stderr" if stderr else "stdout")

    def fetch(found: str) -> tuple[Task, int]:
        pieces = client.result(found, what)
        size = 0
        if to is None:
            for piece in pieces:
                write_out(piece)
                size += len(piece)
        else:
            size = save(pieces, to)
            if session.as_json:
                print(json.dumps({"task": found, "what": what, "bytes": size, "file": str(to)}))
            else:
                report.say(f"{report.counted(size, 'byte')} in {to}", prefix="")
        return client.task(found), size

    with session.client() as client:
        task, size = on_task(client, task_id, fetch)
    code = exits.of_task(task)
    report.say_detail(task)
    if code:
        if not stderr:
            report.said(task)
        report.say(f"task {task['id']} {report.ending(task)}")
    written = {"stdout": task.get("stdout_bytes"), "stderr": task.get("stderr_bytes")}.get(what)
    if written is not None and size < written:
        report.say(f"only the first {size} of {written} bytes of its {what} were kept")
        return code or exits.FAILED
    return code


@ends_as_task
def wait(
    session: Session,
    task_ids: TaskIds,
    timeout_s: Annotated[
        float | None, Option(help="Give up after this many seconds, with exit code 125.")
    ] = None,
) -> int:
    """Wait until tasks have ended, and exit with the code of the first that did not succeed.

    Tries again while the service is down for a moment, e.g. restarting.

    Examples:

        gcompute wait a-01jd3x && gcompute result a-01jd3x

        gcompute wait --timeout-s 600 a-01jd3x b-01jd3y
    """
    with session.client() as client:
        return follow(client, task_ids, as_json=session.as_json, timeout_s=timeout_s)


@connected
def cancel(session: Session, task_ids: TaskIds) -> int:
    """Cancel tasks that wait or run; a task that has ended is left unchanged.

    Examples:

        gcompute cancel a-01jd3x

        gcompute tasks --state queued --all --json | jq -r '.tasks[].id' | xargs gcompute cancel
    """
    with session.client() as client:
        for task_id in task_ids:
            task = on_task(client, task_id, client.cancel)
            print(json.dumps(task) if session.as_json else report.facts(task), flush=True)
    return 0


@connected
def tasks(
    session: Session,
    which: Annotated[
        Literal["dead"] | None,
        Argument(
            metavar="[dead]",
            help="Only dead letters: the platform gave them up, and `gcompute replay` runs them.",
        ),
    ] = None,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "timed_out", "cancelled", "dead"] | None,
        Option(help="Only tasks in this state."),
    ] = None,
    image: Annotated[str | None, Option(help="Only tasks of this image.")] = None,
    name: Annotated[str | None, Option(help="Only tasks with this label.")] = None,
    limit: Annotated[int | None, Option(min=1, help="Tasks per page (20; with --all 100).")] = None,
    before: Annotated[
        str | None, Option(metavar="CURSOR", help="Continue after an earlier page: the value of its `next`.")
    ] = None,
    whole: Annotated[bool, Option(("--all",), help="All pages, one after another.")] = False,
) -> int:
    """List this account's tasks, newest first, merged over all sets.

    In a pipe, columns are separated by tabs; with --json, each page is one line of JSON.

    Examples:

        gcompute tasks --state failed --limit 5

        gcompute tasks dead --image ocr:1

        gcompute tasks --all --json --image ocr:1 | jq -r '.tasks[] | [.id, .cpu_us] | @tsv'
    """
    if which is not None and state not in (None, which):
        raise BadParameter(f"cannot be combined with {which}", param_hint="--state")
    state = which or state
    size = limit or (_WHOLE_LIST_PAGE if whole else _PAGE)
    with session.client() as client:
        _list(session, client, state=state, image=image, name=name, before=before, limit=size, whole=whole)
    return 0


def _list(
    session: Session,
    client: Client,
    *,
    state: str | None,
    image: str | None,
    name: str | None,
    before: str | None,
    limit: int,
    whole: bool,
) -> None:
    first = True
    while first or (whole and before):
        page = client.tasks(state=state, image=image, name=name, before=before, limit=limit)
        following = page.get("next")
        say_partial(page)
        if session.as_json:
            print(json.dumps(page), flush=True)
        elif first and not page["tasks"]:
            report.say("no tasks", prefix="")
        else:
            report.table(page["tasks"], heading=first)
            sys.stdout.flush()
        if following == before:
            break  # A cursor that does not advance would make this loop endless.
        before, first = following, False
    if before and not session.as_json:
        report.say(f"more: --before {before}, or --all", prefix="")


def say_partial(page: Mapping[str, Any], entries: str = "tasks") -> None:
    """Tell which sets are missing from a page of `entries`, and why; print nothing for a whole page."""
    if not page.get("partial"):
        return
    report.say(f"only sets {', '.join(page.get('sets') or ['?'])} answered: {entries} of others are missing")
    for name, why in (page.get("missing") or {}).items():
        report.say(f"set {name}: {why}", prefix="")
