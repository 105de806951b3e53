"""`gcompute set`: lists the commands that start, drain and back up a set."""

from __future__ import annotations

from typing import Final

from ops.cli.command import Entry
from ops.cli.file_group import FileGroup

_HELP_TEXT: Final = """Start a set, drain it before an upgrade, and back it up while it runs.

    Examples:

        gcompute set ops/local/set-a.yaml

        gcompute set drain --url http://10.0.0.5:8101

        gcompute set backup /etc/general-compute/set-a.yaml /mnt/backup/set-a
"""

set_ = FileGroup(
    "set",
    None,
    (
        Entry("start", "ops.cli.serve:start_set"),
        Entry("drain", "ops.cli.set_orders:drain"),
        Entry("resume", "ops.cli.set_orders:resume"),
        Entry("backup", "ops.cli.set_orders:backup"),
    ),
    help=_HELP_TEXT,
)
