"""Waits for tasks, and shows their state in one line."""

import json
import sys
import time
from collections.abc import Sequence

from ops.cli import exits, report
from ops.cli.ids import on_task
from ops.client import ENDED_STATES, Client, Task


class ProgressLine:
    """A line on the terminal that is overwritten, shown after `after_s` seconds; nothing if stderr is no terminal."""

    def __init__(self, after_s: float = 0) -> None:
        self.shown = sys.stderr.isatty()
        self._began = self._last = time.monotonic()
        self._after_s = after_s
        self._drawn = False

    def show(self, text: str) -> None:
        now = time.monotonic()
        if not self.shown or now - self._began < self._after_s or (self._drawn and now - self._last < 0.1):
            return
        self._last = now
        self._drawn = True
        sys.stderr.write(f"\r\x1b[2K{report.plain(text)} ({int(now - self._began)} s)")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._drawn:
            self._drawn = False
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
    """Wait for tasks in turn and print how each ended; `quiet` omits tasks that succeeded.

    Returns the exit code of the first that did not succeed, else 0.
    """
    line = ProgressLine()
    began = time.monotonic()
    worst = 0

    def last_of(task_id: str) -> Task:
        left_s = None if timeout_s is None else max(0.0, began + timeout_s - time.monotonic())
        try:
            for task in client.watch(task_id, timeout_s=left_s, poll_s=1 if line.shown else 30):
                line.show(f"{count}{task_id}: {task['state']}")
        finally:
            line.clear()
        return task

    for done, given in enumerate(task_ids):
        count = f"{done} of {len(task_ids)} ended, " if len(task_ids) > 1 else ""
        task = on_task(client, given, last_of)
        code = exits.of_task(task)
        worst = worst or code
        if as_json:
            print(json.dumps(task), flush=True)
        elif task["state"] not in ENDED_STATES:
            report.say(f"task {task['id']} is still {task['state']}")
        elif code or not quiet:
            print(report.facts(task), flush=True)
            if code:
                report.said(task)
        if not as_json:
            report.say_detail(task)
    return worst
