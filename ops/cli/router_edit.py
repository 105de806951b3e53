"""`gcompute router set-weight`, `drain`, `maint` and `ready`: edit the operators' file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from ops.cli import exits, report, router_status, router_tables
from ops.cli.command import Argument, BadParameter, Option
from ops.cli.router_file import Target
from ops.cli.router_in_force import InForce
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

_WEIGHT: Final = re.compile(r"([a-z0-9]{1,31})=([0-9]{1,3}(?:\.[0-9]{1,2})?)%?")

SetArgument = Annotated[str, Argument(metavar="SET", help="The set's name.")]
DryRunOption = Annotated[
    bool, Option(("--dry-run",), help="Show what the command would change in the file, and change nothing.")
]
ForceOption = Annotated[
    bool, Option(("--force",), help="Even if no set that is up would take new requests afterwards.")
]


@operating
def set_weight(
    weights: Annotated[
        list[str],
        Argument(
            metavar="SET=PERCENT…", help="Weight in percent, with at most two decimals, e.g. b=10 or b=0.25."
        ),
    ],
    rule: Annotated[
        str | None, Option(metavar="NAME", help="Change the weights of this rule instead of the default's.")
    ] = None,
    force: ForceOption = False,
    why: WhyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    file: FileOption = None,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Set the weights of sets; the other sets share the rest in their present proportions. The total stays 100.

    Examples:

        gcompute router set-weight b=10 --why "b has run a day at 5 %"

        gcompute router set-weight a=33.33 b=33.33 c=33.34
    """
    from router.config.edit import EditError, spread

    wanted = _shares(weights)

    def change(table: Table, draft: Draft, kept: InForce | None) -> Draft:
        unknown = [name for name in wanted if name not in table.sets]
        if unknown:
            known = ", ".join(table.sets)
            raise EditError(f"no set {unknown[0]!r} in {file or 'the file'}; there are {known}")
        before = table.default.shares
        # Sets that are not named keep the weight in force, so a set that was taken back does not get its weight again.
        now = before if kept is None else kept.over(table).default.shares
        if rule is not None:
            found = next((each for each in table.rules if each.name == rule), None)
            before = now = found.weights.shares if found is not None else before
        shares = spread(now, wanted)
        return draft.with_weights(
            {name: share for name, share in shares.items() if share != before.get(name, 0)}, rule=rule
        )

    def unchanged(table: Table, kept: InForce) -> int | None:
        now = kept.over(table).default.shares
        if rule is not None or all(now.get(name, 0) == share for name, share in wanted.items()):
            return None
        return _let_count(target, table, kept, who(by), reason)

    target = Target.of(admin, token_file, file, dry_run, forced=force)
    reason = why or f"set-weight {' '.join(weights)}"
    return target.edit(change, by=by, why=reason, unchanged=unchanged)


def _let_count(target: Target, table: Table, in_force: InForce, by: str, why: str) -> int:
    """Handle a file that needs no change while a rollout's weights are in force: end the rollout if it is over."""
    from router.config.difference import difference

    if not in_force.ended:
        report.say(
            f"{target.file} already says so, but {in_force.words}; nothing was changed. "
            "`gcompute router rollout abort` takes it back"
        )
        return exits.TRY_AGAIN
    router_tables.difference(difference(in_force.over(table), table))
    if target.dry_run:
        report.say("nothing was changed (--dry-run)")
        return 0
    target.admin.tell_rollout("end", by, why, force=target.forced, given={"phase": in_force.phase})
    print(
        f"{target.file} already says so, but {in_force.words}: that rollout was ended; the file's weights are in force"
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
    """Stop giving a set new work; it still answers for its own tasks. `ready` reverses this.

    Examples:

        gcompute router drain b --why "upgrade of the kernel"
    """
    target = Target.of(admin, token_file, file, dry_run, forced=force)
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
    """Send a set no requests at all, not even for its own tasks. `ready` reverses this.

    Examples:

        gcompute router maint b --why "machine is moved"
    """
    target = Target.of(admin, token_file, file, dry_run, forced=force)
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
    """Give a set new work again, after `drain` or `maint`.

    Examples:

        gcompute router ready b
    """
    return _state(Target.of(admin, token_file, file, dry_run), name, "ready", by, why)


def _state(target: Target, name: str, word: str, by: str | None, why: str | None) -> int:
    from router.routing.table import SetState

    state = SetState(word)

    def change(table: Table, draft: Draft, kept: InForce | None) -> Draft:
        return draft.with_state(name, state)

    code = target.edit(change, by=by, why=why or f"{state} {name}")
    if state is SetState.READY:
        for bar in target.live().barred:
            if bar["set"] == name:
                report.say(f"ATTENTION: {router_status.bar_remark(bar)}; `ready` does not")
    return code


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
