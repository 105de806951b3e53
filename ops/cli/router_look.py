"""`gcompute router check`, `diff`, `status` and `history`: commands that change nothing."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ops.cli import exits, report, router_offline, router_plan, router_status, router_tables
from ops.cli.command import Argument, BadParameter, Context, Option
from ops.cli.router_admin import Admin
from ops.cli.router_columns import columns
from ops.cli.router_session import AdminOption, JsonOption, TokenFileOption, as_json, operating, print_json

if TYPE_CHECKING:
    from router.routing.table import Table

StateDirOption = Annotated[
    Path | None,
    Option(metavar="DIR", help="Read the history of a router that is not running, from its --state-dir."),
]
NameOption = Annotated[str, Option(help="That router's --name.")]


@operating
def check(
    ctx: Context,
    file: Annotated[Path, Argument(metavar="FILE", help="The router's YAML file; `-`: standard input.")],
    tls_cert: Annotated[
        Path | None, Option(metavar="FILE", help="Check this certificate as well: the router's PEM file.")
    ] = None,
    tls_key: Annotated[Path | None, Option(metavar="FILE", help="The certificate's key.")] = None,
    rate: Annotated[
        float,
        Option(
            min=0.0,
            max=1_000_000.0,
            metavar="N",
            help="Requests a second, of all sets, by which a `rollout` section is looked at.",
        ),
    ] = 1.0,
    state_dir: Annotated[
        Path | None,
        Option(metavar="DIR", help="A router's --state-dir: say which sets its rollouts took back."),
    ] = None,
    name: NameOption = "router",
    json_: JsonOption = False,
) -> int:
    """Check whether a router would accept FILE: prints each mistake with line, column and correction.

    Exits with 0, or with 78 if there are mistakes or the certificate cannot be used.

    Examples:

        gcompute router check ops/local/router.yaml

        git show HEAD:router.yaml | gcompute router check -
    """
    from router.asking.credentials import credential_doubts
    from router.config.reader import ConfigError, load
    from router.wire.certificate import TlsError, TlsFiles

    if (tls_cert is None) != (tls_key is None):
        raise BadParameter("give --tls-cert and --tls-key together", param_hint="--tls-cert")
    text = read_file(file)
    if text is None:
        return exits.NO_INPUT
    shown = "standard input" if str(file) == "-" else str(file)
    try:
        loaded = load(text)
    except ConfigError as error:
        if as_json(ctx, json_):
            places = [
                {"line": each.line, "column": each.column, "message": each.message} for each in error.mistakes
            ]
            print_json({"file": shown, "ok": False, "mistakes": places})
        else:
            for mistake in error.mistakes:
                print(f"{shown}:{mistake.line}:{mistake.column}: {mistake.message}", file=sys.stderr)
            print(
                f"{report.counted(len(error.mistakes), 'mistake')}; a router would not accept it",
                file=sys.stderr,
            )
        return exits.CONFIG
    table = loaded.table
    warnings = [*loaded.warnings, *credential_doubts(table.sets.values())]
    if tls_cert is not None and tls_key is not None:
        try:
            doubt = TlsFiles(tls_cert, tls_key).doubt(time.time())
        except TlsError as error:
            if as_json(ctx, json_):
                print_json({"file": shown, "ok": False, "mistakes": [], "tls": str(error)})
            else:
                print(f"{error}; a router would not start with it", file=sys.stderr)
            return exits.CONFIG
        if doubt is not None:
            warnings.append(doubt)
    plan, barred, ahead = _release(table, rate, state_dir, name)
    if as_json(ctx, json_):
        weights = {name: share / 100 for name, share in table.default.shares.items()}
        print_json(
            {
                "file": shown,
                "ok": True,
                "version": table.version,
                "sets": list(table.sets),
                "rules": len(table.rules),
                "weights": weights,
                "rollout": plan,
                "barred": barred,
                "warnings": warnings,
            }
        )
        return 0
    print(f"{shown}: good. Version {table.version}, {router_tables.summary(table)}")
    for line in ahead:
        print(line)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _release(
    table: Table, rate: float, state_dir: Path | None, name: str
) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """Look ahead at the file's rollout.

    Returns what a start would do at so many requests a second, the sets that rollouts took back, and both in words.
    """
    from router.rollout.preview import preview
    from router.rollout.record import Progress

    progress = Progress() if state_dir is None else router_offline.progress(state_dir, name)
    lines = [
        f"set {report.plain(each)} gets no new request since its rollout was aborted ({report.plain(bar.why)})"
        for each, bar in sorted(progress.barred.items())
    ]
    plan = preview(table, table, Progress(barred=progress.barred), time.time(), rate)
    if plan is not None:
        lines += router_plan.lines(plan)
    return plan, sorted(progress.barred), lines


@operating
def diff(
    ctx: Context,
    old: Annotated[str, Argument(metavar="OLD", help="A file, or a version that was in force, or `live`.")],
    new: Annotated[str, Argument(metavar="NEW", help="Likewise.")],
    exit_code: Annotated[
        bool, Option(("--exit-code",), help="Exit with 1 if the files route differently.")
    ] = False,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show the effect of a change: the share of keys that moves, per set, and every other difference.

    Examples:

        gcompute router diff live router.yaml

        gcompute router diff 41 42
    """
    from router.config.difference import difference

    tables = []
    for wanted in (old, new):
        table = _table(wanted, admin, token_file)
        if table is None:
            return exits.NO_INPUT if not _is_bad(wanted) else exits.CONFIG
        tables.append(table)
    remark = _with_rollout((old, new), tables, admin, token_file) if "live" in (old, new) else ""
    found = difference(*tables)
    if as_json(ctx, json_):
        print_json(router_tables.difference_document(found))
    else:
        router_tables.difference(found)
    if remark:
        report.say(remark)
    return 1 if exit_code and found.any else 0


