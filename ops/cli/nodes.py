"""`gcompute nodes`: the machines of a set, for its operators."""

import json
from typing import Annotated, Any

from ops.cli.command import Option
from ops.cli.router_columns import columns
from ops.cli.session import Session, at_set


@at_set
def nodes(
    session: Session,
    limit: Annotated[int, Option(min=1, max=1000, help="Nodes per page.")] = 100,
    after: Annotated[
        str, Option(metavar="NODE", help="Continue after an earlier page: the value of its `next`.")
    ] = "",
) -> int:
    """List the machines of one set: what each has, how much running tasks hold of it, and whom it serves.

    Routers do not relay this: it asks the set itself. In a pipe, columns are separated by tabs.

    Examples:

        gcompute nodes --url http://10.0.0.5:8101

        gcompute nodes --json | jq -r '.nodes[] | select(.state == "lost") | .node'
    """
    with session.set_client() as client:
        page = client.nodes(limit=limit, after=after)
    if session.as_json:
        print(json.dumps(page))
        return 0
    heading = (
        "NODE",
        "STATE",
        "CORES",
        "MEMORY MIB",
        "SLOTS",
        "IDLE",
        "STARTING",
        "SERVES",
        "FEATURES",
        "BUILD",
    )
    columns(heading, [_row(node) for node in page["nodes"]], right=heading[2:7])
    return 0


def _row(node: dict[str, Any]) -> tuple[str, ...]:
    slots = node["slots"]
    return (
        node["node"],
        node["state"],
        f"{node['cores_held']:g} of {node['cores']:g}",
        f"{node['memory_held_mib']} of {node['memory_mib']}",
        f"{sum(slots.values())} of {node['slots_max']}",
        str(slots["idle"]),
        str(slots["starting"]),
        _serves(node["tenancy"]),
        node["features"],
        node["build"],
    )


def _serves(tenancy: dict[str, Any] | None) -> str:
    if tenancy is None or tenancy["state"] == "free":
        return "all"
    now, heir = tenancy["account"] or "those that share", tenancy["next_account"] or "those that share"
    if tenancy["state"] == "held":
        return now
    return f"{now}, then {heir}" if tenancy["state"] == "emptied" else f"kept for {heir}"
