"""The tables of a SQLite ledger, and its way from an earlier version to this one.

Belongs here: what is done to every file that is opened; each subject brings its own tables. Does not belong here: the
records in them. Redis needs none of it: what a key lacks there is absent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

Column = tuple[str, str, str]
"""A table, a column that files of earlier versions lack, and its type."""


def migrate(db: sqlite3.Connection, tables: Iterable[str], added: Iterable[Column], indices: Iterable[str]) -> None:
    """Make the tables that are missing, add the columns that earlier versions lack, and make the indices of these."""
    db.executescript("".join(tables))
    for table, column, kind in added:
        if not _has_column(db, table, column):
            db.execute("BEGIN IMMEDIATE")
            if not _has_column(db, table, column):  # another process may have been quicker
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            db.execute("COMMIT")
    db.executescript("".join(indices))


def _has_column(db: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
