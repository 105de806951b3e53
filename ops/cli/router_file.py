"""Edits the operators' file, and waits until the router has loaded it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.cli import exits, report, router_status, router_tables
from ops.cli.router_admin import Admin, AdminError
from ops.cli.router_in_force import InForce, Live
from ops.cli.router_session import who

if TYPE_CHECKING:
    from router.config.edit import Draft
    from router.routing.table import Table

FILE_VARIABLE: Final = "GC_ROUTER_FILE"
IN_FORCE_WITHIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """The file to edit, and the router that reads it (None if the file was named; the router may be down)."""

    admin: Admin
    file: Path
    dry_run: bool
    forced: bool = False
    """Change the file even if no set would be left to take new requests."""

    @classmethod
    def of(
        cls,
        admin: str | None,
        token_file: Path | None,
        file: Path | None,
        dry_run: bool,
        *,
        forced: bool = False,
        may_lack: bool = False,
    ) -> Target:
        """Find the file. Raises `AdminError` if no file is named and no router answers. `may_lack`: the file may
        have been deleted."""
        asked = Admin.of(admin, token_file)
        named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
        if named is None:
            told = Path(str(asked.status()["file"]))
            if not told.exists() and not (may_lack and told.parent.is_dir()):
                raise AdminError(
                    f"the router at {asked.url} reads {told}, which is not on this machine; give --file, "
                    "or where it was removed `gcompute router rollback live`"
                )
            named = told
        return cls(asked, named, dry_run, forced)

    def live(self) -> Live:
        """Return the weights that the router has in force over the file, and the health of its sets; empty if no
        router answers or it reads another file."""
        try:
            status = self.admin.status()
        except AdminError:
            return Live()
        reads_it = Path(str(status["file"])).resolve() == self.file.resolve()
        return Live.of(status) if reads_it else Live()

    def edit(
        self,
        change: Callable[[Table, Draft, InForce | None], Draft],
        *,
        by: str | None,
        why: str,
        unchanged: Callable[[Table, InForce], int | None] | None = None,
    ) -> int:
        """Show which keys a change of the file moves, make the change, and wait until the router has loaded it.

        `unchanged`: called if the file needs no change but a rollout's weights are in force; None: do nothing then.
        """
        from router.config.edit import Draft
        from router.config.reader import ConfigError
        from router.config.savefile import opened

        live = self.live()
        in_force = live.in_force
        with opened(self.file) as file:
            try:
                draft = Draft.of(file.text)
            except ConfigError:
                report.say(
                    f"{self.file} already has mistakes; correct them, or run `gcompute router rollback live`"
                )
                raise
            before = draft.table
            changed = change(before, draft, in_force)
            if changed.meant == draft.meant:
                code = unchanged(before, in_force) if unchanged is not None and in_force is not None else None
                if code is None:
                    report.say(f"{self.file} already says so; nothing was changed")
                return code or 0
            text = changed.stamped(by=who(by), why=why).checked()
            self.guard(before, text, live)
            self.show(file.text, before, text, in_force)
            if not self.dry_run:
                file.save(text)
        return self.told(text)

    def guard(self, before: Table | None, new: bytes, live: Live) -> None:
        """Raise `EditError` if a change would remove the last set that serves; warn about weights for a set that is
        down."""
        from router.config.edit import EditError
        from router.config.reader import load

        after = load(new).table
        problem = live.leaves_nobody(before, after)
        if problem and not self.forced:
            raise EditError(f"{problem}; nothing was changed. Choose a set that is up, or use --force")
        for line in (problem, *live.remarks(before, after)):
            if line:
                report.say(f"ATTENTION: {line}")

    def show(self, old: bytes, before: Table | None, new: bytes, in_force: InForce | None) -> None:
        """Print how a change would affect the rollout in force, before it is made."""
        from router.config.difference import difference
        from router.config.reader import load

        table = load(new).table
        if self.dry_run:
            print(_unified(self.file, old, new), end="")
        if before is None:
            return
        if in_force is None:
            router_tables.difference(difference(before, table))
            return
        router_tables.difference(difference(in_force.over(before), in_force.after(before, table)))
        if in_force.stays(before, table):
            report.say(f"{in_force.words}: this change of the file does not affect that")
        sys.stdout.flush()

    def told(self, new: bytes) -> int:
        """Print what was saved, and whether the router has it in force."""
        import hashlib

        from router.config.reader import load

        table = load(new).table
        if self.dry_run:
            report.say("nothing was saved (--dry-run)")
            return 0
        print(f"saved {self.file} as version {table.version}: {router_tables.summary(table)}")
        return self._await(hashlib.sha256(new).hexdigest(), table.version)

    def _await(self, digest: str, version: int) -> int:
        deadline = time.monotonic() + IN_FORCE_WITHIN_S
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                status = self.admin.status()
            except AdminError as failure:
                report.say(f"cannot tell whether it is in force: {failure}")
                return 0
            if Path(str(status["file"])).resolve() != self.file.resolve():
                report.say(f"the router at {self.admin.url} reads another file, {status['file']}")
                return 0
            if status["digest"] == digest:
                print(f"version {version} is in force")
                going = router_status.rollout_remark(status)
                if going:
                    report.say(going)
                return 0
            if int(status["version"]) > version:
                report.say(f"a newer version, {status['version']}, is in force already")
                return 0
            time.sleep(0.1)
        error = status.get("config_error")
        report.say(
            f"the router has not loaded it: {error or 'it still has version ' + str(status['version'])}"
        )
        return exits.CONFIG if error else exits.TRY_AGAIN


def _unified(path: Path, old: bytes, new: bytes) -> str:
    import difflib

    before, after = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (old, new))
    lines = difflib.unified_diff(before, after, fromfile=str(path), tofile=f"{path} (new)")
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
