"""Waiting for tasks with a line that shows how far they are."""

import json
import sys
import time
from collections.abc import Sequence

from ops.cli import exits, report
from ops.client import ENDED_STATES, Client


class ProgressLine:
    """One line on the terminal that is overwritten; nothing at all where stderr is no terminal."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self._began = time.monotonic()

    def show(self, text: str) -> None:
        if self.shown:
            elapsed_s = int(time.monotonic() - self._began)
            sys.stderr.write(f"\r\x1b[2K{text} ({elapsed_s} s)")
            sys.stderr.flush()

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def follow(
    client: Client,
    task_ids: Sequence[str],
    *,
    as_json: bool,
    timeout_s: float | None = None,
    quiet: bool = False,
) -> int:
    """Wait for tasks in turn and print each end; `quiet` leaves out a task that succeeded.

    Returns the exit code of the first that did not succeed, else 0.
    """
    line = ProgressLine()
    began = time.monotonic()
    worst = 0
    for done, task_id in enumerate(task_ids):
        left_s = None if timeout_s is None else max(0.0, began + timeout_s - time.monotonic())
        try:
            for task in client.watch(task_id, timeout_s=left_s, poll_s=1 if line.shown else 30):
                count = f"{done} of {len(task_ids)} ended, " if len(task_ids) > 1 else ""
                line.show(f"{count}{task_id}: {report.plain(task['state'])}")
        finally:
            line.clear()
        code = exits.of_task(task)
        worst = worst or code
        if as_json:
            print(json.dumps(task), flush=True)
        elif task["state"] not in ENDED_STATES:
            report.say(f"task {task_id} is still {task['state']}")
        elif code or not quiet:
            print(report.facts(task), flush=True)
            if code and task.get("stderr_head"):
                report.say(task["stderr_head"].rstrip("\n"), prefix="")
    return worst
