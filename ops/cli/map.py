"""`gcompute map`: run an image on every file of a folder, or on every line, and save the results as they come."""

import hashlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, cast

from ops.cli import exits, options, report
from ops.cli.command import Argument, BadParameter, Option
from ops.cli.map_folder import Results, archive_of, files_below
from ops.cli.session import Session, connected
from ops.client import AnswerBroken, ApiProblem, AsyncOptions, Client, Unreachable
from ops.client.batches import ARCHIVE, IDS, LINES, Batch, Batches
from ops.client.client import PATIENCE_S

POLL_S: Final = 2.0
"""How long one question waits for the end of the batch, in seconds; results come at least as often."""
IDS_BYTES: Final = 8 << 20
"""Most bytes of a list of ids, as the service takes them."""
SAID_AFTER: Final = 2
"""How many answers in a row say why a batch waits before it is told: most pauses are short."""
_STDIN: Final = "-"
_PASSING: Final = (429, 502, 503, 504)

Show = Callable[[int, int, str], None]
"""Shows how much of how much is done, and in words of what."""


@connected
def map_(
    session: Session,
    image: options.Image,
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE",
            help="A folder, each file of which is the input of one task; or - for JSON lines on standard input, each "
            'such as {"args": ["-l", "eng"], "name": "page-1", "input": "text"}; with --ids, a file or - with ids.',
        ),
    ],
    args: Annotated[
        list[str] | None, Argument(metavar="[-- ARGS]…", help="Arguments for every task, after --.")
    ] = None,
    to: Annotated[
        Path | None,
        Option(("-o", "--to"), metavar="FOLDER", help="The folder for the results; it is made if missing."),
    ] = None,
    ids: Annotated[
        bool,
        Option(
            ("--ids",),
            help="SOURCE is a file, or -, with the id of an earlier task in each line: its output is the input.",
        ),
    ] = False,
    env: options.Env = None,
    name: options.Name = None,
    timeout_s: options.TimeoutS = None,
    cpu: options.Cpu = None,
    memory_mib: options.MemoryMib = None,
    isolation: options.Isolation = None,
    priority: options.Priority = None,
    cpu_feature: options.CpuFeature = None,
    output: options.KeptFile = None,
) -> int:
    """Run an image on every file of a folder as one batch, and save each result as it comes, under the file's path.

    A task that did not succeed leaves NAME.error.json; kept files lie below NAME.files. Exits with 1 if any task
    did not succeed. The batch runs without us: the same command with the same folder for the results goes on where an
    earlier one ended.

    Examples:

        gcompute map ocr:1 scans/ -o texts/ -- -l eng

        gcompute map --timeout-s 30 imgproc:1 photos/ -o small/ -- thumbnail 200x200

        gcompute map sim:2 - -o runs/ < sweep.jsonl

        gcompute tasks --state succeeded --image ocr:1 | cut -f1 | tail -n+2 | gcompute map --ids index:1 - -o index/
    """
    if to is None:
        raise BadParameter("name the folder for the results", param_hint="-o")
    folder = Path(source)
    if source != _STDIN and not ids and not folder.is_dir():
        raise BadParameter(f"{source} is no folder", param_hint="SOURCE")
    choices = options.task_options(
        env=env,
        name=name,
        timeout_s=timeout_s,
        cpu=cpu,
        memory_mib=memory_mib,
        isolation=isolation,
        priority=priority,
        cpu_feature=cpu_feature,
        output=output,
    )
    to.mkdir(parents=True, exist_ok=True)
    results = Results(to)
    asked = json.dumps([image, str(folder.resolve()), args or [], choices], sort_keys=True, default=list)
    request = hashlib.sha256(asked.encode("utf-8", "surrogateescape")).hexdigest()
    if results.facts.get("request", request) != request:
        raise BadParameter(f"{to} has results of another call; name another folder", param_hint="-o")
    if "key" not in results.facts:
        # Before anything is sent: a call that is repeated finds the same batch.
        results.keep(request=request, key=uuid.uuid4().hex)
    with session.client() as client, _progress() as show:
        try:
            batch_id = results.facts.get("batch")
            if batch_id is None:
                chosen = cast(AsyncOptions, {**choices, "idempotency_key": results.facts["key"]})
                batch_id = _send(client, image, args or [], chosen, source, to, show, ids=ids)
                results.keep(batch=batch_id)
            batch = _follow(client.batches, batch_id, results, show)
        except KeyboardInterrupt:
            if results.facts.get("batch") is None:
                report.say("interrupted before the batch was taken; the same command sends the inputs again")
            else:
                report.say("interrupted; the batch goes on, and the same command fetches its results")
            return exits.INTERRUPTED
    return told(batch, as_json=session.as_json)


