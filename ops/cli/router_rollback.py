"""`gcompute router rollback`: put an earlier configuration back into the operators' file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ops.cli import report
from ops.cli.command import Argument
from ops.cli.router_admin import Admin
from ops.cli.router_edit import DryRunOption, ForceOption
from ops.cli.router_file import Target
from ops.cli.router_in_force import InForce, above_zero
from ops.cli.router_look import NameOption, StateDirOption, changes
from ops.cli.router_session import (
    AdminOption,
    ByOption,
    FileOption,
    TokenFileOption,
    WhyOption,
    operating,
    who,
)

if TYPE_CHECKING:
    from router.routing.table import Table


@operating
def rollback(
    version: Annotated[
        str | None,
        Argument(
            metavar="[VERSION]",
            help="A version, or the beginning of a digest, from `gcompute router history`; default: the previous one.",
        ),
    ] = None,
    force: ForceOption = False,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    state_dir: StateDirOption = None,
    name: NameOption = "router",
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Write an earlier configuration into the file, as a new version. `live` undoes edits that no router has
    loaded.

    Examples:

        gcompute router rollback --why "b answers 502"

        gcompute router rollback 41
    """
    from router.config.edit import older_as_new
    from router.config.reader import ConfigError, load
    from router.config.savefile import create, opened

    target = Target.of(admin, token_file, file, dry_run, forced=force, may_lack=True)
    live = target.live()
    kept = live.in_force
    older = _older(version, state_dir, name, target.admin)
    newest = max(
        (change["version"] for change in changes(state_dir, name, admin, token_file)["changes"]), default=0
    )
    if not os.path.lexists(target.file):
        reason = why or f"rollback to version {load(older).table.version}"
        text = older_as_new(older, newest + 1, by=who(by), why=reason)
        target.guard(None, text, live)
        target.show(b"", None, text, kept)
        if not dry_run:
            create(target.file, text)
            report.say(f"{target.file} had been deleted; it was written again")
        return target.told(text)
    with opened(target.file) as opened_file:
        try:
            before: Table | None = load(opened_file.text).table
        except ConfigError:
            before = None  # The present file may have mistakes.
        number = max(newest, before.version if before is not None else 0) + 1
        reason = why or f"rollback to version {load(older).table.version}"
        text = older_as_new(older, number, by=who(by), why=reason)
        target.guard(before, text, live)
        target.show(opened_file.text, before, text, kept)
        if not dry_run:
            opened_file.save(text)
    code = target.told(text)
    if kept is not None and before is not None and not dry_run:
        _say_what_goes_on(kept, goes_on=above_zero(before) == above_zero(load(text).table))
    return code


def _say_what_goes_on(in_force: InForce, *, goes_on: bool) -> None:
    """Warn that a rollback does not stop a rollout; only `abort` does."""
    if in_force.ended and not goes_on:
        return
    if goes_on:
        then = "its weights are in force instead of the file's, so this rollback does NOT stop it"
    else:
        then = "different weights in the file pause it and take effect"
    report.say(
        f"ATTENTION: {in_force.words}; {then}. `gcompute router rollout abort` takes {in_force.set} back, "
        + (
            "`rollout end` puts the file's weights in force"
            if in_force.ended
            else "`rollout status` tells more"
        )
    )


def _older(version: str | None, state_dir: Path | None, name: str, admin: Admin) -> bytes:
    if state_dir is None:
        return admin.version(version or "previous")
    from router.config.history import History

    kept = History(state_dir / f"{name}.history")
    files = kept.files()
    if version == "live" and files:
        return kept.text(files[-1].digest)
    return kept.text(kept.find(version).digest)
