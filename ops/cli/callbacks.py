"""`gcompute callbacks`: the messages to callers whose tasks have ended."""

import json
import sys
from typing import Annotated, Any, Final, Literal

from ops.cli import report
from ops.cli.command import BadParameter, Option
from ops.cli.ids import on_task
from ops.cli.router_columns import columns
from ops.cli.session import Session, connected
from ops.cli.tasks import say_partial

_HEADING: Final = ("TASK", "STATE", "TRIES", "ANSWER", "NEXT TRY", "URL")


@connected
def callbacks(
    session: Session,
    state: Annotated[
        Literal["waiting", "made", "failed"] | None, Option(help="Only callbacks in this state.")
    ] = None,
    retry: Annotated[
        str | None,
        Option(metavar="ID", help="Try the failed callback of this task again, for three more days."),
    ] = None,
    limit: Annotated[int, Option(min=1, max=1000, help="Callbacks per page.")] = 20,
    before: Annotated[
        str | None, Option(metavar="CURSOR", help="Continue after an earlier page: the value of its `next`.")
    ] = None,
) -> int:
    """List this account's callbacks, those of the newest tasks first, merged over all sets; or try one again.

    `gcompute submit --callback-url URL` asks for a callback. In a pipe, columns are separated by tabs.

    Examples:

        gcompute callbacks --state failed

        gcompute callbacks --json --state failed | jq -r '.callbacks[].id' | xargs -n1 gcompute callbacks --retry
    """
    with session.client() as client:
        if retry is not None:
            if state is not None or before is not None:
                raise BadParameter("cannot be combined with a list's options", param_hint="--retry")
            callback = on_task(client, retry, client.retry_callback)
            if session.as_json:
                print(json.dumps(callback))
            else:
                columns(_HEADING, [_row(callback)])
            return 0
        page = client.callbacks(state=state, before=before, limit=limit)
    say_partial(page, "callbacks")
    if session.as_json:
        print(json.dumps(page))
    elif page["callbacks"]:
        columns(_HEADING, [_row(callback) for callback in page["callbacks"]], right=("TRIES",))
    else:
        report.say("no callbacks", prefix="")
    if page["next"] and not session.as_json:
        sys.stdout.flush()
        report.say(f"more: --before {page['next']}", prefix="")
    return 0


def _row(callback: dict[str, Any]) -> tuple[str, ...]:
    answer = callback["status"] if callback["status"] is not None else callback["error"]
    return (
        callback["id"],
        callback["state"],
        str(callback["tries"]),
        "" if answer is None else str(answer),
        callback["due_at"] or "",
        callback["url"],
    )
