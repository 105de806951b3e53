"""`gcompute router`: lists the commands that start, show and change a router."""

from __future__ import annotations

from typing import Final

from ops.cli.command import Entry
from ops.cli.file_group import FileGroup

_HELP_TEXT: Final = """Start a router, show its state, and change it: weights, drains, releases, rollbacks.

    Examples:

        gcompute router ops/local/router.yaml

        gcompute router check router.yaml

        gcompute router set-weight b=10 --why "b has run a day at 5 %"

        gcompute router status --watch
"""

_LOOK, _CHANGE, _RELEASE = "Look", "Change (edits the operators' file; comments and layout stay)", "Release"

router = FileGroup(
    "router",
    None,
    (
        Entry("start", "ops.cli.serve:start_router"),
        Entry("check", "ops.cli.router_look:check", _LOOK),
        Entry("diff", "ops.cli.router_look:diff", _LOOK),
        Entry("status", "ops.cli.router_look:status", _LOOK),
        Entry("history", "ops.cli.router_look:history", _LOOK),
        Entry("set-weight", "ops.cli.router_edit:set_weight", _CHANGE),
        Entry("drain", "ops.cli.router_edit:drain", _CHANGE),
        Entry("maint", "ops.cli.router_edit:maint", _CHANGE),
        Entry("ready", "ops.cli.router_edit:ready", _CHANGE),
        Entry("rollback", "ops.cli.router_rollback:rollback", _CHANGE),
        Entry("simulate", "ops.cli.router_simulate:simulate", _RELEASE),
        Entry("rollout", "ops.cli.router_rollout:rollout", _RELEASE),
    ),
    help=_HELP_TEXT,
)
