"""`gcompute pools` and `gcompute queue`: what waits in a set, for whom, and why, for its operators."""

import json
import sys
from typing import Annotated, Any

from ops.cli import report
from ops.cli.command import Option
from ops.cli.router_columns import columns
from ops.cli.session import Session, at_set

LimitOption = Annotated[int, Option(min=1, max=1000, help="Rows per page.")]
AfterOption = Annotated[
    str, Option(metavar="CURSOR", help="Continue after an earlier page: the value of its `next`.")
]


@at_set
def pools(
    session: Session,
    of: Annotated[str | None, Option(metavar="ACCOUNT", help="Only the pools of this account.")] = None,
    limit: LimitOption = 100,
    after: AfterOption = "",
) -> int:
    """List the pools of one set, those with most waiting tasks first: their slots, and why slots do not start.

    A pool holds slots of one account, image and shape. WANTS is the number of slots that it would have if there were
    room for all its tasks. Routers do not relay this: it asks the set itself. In a pipe, columns are separated by tabs.

    Examples:

        gcompute pools --url http://10.0.0.5:8101

        gcompute pools --json | jq -r '.pools[] | select(.failures > 0) | [.account, .image, .trouble] | @tsv'
    """
    with session.set_client() as client:
        page = client.pools(account=of, limit=limit, after=after)
    if session.as_json:
        print(json.dumps(page))
        return 0
    rows = [(_pool(pool), _why(pool)) for pool in page["pools"]]
    heading = ("ACCOUNT", "IMAGE", "SHAPE", "QUEUED", "WANTS", "IDLE", "BUSY", "STARTING")
    if sys.stdout.isatty():
        columns(heading, [cells for cells, _ in rows], right=heading[3:])
        # Too long for a column of a terminal.
        for (account, image, *_), why in rows:
            if why:
                print(report.plain(f"{account} {image}: {why}"))
    else:
        columns((*heading, "WAITS FOR"), [(*cells, why) for cells, why in rows])
    _say_more(page)
    return 0


@at_set
def queue(session: Session, limit: LimitOption = 100, after: AfterOption = "") -> int:
    """Show who waits in one set: each account's tasks, the cores and slots that it holds, and who floods the set.

    An account floods while tasks of others wait and it has much more than its fair part of the queue, the cores or the
    slots. FAIR is that part. Routers do not relay this: it asks the set itself. In a pipe, columns are separated by
    tabs.

    Examples:

        gcompute queue --url http://10.0.0.5:8101

        gcompute queue --json | jq -r '.accounts[] | select(.floods != []) | .account'
    """
    with session.set_client() as client:
        page = client.queue(limit=limit, after=after)
    if session.as_json:
        print(json.dumps(page))
        return 0
    report.say(_summary(page), prefix="")
    heading = ("ACCOUNT", "QUEUED", "LONGEST", "RUNNING", "CORES", "FAIR", "SLOTS", "FLOODS")
    columns(heading, [_account(account) for account in page["accounts"]], right=heading[1:7])
    _say_more(page)
    return 0


def _say_more(page: dict[str, Any]) -> None:
    if page["next"]:
        report.say(f"more: --after {page['next']}", prefix="")


def _pool(pool: dict[str, Any]) -> tuple[str, ...]:
    slots = pool["slots"]
    extra = [pool["isolation"], pool["priority"], *pool["cpu_features"]]
    shape = [
        f"{pool['cpu']:g} cpu {pool['memory_mib']} MiB",
        *(x for x in extra if x not in ("shared", "normal")),
    ]
    return (
        pool["account"],
        pool["image"] or pool["image_digest"][:19],
        " ".join(shape),
        _tasks(pool),
        f"{pool['slots_wanted']} of {pool['slots_max']}",
        str(slots["idle"]),
        str(slots["running"]),
        str(slots["starting"]),
    )


def _why(pool: dict[str, Any]) -> str:
    said = pool["waiting_for"] or ""
    if not said and pool["trouble"]:
        said = f"the last slot of its kind could not start: {pool['trouble']}"
    if pool["failures"]:
        said += f"; failed starts in a row: {pool['failures']}"
    if pool["retry_in_s"] is not None:
        said += f"; the next start is in {pool['retry_in_s']:.1f} s"
    return said


def _account(account: dict[str, Any]) -> tuple[str, ...]:
    return (
        account["account"],
        _tasks(account),
        _seconds(account["oldest_wait_s"]),
        str(account["running"]),
        f"{account['cores_held']:g}",
        f"{account['fair_part']:.0%}",
        str(sum(account["slots"].values())),
        ", ".join(account["floods"]),
    )


def _tasks(of: dict[str, Any]) -> str:
    """How many tasks wait, and how many pause before their next attempt."""
    return f"{of['queued']} + {of['paused']}" if of["paused"] else str(of["queued"])


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else report.duration(round(seconds * 1e6))


def _summary(page: dict[str, Any]) -> str:
    slots = sum(page["slots"].values())
    drains = ", draining" if page["draining"] else ""
    return (
        f"set {page['set']}{drains}: {report.counted(page['queued'], 'task')} queued of {page['queued_max']} at most, "
        f"cores held: {page['cores_held']:g} of {page['cores']:g}, slots: {slots} of {page['slots_max']}"
    )
