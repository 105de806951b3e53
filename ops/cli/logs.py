"""`gcompute logs`: shows what a task writes, while it runs or afterwards."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Final

from ops.cli import report
from ops.cli.command import Argument, Option
from ops.cli.ids import on_task
from ops.cli.session import Session, connected
from ops.cli.streams import write_out
from ops.client import AnswerBroken, ApiProblem, Client, ClientError, Unreachable
from ops.client.client import PATIENCE_S

QUEUED_PIECES: Final = 16
"""Pieces of output that wait to be written; the connections wait beyond that."""

FIRST_PAUSE_S: Final = 0.1
"""Pause, in seconds, before an answer that broke off is asked for again; it doubles while no bytes come."""

Item = tuple[str, bytes | str | Exception | None]
"""An output's name and a piece of it; `say` and a message; `end` and the error that ended a follower, or None."""
Tell = Callable[[Item], None]


@connected
def logs(
    session: Session,
    task_id: Annotated[
        str,
        Argument(
            metavar="ID",
            help="A task's id, or enough of its beginning or end, e.g. its last four characters.",
        ),
    ],
    follow: Annotated[
        bool, Option(("-f", "--follow"), help="Go on until the task ends; one that waits is waited for.")
    ] = False,
    stdout: Annotated[bool, Option(("--stdout",), help="Its standard output alone.")] = False,
    stderr: Annotated[bool, Option(("--stderr",), help="Its standard error alone.")] = False,
) -> int:
    """Show what a task has written so far, each of its two outputs on the same one of this program.

    Exits with 0 whatever becomes of the task, as `docker logs` does. Where the platform starts the task again, the
    output of the new attempt follows, and a line says so.

    Examples:

        gcompute logs -f a-01jd3x

        gcompute logs --stderr a-01jd3x | tail
    """
    chosen = [name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted]
    with session.client() as client:
        found = on_task(client, task_id, client.task)["id"]
        if not follow:
            for what in chosen or ("stdout", "stderr"):
                with client.follow(found, what, so_far=True) as live:
                    for piece in live:
                        _show((what, piece))
            return 0
    _follow_all(session, found, chosen or ["stdout", "stderr"])
    return 0


def _follow_all(session: Session, task_id: str, chosen: list[str]) -> None:
    """Follow outputs beside each other. This thread alone writes: those that wait for bytes hold no stream."""
    items: queue.Queue[Item] = queue.Queue(QUEUED_PIECES)
    said: set[str] = set()
    for what in chosen:
        # A daemon: Ctrl-C, and a reader that is gone, end the program at once.
        threading.Thread(target=_run, args=(session, task_id, what, items.put), daemon=True).start()
    failure: Exception | None = None
    left = len(chosen)
    while left:
        item = items.get()
        kind, content = item
        if kind == "end":
            left -= 1
            failure = failure or (content if isinstance(content, Exception) else None)
        elif kind != "say":
            _show(item)
        elif isinstance(content, str) and content not in said:
            said.add(content)
            report.say(content)
    if failure is not None:
        raise failure


def _show(item: Item) -> None:
    what, piece = item
    assert isinstance(piece, bytes)
    if what == "stdout":
        write_out(piece)
    else:
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()


def _run(session: Session, task_id: str, what: str, tell: Tell) -> None:
    try:
        with session.client() as client:
            _Follower(client, task_id, what, tell).run()
    except Exception as error:
        # A bug, too: the thread that writes waits for the end of each follower, and raises what ended it.
        tell(("end", error))
    else:
        tell(("end", None))


class _Follower:
    """Follows one output over broken connections and lost attempts. `at`: the bytes of this attempt that were seen."""

    def __init__(self, client: Client, task_id: str, what: str, tell: Tell) -> None:
        self._client = client
        self._task_id = task_id
        self._what = what
        self._tell = tell
        self._attempt: int | None = None
        self._at = 0
        self._connected = False

    def run(self) -> None:
        """Follow to the task's end. Raises ClientError where bytes are missing, or the service is away for long."""
        heard = time.monotonic()
        pause_s = FIRST_PAUSE_S
        while True:
            before = self._at
            self._connected = False
            try:
                self._read()
                return
            except (AnswerBroken, Unreachable) as error:
                failed: ClientError = error
            except ApiProblem as error:
                if error.status == 410 and self._attempt is not None and self._saw_all():
                    return
                if error.status not in (429, 502, 503, 504):
                    raise
                failed = error
            if self._connected:
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE_S:
                raise failed
            if self._at != before:
                pause_s = FIRST_PAUSE_S
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)

    def _read(self) -> None:
        with self._client.follow(self._task_id, self._what) as live:
            self._connected = True
            if self._attempt is None:
                self._at = live.first_byte
                if live.first_byte:
                    held = f"the first {report.counted(live.first_byte, 'byte')} of its {self._what}"
                    self._tell(("say", f"{held} are no longer held"))
            elif live.attempt != self._attempt:
                self._at = 0
                self._tell(
                    ("say", f"the attempt was lost or failed; here begins attempt {live.attempt} of the task")
                )
            elif live.first_byte > self._at:
                missed = report.counted(live.first_byte - self._at, "byte")
                raise _Missed(f"{missed} of its {self._what} were missed: they are no longer held")
            self._attempt = live.attempt
            skip = self._at - live.first_byte
            for piece in live:
                fresh, skip = piece[skip:], max(0, skip - len(piece))
                if fresh:
                    self._tell((self._what, fresh))
                    self._at += len(fresh)

    def _saw_all(self) -> bool:
        """Return True if nothing is missing of a sync task's output, which is not kept after its end."""
        written: object = self._client.task(self._task_id).get(f"{self._what}_bytes")
        return written == self._at


class _Missed(ClientError):
    """Bytes of an output are lost to this reader."""
