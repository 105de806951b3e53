"""`gcompute set drain`, `resume` and `backup`: an operator's orders to one set."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final

from ops.cli import exits, report
from ops.cli.command import Argument, Option
from ops.cli.session import Session, at_set

ASK_EVERY_S: Final = 1.0
"""How often, in seconds, `drain` asks the set what still runs."""


@at_set
def drain(
    session: Session,
    timeout_s: Annotated[
        float | None,
        Option(
            ("--timeout",),
            metavar="SECONDS",
            min=0,
            help="Wait this long at most; by default until nothing runs.",
        ),
    ] = None,
) -> int:
    """Let a set finish what runs and begin nothing new, and wait until nothing runs.

    The set refuses new tasks, so routers send them to other sets; first take its weight away (`gcompute router drain`).
    Asynchronous tasks that wait stay in its store: they run after `gcompute set resume`, or after the set's next start.
    Exits with 75 if tasks still run after --timeout; the set goes on draining.

    Examples:

        gcompute set drain --url http://10.0.0.5:8101

        gcompute set drain --timeout 600 && systemctl restart gcompute-set@a
    """
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    told = -1
    with session.set_client() as client:
        state = client.drain()
        while state["draining"] and state["running"]:
            if state["running"] != told and not session.as_json:
                told = state["running"]
                report.say(f"set {state['set']} drains: {_tasks(state)}")
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return _ended(session, state, exits.TRY_AGAIN, "still runs tasks, and goes on draining")
            time.sleep(ASK_EVERY_S)
            state = client.draining()
    if not state["draining"]:
        return _ended(session, state, exits.UNAVAILABLE, "was resumed or restarted, and takes tasks")
    return _ended(session, state, 0, "is drained")


@at_set
def resume(session: Session) -> int:
    """Let a set take and begin tasks again, after `gcompute set drain`.

    Examples:

        gcompute set resume --url http://10.0.0.5:8101
    """
    with session.set_client() as client:
        state = client.resume()
    if state["draining"]:
        return _ended(session, state, exits.UNAVAILABLE, "is being stopped, and takes no tasks")
    return _ended(session, state, 0, "takes tasks")


def backup(
    config: Annotated[Path, Argument(metavar="FILE", help="The set's YAML file.", existing=True)],
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Where the backup goes: a new folder, or an earlier backup.")
    ],
) -> int:
    """Copy a set's store, with all inputs and results, whether the set runs or not.

    The copy is the store as it was at one moment. An earlier backup in FOLDER stays whole until the new one is, and
    only bodies that it lacks are copied. Run it as the set's user, on the set's machine; ops/runbook.md says how to
    restore.

    Examples:

        gcompute set backup /etc/general-compute/set-a.yaml /mnt/backup/set-a
    """
    from scheduler.errors import SchedulerError
    from scheduler.store.backup import back_up
    from sets.config import load
    from sets.yaml_file import ConfigError

    try:
        state = load(config).directory
    except ConfigError as error:
        report.say(str(error))
        return exits.CONFIG
    try:
        made = back_up(state / "tasks.db", state / "blobs", folder)
    except SchedulerError as error:
        report.say(str(error))
        return exits.IO
    print(
        f"{folder} is a backup of {state}; large inputs and results in it: {made.bodies}, "
        f"copied now: {made.copied} ({made.copied_bytes / (1 << 20):.1f} MiB)"
    )
    return 0


def _tasks(state: dict[str, Any]) -> str:
    return f"tasks that run: {state['running']}, that wait: {state['waiting']}"


def _ended(session: Session, state: dict[str, Any], code: int, said: str) -> int:
    if session.as_json:
        print(json.dumps(state))
    else:
        print(f"set {state['set']} {said}; {_tasks(state)}")
    return code