def told(batch: Batch, *, as_json: bool) -> int:
    """Print a batch. Returns 1 if an input has not succeeded and the batch is over."""
    if as_json:
        print(json.dumps(batch))
    else:
        counts = ", ".join(f"{count} {state}" for state, count in batch["counts"].items() if count)
        print(f"{batch['id']} {batch['state']}: {counts} of {report.counted(batch['inputs'], 'input')}")
        for text in (batch.get("detail"), batch.get("waiting_for")):
            if text:
                report.say(report.plain(text))
    return 0 if batch["state"] in ("running", "succeeded") else 1


def ended(batch: Batch) -> int:
    """How many inputs have their outcome."""
    counts = batch["counts"]
    return int(batch["inputs"] - counts["waiting"] - counts["queued"] - counts["running"])


def _ids_of(source: str) -> bytes:
    """The ids in a file. Raises BadParameter if there are none, or more than a batch may have."""
    try:
        if source == _STDIN:
            found = sys.stdin.buffer.read(IDS_BYTES + 1)
        else:
            with open(source, "rb") as file:
                found = file.read(IDS_BYTES + 1)
    except OSError as error:
        raise BadParameter(f"{source} cannot be read: {error.strerror}", param_hint="SOURCE") from None
    if len(found) > IDS_BYTES:
        raise BadParameter(f"{source} has more than {IDS_BYTES >> 20} MiB of ids", param_hint="SOURCE")
    if not found.strip():
        raise BadParameter(f"{source} has no ids", param_hint="SOURCE")
    return found


def _send(
    client: Client,
    image: str,
    args: list[str],
    choices: AsyncOptions,
    source: str,
    to: Path,
    show: Show,
    *,
    ids: bool,
) -> str:
    if ids:
        named = _ids_of(source)
        first = named.split(None, 1)[0].decode("utf-8", "surrogateescape")
        batch = client.batches.submit(image, args, choices, body=named, media_type=IDS, inputs_of=first)
    elif source == _STDIN:
        batch = client.batches.submit(image, args, choices, body=sys.stdin.buffer, media_type=LINES)
    else:
        files = files_below(Path(source), to)
        if not files:
            raise BadParameter(f"{source} has no files", param_hint="SOURCE")
        whole, done = sum(path.stat().st_size for _, path in files), 0

        def sent(size: int) -> None:
            nonlocal done
            done += size
            show(done, whole, "sent")

        body = archive_of(files, sent)
        batch = client.batches.submit(image, args, choices, body=body, media_type=ARCHIVE)
    return str(batch["id"])


def _follow(batches: Batches, batch_id: str, results: Results, show: Show) -> Batch:
    """Save results until the batch is over and all of them are there; returns the batch.

    Tries again for `PATIENCE_S` while the service does not answer.
    """
    heard = time.monotonic()
    waited_for: list[str] = []
    while True:
        try:
            batch = batches.get(batch_id, wait_s=POLL_S)
            show(ended(batch), batch["inputs"], "done")
            waited_for = _say_waiting(batch, waited_for)
            # A retry gives tasks places behind the count of inputs, so the archive is asked, and may be empty.
            results.unpack(batches.results(batch_id, after=results.facts.get("after", 0)))
            if batch["ended_at"] is not None:
                return batch
        except (Unreachable, AnswerBroken, ApiProblem) as error:
            if isinstance(error, ApiProblem) and error.status not in _PASSING:
                raise
            if time.monotonic() - heard > PATIENCE_S:
                raise
            time.sleep(1.0)
        else:
            heard = time.monotonic()


def _say_waiting(batch: Batch, before: list[str]) -> list[str]:
    """Say why a batch makes no tasks, once it has said so `SAID_AFTER` times in a row. Returns what it has said."""
    text = batch.get("waiting_for")
    if not text:
        return []
    if len(before) == SAID_AFTER - 1:
        report.say(f"the batch waits: {report.plain(text)}")
    return [*before, text][:SAID_AFTER]


@contextmanager
def _progress() -> Iterator[Show]:
    """A progress bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _whole, _what: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        rows: dict[str, Any] = {}

        def show(done: int, whole: int, what: str) -> None:
            if what not in rows:
                rows[what] = bar.add_task(what, total=whole)
            bar.update(rows[what], completed=done)

        yield show
