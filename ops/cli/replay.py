"""`gcompute replay`: run tasks again that the platform gave up."""

import json
from collections.abc import Iterator
from typing import Annotated, Final

from ops.cli import exits, report
from ops.cli.command import Argument, BadParameter, Option, UsageError
from ops.cli.ids import on_task
from ops.cli.session import Session, connected
from ops.cli.tasks import say_partial
from ops.cli.waiting import ProgressLine
from ops.client import ApiProblem, Client, Page, Task

_PAGE: Final = 100


@connected
def replay(
    session: Session,
    task_ids: Annotated[
        list[str] | None,
        Argument(metavar="[ID]…", help="Ids of dead letters, as `gcompute tasks dead` lists them."),
    ] = None,
    whole: Annotated[bool, Option(("--all",), help="All dead letters of this account.")] = False,
    image: Annotated[str | None, Option(help="With --all: only tasks of this image.")] = None,
    name: Annotated[str | None, Option(help="With --all: only tasks with this label.")] = None,
) -> int:
    """Run dead letters, tasks that the platform gave up, again with their inputs, and print the new tasks' ids.

    Safe to repeat: a task that was replayed leaves the list, and replaying it by its id again gives the same new task.
    After an error, --all goes on where it stopped.

    Examples:

        gcompute replay a-01jd3x

        gcompute replay --all --image ocr:1

        gcompute tasks dead && gcompute replay --all | xargs gcompute wait
    """
    if whole and task_ids:
        raise BadParameter("cannot be combined with ids", param_hint="--all")
    if not whole and not task_ids:
        raise UsageError("name the tasks to replay, or say --all")
    for flag, value in (("--image", image), ("--name", name)):
        if value is not None and not whole:
            raise BadParameter("chooses among the tasks of --all, which is missing", param_hint=flag)
    with session.client() as client:
        if whole:
            return _all(session, client, image, name)
        for task_id in task_ids or ():
            _print(session, on_task(client, task_id, client.replay))
    return 0


def _all(session: Session, client: Client, image: str | None, name: str | None) -> int:
    line = ProgressLine()
    replayed = 0
    code = 0
    try:
        for page in _pages(client, image, name):
            if page.get("partial"):
                code = exits.UNAVAILABLE
                line.clear()
            say_partial(page)
            for dead in page["tasks"]:
                try:
                    new = client.replay(dead["id"])
                except ApiProblem as problem:
                    # Since it was listed, its place was needed or its time is over.
                    if problem.name not in ("task-not-dead", "task-unknown"):
                        raise
                    line.clear()
                    report.say(f"task {dead['id']} is no longer a dead letter")
                    continue
                replayed += 1
                line.clear()
                _print(session, new)
                line.show(f"{report.counted(replayed, 'task')} replayed")
    finally:
        line.clear()
        report.say(f"{report.counted(replayed, 'task')} replayed", prefix="")
    return code


def _pages(client: Client, image: str | None, name: str | None) -> Iterator[Page]:
    before: str | None = None
    while True:
        page = client.tasks(state="dead", image=image, name=name, before=before, limit=_PAGE)
        yield page
        if page.get("next") in (None, before):
            return
        before = page["next"]


def _print(session: Session, task: Task) -> None:
    print(json.dumps(task) if session.as_json else task["id"], flush=True)
