"""`gcompute batch`: list batches, look at one, cancel them, run their failed inputs again, fetch their results."""

import json
import sys
from pathlib import Path
from typing import Annotated, Final

from ops.cli import report
from ops.cli.command import Argument, Entry, Group, Option
from ops.cli.downloads import save
from ops.cli.map import ended, told
from ops.cli.router_columns import columns
from ops.cli.session import Session, connected
from ops.cli.streams import write_out
from ops.cli.tasks import say_partial
from ops.client.batches import Batch

_HEADING: Final = ("ID", "STATE", "INPUTS", "DONE", "FAILED", "IMAGE", "NAME", "WAITS FOR")
BatchId = Annotated[str, Argument(metavar="ID", help="The batch's id.")]

_HELP_TEXT: Final = """Look at batches and control them. `gcompute map` makes one.

    Examples:

        gcompute batch list

        gcompute batch show a-01jd3x

        gcompute batch retry a-01jd3x

        gcompute batch results a-01jd3x | tar x -C texts
"""


@connected
def list_(
    session: Session,
    limit: Annotated[int, Option(min=1, max=1000, help="Batches per page.")] = 20,
    before: Annotated[
        str | None, Option(metavar="CURSOR", help="Continue after an earlier page: the value of its `next`.")
    ] = None,
) -> int:
    """List this account's batches, newest first, merged over all sets. In a pipe, columns are separated by tabs.

    DONE counts the inputs whose task has ended in any way.

    Examples:

        gcompute batch list

        gcompute batch list --json | jq -r '.batches[] | select(.state == "failed").id' | xargs -n1 gcompute batch retry
    """
    with session.client() as client:
        page = client.batches.page(before=before, limit=limit)
    say_partial(page, "batches")
    if session.as_json:
        print(json.dumps(page))
    elif page["batches"]:
        columns(_HEADING, [_row(batch) for batch in page["batches"]], right=("INPUTS", "DONE", "FAILED"))
    else:
        report.say("no batches", prefix="")
    if page["next"] and not session.as_json:
        sys.stdout.flush()
        report.say(f"more: --before {page['next']}", prefix="")
    return 0


def _row(batch: Batch) -> tuple[str, ...]:
    counts = batch["counts"]
    return (
        batch["id"],
        batch["state"],
        str(batch["inputs"]),
        str(ended(batch)),
        str(counts["failed"] + counts["timed_out"]),
        batch["image"],
        batch["name"] or "",
        batch["waiting_for"] or batch["detail"] or "",
    )


@connected
def show(
    session: Session,
    batch_id: BatchId,
    wait_s: Annotated[float, Option(help="Wait for its end for this many seconds, 60 at most.")] = 0,
) -> int:
    """Show a batch's state, and how many of its inputs are in which. Exits with 1 if any did not succeed.

    Examples:

        gcompute batch show --wait-s 60 a-01jd3x

        gcompute batch show --json a-01jd3x | jq .counts
    """
    with session.client() as client:
        return told(client.batches.get(batch_id, wait_s=wait_s), as_json=session.as_json)


@connected
def cancel(session: Session, batch_id: BatchId) -> int:
    """End a batch and its tasks; what has ended stays.

    Examples:

        gcompute batch cancel a-01jd3x
    """
    with session.client() as client:
        told(client.batches.cancel(batch_id), as_json=session.as_json)
    return 0


@connected
def retry(session: Session, batch_id: BatchId) -> int:
    """Run again the inputs that failed, timed out or were cancelled.

    Examples:

        gcompute batch retry a-01jd3x && gcompute map ocr:1 scans/ -o texts/ -- -l eng
    """
    with session.client() as client:
        told(client.batches.retry(batch_id), as_json=session.as_json)
    return 0


@connected
def results(
    session: Session,
    batch_id: BatchId,
    after: Annotated[
        int, Option(help="Only what ended behind this place, as the comment of each entry says it.")
    ] = 0,
    to: Annotated[
        Path | None,
        Option(
            ("-o", "--to"), metavar="FILE", help="Write to this file; it appears only once it is complete."
        ),
    ] = None,
) -> int:
    """Fetch the results so far as a tar archive.

    Examples:

        gcompute batch results a-01jd3x -o results.tar
    """
    with session.client() as client:
        pieces = client.batches.results(batch_id, after=after)
        if to is not None:
            save(pieces, to)
        else:
            for piece in pieces:
                write_out(piece)
    return 0


batch = Group(
    "batch",
    None,
    (
        Entry("list", "ops.cli.batch:list_"),
        Entry("show", "ops.cli.batch:show"),
        Entry("cancel", "ops.cli.batch:cancel"),
        Entry("retry", "ops.cli.batch:retry"),
        Entry("results", "ops.cli.batch:results"),
    ),
    help=_HELP_TEXT,
)
