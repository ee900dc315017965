"""Exports in the ledger.

Belongs here: the current export of each window or cycle and format. Does not belong here: the files
(pipeline/export.py).
"""

from __future__ import annotations

import json
from typing import ClassVar, Protocol

from ionbeam_dagster.domain.records import ExportFacts, ExportRecord
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import ends_of, place_of
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite


class Exports(Protocol):
    """Remembers the current export of every window or cycle."""

    def record_export(self, export: ExportRecord) -> None: ...

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None: ...


# --- SQLite -----------------------------------------------------------------------------------------------------------


class SqliteExports(OnSqlite):
    TABLES = """
CREATE TABLE IF NOT EXISTS exports (
    dataset TEXT, start INTEGER, end INTEGER, format TEXT, number INTEGER, path TEXT, facts TEXT,
    made_by TEXT NOT NULL DEFAULT '', PRIMARY KEY (dataset, start, end, format)
) WITHOUT ROWID;
"""
    ADDED: ClassVar[tuple[Column, ...]] = (("exports", "made_by", "TEXT NOT NULL DEFAULT ''"),)

    def record_export(self, export: ExportRecord) -> None:
        with self._file.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO exports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (export.dataset, *ends_of(export.window), export.format, export.number,
                 export.path, json.dumps(export.facts.to_json()), export.made_by),
            )  # fmt: skip

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT number, path, facts, made_by FROM exports "
                "WHERE dataset = ? AND start = ? AND end = ? AND format = ?",
                (dataset, *ends_of(window), format),
            ).fetchone()
        if not row:
            return None
        return ExportRecord(dataset, window, format, row[0], row[1], ExportFacts.from_json(json.loads(row[2])), row[3])


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:export:<dataset>:<window>:<format>    an export


class RedisExports(OnRedis):
    def record_export(self, export: ExportRecord) -> None:
        path = export.path or ""
        facts = json.dumps(export.facts.to_json())
        record = ("number", export.number, "path", path, "facts", facts, "made_by", export.made_by)
        self._server.run(CALL, "HSET", _export_key(export.dataset, export.window, export.format), *record)

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None:
        key = _export_key(dataset, window, format)
        number, path, facts, made_by = self._server.run(CALL, "HMGET", key, "number", "path", "facts", "made_by")
        if not number:
            return None
        return ExportRecord(
            dataset, window, format, int(number), path or None, ExportFacts.from_json(json.loads(facts)), made_by or ""
        )


def _export_key(dataset: str, window: Window, format: str) -> str:
    return f"ionbeam:export:{dataset}:{place_of(window)}:{format}"
