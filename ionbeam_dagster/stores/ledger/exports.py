"""Exports in the ledger.

Belongs here: the current export of each window or cycle and format. Does not belong here: the files
(pipeline/export.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar, Protocol

from ionbeam_dagster.domain.records import ExportFacts, ExportRecord
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.ledger.keys import ends_of, micros, place_of, window_from
from ionbeam_dagster.stores.ledger.on_redis import CALL, OnRedis
from ionbeam_dagster.stores.ledger.sqlite_file import Column, OnSqlite


class Exports(Protocol):
    """Remembers the current export of every window or cycle."""

    def record_export(self, export: ExportRecord) -> None: ...

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None: ...

    def exports(self, dataset: str, windows: Sequence[Window], formats: Sequence[str]) -> list[ExportRecord]:
        """Those that there are of these windows or cycles in these formats, in order of window and format."""
        ...


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
        return _of_row(dataset, window, format, *row) if row else None

    def exports(self, dataset: str, windows: Sequence[Window], formats: Sequence[str]) -> list[ExportRecord]:
        if not windows:
            return []
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT start, end, format, number, path, facts, made_by FROM exports "
                "WHERE dataset = ? AND start >= ? AND start <= ? ORDER BY start, end, format",
                (dataset, micros(min(windows).start), micros(max(windows).start)),
            ).fetchall()
        asked = set(windows)
        found = (_of_row(dataset, window_from(start, end), *told) for start, end, *told in rows)
        return [one for one in found if one.window in asked and one.format in formats]


def _of_row(
    dataset: str, window: Window, format: str, number: int, path: str | None, facts: str, made_by: str
) -> ExportRecord:
    return ExportRecord(dataset, window, format, number, path, ExportFacts.from_json(json.loads(facts)), made_by)


# --- Redis ------------------------------------------------------------------------------------------------------------

#     ionbeam:export:<dataset>:<window>:<format>    an export

_EXPORTS = """
local found = {}
for i, key in ipairs(ARGV) do found[i] = redis.call('HMGET', key, 'number', 'path', 'facts', 'made_by') end
return found
"""


class RedisExports(OnRedis):
    def record_export(self, export: ExportRecord) -> None:
        path = export.path or ""
        facts = json.dumps(export.facts.to_json())
        record = ("number", export.number, "path", path, "facts", facts, "made_by", export.made_by)
        self._server.run(CALL, "HSET", _export_key(export.dataset, export.window, export.format), *record)

    def export(self, dataset: str, window: Window, format: str) -> ExportRecord | None:
        return next(iter(self.exports(dataset, [window], [format])), None)

    def exports(self, dataset: str, windows: Sequence[Window], formats: Sequence[str]) -> list[ExportRecord]:
        asked = [(window, format) for window in sorted(set(windows)) for format in sorted(set(formats))]
        found = self._server.run(_EXPORTS, *(_export_key(dataset, *one) for one in asked))
        return [
            _of_row(dataset, window, format, int(number), path or None, facts, made_by or "")
            for (window, format), (number, path, facts, made_by) in zip(asked, found, strict=True)
            if number
        ]


def _export_key(dataset: str, window: Window, format: str) -> str:
    return f"ionbeam:export:{dataset}:{place_of(window)}:{format}"
