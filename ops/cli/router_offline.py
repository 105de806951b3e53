"""Gives a rollout's orders to a router's state folder, for when the router does not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ops.cli import report
from ops.cli.router_admin import AdminError

if TYPE_CHECKING:
    from router.rollout.record import Progress
    from router.routing.table import Table

FILE_VARIABLE: Final = "GC_ROUTER_FILE"


def status(state_dir: Path, name: str, file: Path | None) -> dict[str, Any]:
    """Read the rollout's status from the disk. Raises `AdminError`, `RouterError`."""
    from router.rollout.statefile import StateFile

    return _document(StateFile(_folder(state_dir, name)).read(), _table(state_dir, name, file))


def progress(state_dir: Path, name: str) -> Progress:
    """Read the rollout's progress from the disk. Raises `AdminError`, `RouterError`."""
    from router.rollout.statefile import StateFile

    return StateFile(_folder(state_dir, name)).read()


def order(
    verb: str,
    state_dir: Path,
    name: str,
    file: Path | None,
    *,
    by: str,
    why: str,
    given: dict[str, Any],
    at_once: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Give an order and return the status after it. Routers that use the folder obey within a second, or on start.

    Raises `AdminError`, and `RouterError` as `router.rollout.orders.give`.
    """
    from router.rollout.orders import Given, Order, give
    from router.rollout.statefile import StateFile

    state, table = StateFile(_folder(state_dir, name)), _table(state_dir, name, file)
    progress = give(
        state, Order(verb), table, by=by, why=why, at_once=at_once, force=force, given=Given(**given)
    )
    report.say(f"written to {state.path}; routers that use it obey within a second, or when they start")
    if progress.phase == "aborting":
        report.say(
            "the rest is taken back step by step while a router runs; --at-once takes it back in one step"
        )
    return _document(progress, table)


def _folder(state_dir: Path, name: str) -> Path:
    folder = state_dir / f"{name}.rollout"
    if not folder.is_dir():
        found = sorted(path.name.removesuffix(".rollout") for path in state_dir.glob("*.rollout"))
        there = f"there is {', '.join(found)}; give --name" if found else "is it a router's --state-dir?"
        raise AdminError(f"{folder} does not exist; {there}")
    return folder


def _table(state_dir: Path, name: str, file: Path | None) -> Table:
    """Return the operators' file, else the last configuration that the router had in force."""
    from router.config.history import History
    from router.config.reader import load

    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if named is not None:
        try:
            return load(named.read_bytes()).table
        except OSError as error:
            raise AdminError(f"{named} cannot be read: {error.strerror}") from error
    kept = History(state_dir / f"{name}.history")
    files = kept.files()
    if not files:
        raise AdminError(f"there is no configuration in {state_dir}; give the router's file with --file")
    return load(kept.text(files[-1].digest)).table


def _document(progress: Any, table: Table) -> dict[str, Any]:
    from router.rollout.orders import in_force
    from router.rollout.status import describe

    told = describe(progress, table, in_force(table, progress))
    return {**told, "leader": None, "error": None, "file_version": table.version, "next": None}