@operating
def status(
    ctx: Context,
    watch: Annotated[bool, Option(("--watch", "-w"), help="Repeat until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, Option(("--interval",), min=0.2, max=3600, help="Seconds between two updates.")
    ] = 1.0,
    json_: JsonOption = False,
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """Show each set: weight as configured and in force, health, requests in flight, and for the last half minute
    requests per second, errors and response times (p50, p99).

    Examples:

        gcompute router status --watch

        gcompute router status --json | jq '.sets.b.error_rate'
    """
    asked = Admin.of(admin, token_file)
    if not watch:
        _show(asked.status(), as_json(ctx, json_))
        return 0
    with suppress(KeyboardInterrupt):
        if as_json(ctx, json_) or not sys.stdout.isatty():
            while True:
                _show(asked.status(), as_json(ctx, json_))
                time.sleep(interval_s)
        router_status.watch(asked.status, interval_s)
    return 0


@operating
def history(
    ctx: Context,
    limit: Annotated[int, Option(("-n", "--limit"), min=1, help="Number of changes, newest first.")] = 20,
    json_: JsonOption = False,
    state_dir: StateDirOption = None,
    name: NameOption = "router",
    admin: AdminOption = None,
    token_file: TokenFileOption = None,
) -> int:
    """List the configurations that were in force: when, by whom, and why.

    Examples:

        gcompute router history

        gcompute router history --state-dir var/router --name local
    """
    document = changes(state_dir, name, admin, token_file)
    document["changes"] = document["changes"][-limit:]
    if as_json(ctx, json_):
        print_json(document)
    else:
        _print_changes(document)
    return 0


def changes(state_dir: Path | None, name: str, admin: str | None, token_file: Path | None) -> dict[str, Any]:
    """Read the history from a running router, or from its state folder. Raises `AdminError`, `HistoryError`."""
    if state_dir is None:
        return Admin.of(admin, token_file).history()
    import msgspec

    from router.config.history import History

    kept = History(state_dir / f"{name}.history")
    files = kept.files()
    return {
        "changes": msgspec.to_builtins(kept.changes()),
        "digest": files[-1].digest if files else "",
    }


def read_file(file: Path) -> bytes | None:
    """Return a file's bytes, or standard input for `-`; None, after a message on stderr, if it cannot be read."""
    from router.config.reader import MAX_FILE_BYTES

    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        # A named pipe without a writer would block for ever; the shell's pipes, as in <(…), have one.
        if file.is_fifo() and file.parts[:2] not in (("/", "dev"), ("/", "proc")):
            report.say(
                f"{file} cannot be read: it is not a regular file, and a router would not accept it; use `-` for a pipe"
            )
            return None
        with file.open("rb") as opened:
            return opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        report.say(f"{file} cannot be read: {error.strerror}")
        return None


def _with_rollout(
    names: tuple[str, str], tables: list[Table], admin: str | None, token_file: Path | None
) -> str:
    """Apply the rollout's weights to the live table, and to the other one if they stay in force; return a remark."""
    from ops.cli.router_in_force import InForce

    in_force = InForce.of(Admin.of(admin, token_file).status().get("rollout"))
    if in_force is None:
        return ""
    live = tables[names.index("live")]
    stays = all(in_force.stays(live, table) for table in tables)
    tables[:] = [
        in_force.over(live) if name == "live" else in_force.after(live, table)
        for name, table in zip(names, tables, strict=True)
    ]
    if stays:
        return f"{in_force.words}; that stays in force, and the file's default weights do not"
    return f"{in_force.words}; the file's new default weights replace it"


def _is_bad(wanted: str) -> bool:
    return Path(wanted).is_file()


def _table(wanted: str, admin: str | None, token_file: Path | None) -> Table | None:
    """Return the table of a file, or of a version that a running router knows; None after an error message."""
    from router.config.reader import ConfigError, load

    path = Path(wanted)
    is_version = wanted in ("live", "previous") or (wanted.isdigit() and not path.exists())
    text = Admin.of(admin, token_file).version(wanted) if is_version else read_file(path)
    if text is None:
        return None
    try:
        return load(text).table
    except ConfigError as error:
        for mistake in error.mistakes:
            print(f"{wanted}:{mistake.line}:{mistake.column}: {mistake.message}", file=sys.stderr)
        return None


def _show(document: dict[str, Any], json_: bool) -> None:
    if json_:
        print_json(document)
    else:
        router_status.status(document)


def _print_changes(document: dict[str, Any]) -> None:
    """Print changes, newest first, and mark the one in force."""
    rows = []
    marked = False
    for change in reversed(document["changes"]):
        live = not marked and change["digest"] == document["digest"]
        marked |= live
        what = "weights of the rollout" if change["weights"] is not None else f"version {change['version']}"
        rows.append(
            (
                "*" if live else "",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change["at"])),
                what,
                change["digest"][:10],
                change["by"],
                change["why"],
            )
        )
    columns(("", "SINCE", "WHAT", "DIGEST", "BY", "WHY"), rows)
