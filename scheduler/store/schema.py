"""Brings a store's database to the schema of this program, and refuses one that a newer program wrote."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import structlog

from scheduler.errors import StoreTooNew
from scheduler.store.rows import read_results
from scheduler.store.sql import schemas

log = structlog.get_logger()


def refuse_newer(path: Path) -> None:
    """Raise `StoreTooNew` for a database of a newer schema. Nothing is written, not even SQLite's own clean-up."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            version = version_of(connection)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
            # A program was killed while it created the database, which only a writer can undo. `migrate` looks again.
            return
        raise
    _refuse(path, version)


def _refuse(path: Path, version: int) -> None:
    if version > len(schemas()):
        raise StoreTooNew(
            f"the store {path} has schema {version}, this program knows up to {len(schemas())}: "
            "run the newer program, restore a backup from before the upgrade, or give this program another store"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Apply the steps that the database lacks, each in a transaction of its own: it is done wholly or not at all."""
    before, steps = version_of(connection), schemas()
    _refuse(path, before)
    # Of steps that need what the database itself cannot read.
    connection.create_function(
        "results_size", 1, lambda body: read_results(body).size_bytes, deterministic=True
    )
    for version, script in enumerate(steps[before:], before + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
    if 0 < before < len(steps):
        log.info("store brought to a newer schema", store=str(path), schema=len(steps), schema_before=before)


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version; 0 for a database without tables."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
