"""`gcompute router set-weight`, `drain`, `maint`, `ready` and `rollback`: edit the operators' file as they would."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from ops.cli import exits, report, router_report
from ops.cli.command import Argument, BadParameter, Option
from ops.cli.router_admin import Admin, AdminError
from ops.cli.router_force import Force, Live, above_zero
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
    from router.config.edit import Draft
    from router.routing.table import Table

FILE_VARIABLE: Final = "GC_ROUTER_FILE"
IN_FORCE_WITHIN_S: Final = 10.0
_WEIGHT: Final = re.compile(r"([a-z0-9]{1,31})=([0-9]{1,3}(?:\.[0-9]{1,2})?)%?")

SetArgument = Annotated[str, Argument(metavar="SET", help="The set's name.")]
DryRunOption = Annotated[
    bool, Option(("--dry-run",), help="Show what would be changed in the file; change nothing.")
]
ForceOption = Annotated[
    bool, Option(("--force",), help="Also where no set is left that is up and would take new requests.")
]


@dataclass(frozen=True, slots=True)
class _Target:
    """The file to edit, and the router that reads it (None: it was not needed to find the file, and may be away)."""

    admin: Admin
    file: Path
    dry_run: bool
    forced: bool = False
    """Change the file even where no set would be left to take new requests."""

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
    ) -> _Target:
        """Raises `AdminError` where neither a file is named nor a router answers. `may_lack`: the file may have been
        removed from its folder."""
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
        """What the router that reads the file has in force over it, and how its sets are; nothing where no router
        answers or it reads another file."""
        try:
            status = self.admin.status()
        except AdminError:
            return Live()
        reads_it = Path(str(status["file"])).resolve() == self.file.resolve()
        return Live.of(status) if reads_it else Live()

    def edit(
        self,
        change: Callable[[Table, Draft, Force | None], Draft],
        *,
        by: str | None,
        why: str,
        unchanged: Callable[[Table, Force], int | None] | None = None,
    ) -> int:
        """Show what a change of the file moves, make it, and wait until the router has taken it.

        `unchanged`: what to do where the file says so already, but a rollout's weights count; None: nothing.
        """
        from router.config.edit import Draft
        from router.config.reader import ConfigError
        from router.config.savefile import opened

        live = self.live()
        force = live.force
        with opened(self.file) as file:
            try:
                draft = Draft.of(file.text)
            except ConfigError:
                report.say(
                    f"{self.file} holds mistakes already; correct them, or `gcompute router rollback live`"
                )
                raise
            before = draft.table
            changed = change(before, draft, force)
            if changed.meant == draft.meant:
                code = unchanged(before, force) if unchanged is not None and force is not None else None
                if code is None:
                    report.say(f"{self.file} says so already; nothing was changed")
                return code or 0
            text = changed.stamped(by=who(by), why=why).checked()
            self.guard(before, text, live)
            self.show(file.text, before, text, force)
            if not self.dry_run:
                file.save(text)
        return self.told(text)

    def guard(self, before: Table | None, new: bytes, live: Live) -> None:
        """Raise `EditError` where a change would take away the last set that serves; say which weights go to a set
        that is away."""
        from router.config.edit import EditError
        from router.config.reader import load

        after = load(new).table
        problem = live.leaves_nobody(before, after)
        if problem and not self.forced:
            raise EditError(f"{problem}; nothing was changed. Choose a set that is up, or use --force")
        for line in (problem, *live.remarks(before, after)):
            if line:
                report.say(f"ATTENTION: {line}")

    def show(self, old: bytes, before: Table | None, new: bytes, force: Force | None) -> None:
        """Say what a change would do to what is in force, before it is made."""
        from router.config.difference import difference
        from router.config.reader import load

        table = load(new).table
        if self.dry_run:
            print(_unified(self.file, old, new), end="")
        if before is None:
            return
        if force is None:
            router_report.difference(difference(before, table))
            return
        router_report.difference(difference(force.over(before), force.after(before, table)))
        if force.stays(before, table):
            report.say(f"{force.words}: this change of the file leaves that as it is")
        sys.stdout.flush()

    def told(self, new: bytes) -> int:
        """Say what was saved, and whether the router has it in force."""
        import hashlib

        from router.config.reader import load

        table = load(new).table
        if self.dry_run:
            report.say("nothing was saved (--dry-run)")
            return 0
        print(f"saved {self.file} as version {table.version}: {router_report.contents(table)}")
        return self._await(hashlib.sha256(new).hexdigest(), table.version)

    def _await(self, digest: str, version: int) -> int:
        deadline = time.monotonic() + IN_FORCE_WITHIN_S
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                status = self.admin.status()
            except AdminError as failure:
                report.say(f"whether it is in force is not known: {failure}")
                return 0
            if Path(str(status["file"])).resolve() != self.file.resolve():
                report.say(f"the router at {self.admin.url} reads another file, {status['file']}")
                return 0
            if status["digest"] == digest:
                print(f"version {version} is in force")
                going = router_report.rollout_remark(status)
                if going:
                    report.say(going)
                return 0
            if int(status["version"]) > version:
                report.say(f"a later version, {status['version']}, is in force already")
                return 0
            time.sleep(0.1)
        error = status.get("config_error")
        report.say(
            f"the router has not taken it: {error or 'it still has version ' + str(status['version'])}"
        )
        return exits.CONFIG if error else exits.TRY_AGAIN


@operating
def set_weight(
    weights: Annotated[
        list[str],
        Argument(metavar="SET=PERCENT…", help="Two decimals at most, e.g. b=10 or b=0.25."),
    ],
    rule: Annotated[
        str | None, Option(metavar="NAME", help="The weights of this rule instead of the default's.")
    ] = None,
    force: ForceOption = False,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Give sets a weight; the others share the rest in the proportions that they have. The total is exactly 100.

    Examples:

        gcompute router set-weight b=10 --why "b has run a day at 5 %"

        gcompute router set-weight a=33.33 b=33.33 c=33.34
    """
    from router.config.edit import EditError, spread

    wanted = _shares(weights)

    def change(table: Table, draft: Draft, kept: Force | None) -> Draft:
        unknown = [name for name in wanted if name not in table.sets]
        if unknown:
            known = ", ".join(table.sets)
            raise EditError(f"no set {unknown[0]!r} in {file or 'the file'}; there are {known}")
        before = table.default.shares
        # What is not named stays as it is, and that is what is in force: a set that was taken back gets nothing again.
        now = before if kept is None else kept.over(table).default.shares
        if rule is not None:
            found = next((each for each in table.rules if each.name == rule), None)
            before = now = found.weights.shares if found is not None else before
        shares = spread(now, wanted)
        return draft.with_weights(
            {name: share for name, share in shares.items() if share != before.get(name, 0)}, rule=rule
        )

    def unchanged(table: Table, kept: Force) -> int | None:
        now = kept.over(table).default.shares
        if rule is not None or all(now.get(name, 0) == share for name, share in wanted.items()):
            return None
        return _let_count(target, table, kept, who(by), reason)

    target = _Target.of(admin, token_file, file, dry_run, forced=force)
    reason = why or f"set-weight {' '.join(weights)}"
    return target.edit(change, by=by, why=reason, unchanged=unchanged)


def _let_count(target: _Target, table: Table, force: Force, by: str, why: str) -> int:
    """The file says already what is wanted, but a rollout's weights count: end it, where it is over."""
    from router.config.difference import difference

    if not force.ended:
        report.say(
            f"{target.file} says so already, but {force.words}; nothing was changed. "
            "`gcompute router rollout abort` takes it back"
        )
        return exits.TRY_AGAIN
    router_report.difference(difference(force.over(table), table))
    if target.dry_run:
        report.say("nothing was changed (--dry-run)")
        return 0
    target.admin.tell_rollout("end", by, why, force=target.forced, given={"phase": force.phase})
    print(
        f"{target.file} says so already, but {force.words}: that rollout was ended, the file's weights count"
    )
    return 0


@operating
def drain(
    name: SetArgument,
    force: ForceOption = False,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Give a set no new work; it still answers for the tasks that it has. `ready` takes it back.

    Examples:

        gcompute router drain b --why "upgrade of the kernel"
    """
    target = _Target.of(admin, token_file, file, dry_run, forced=force)
    return _state(target, name, "drain", by, why)


@operating
def maint(
    name: SetArgument,
    force: ForceOption = False,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Ask a set for nothing at all, not even for its own tasks. `ready` takes it back.

    Examples:

        gcompute router maint b --why "machine is moved"
    """
    target = _Target.of(admin, token_file, file, dry_run, forced=force)
    return _state(target, name, "maint", by, why)


@operating
def ready(
    name: SetArgument,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Take a set back after `drain` or `maint`.

    Examples:

        gcompute router ready b
    """
    return _state(_Target.of(admin, token_file, file, dry_run), name, "ready", by, why)


@operating
def rollback(
    version: Annotated[
        str | None,
        Argument(
            metavar="[VERSION]",
            help="A version, or the beginning of a digest, of `gcompute router history`; else the one before.",
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
    """Put a configuration that was in force back into the file, as a new version. `live` undoes edits that no router
    took.

    Examples:

        gcompute router rollback --why "b answers 502"

        gcompute router rollback 41
    """
    from router.config.edit import older_as_new
    from router.config.reader import ConfigError, load
    from router.config.savefile import create, opened

    target = _Target.of(admin, token_file, file, dry_run, forced=force, may_lack=True)
    live = target.live()
    kept = live.force
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
            report.say(f"{target.file} had been removed; it is there again")
        return target.told(text)
    with opened(target.file) as opened_file:
        try:
            before: Table | None = load(opened_file.text).table
        except ConfigError:
            before = None  # What is rolled back may be a file full of mistakes.
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


def _say_what_goes_on(force: Force, *, goes_on: bool) -> None:
    """A rollback is often meant to stop a release; only `abort` does."""
    if force.ended and not goes_on:
        return
    if goes_on:
        then = "its weights are not the file's, so this rollback does NOT stop it"
    else:
        then = "other weights in the file pause it and count"
    report.say(
        f"ATTENTION: {force.words}; {then}. `gcompute router rollout abort` takes {force.set} back, "
        + ("`rollout end` lets the file's weights count" if force.ended else "`rollout status` tells more")
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


def _state(target: _Target, name: str, word: str, by: str | None, why: str | None) -> int:
    from router.routing.table import SetState

    state = SetState(word)

    def change(table: Table, draft: Draft, kept: Force | None) -> Draft:
        return draft.with_state(name, state)

    return target.edit(change, by=by, why=why or f"{state} {name}")


def _shares(pairs: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        match = _WEIGHT.fullmatch(pair)
        if match is None or (share := round(float(match[2]) * 100)) > 10_000:
            raise BadParameter(
                f"{pair!r} must look like b=10 or b=0.25: a set's name and 0 to 100, two decimals at most"
            )
        if match[1] in found:
            raise BadParameter(f"set {match[1]!r} is given twice")
        found[match[1]] = share
    return found


def _unified(path: Path, old: bytes, new: bytes) -> str:
    import difflib

    before, after = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (old, new))
    lines = difflib.unified_diff(before, after, fromfile=str(path), tofile=f"{path} (new)")
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)
