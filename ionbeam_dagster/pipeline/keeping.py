"""Keeping: what a source gave for a window before, and gives no longer, stays in the window's raw partition.

Belongs here: the comparison of two answers for one window, point by point and value by value. Does not belong here:
whether an earlier answer is kept at all (collect.py), or the merging of ingestions (stores/timeseries).

A value is given again when the new answer has one for the same variable of the same point (station and time). Memory:
two numbers and a bit a variable for each row of the new answer, one number for each row of the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.canonical import canonical_schema, canonicalise, columns_of, point_key
from ionbeam_dagster.stores.raw import RawFile

ROWS_AT_ONCE = 128 * 1024
_POINT, _ROW = "x_point", "x_row_of_batch"


class Keeping:
    """Puts what an earlier answer held, and a new one lacks, behind the rows of the new one.

    `rows` are those that were kept, known when `together` has ended, as is `says_nothing_new`: every row of the new
    answer stood in the earlier one, as it was.
    """

    def __init__(self, before: RawFile, metadata: IngestionMetadata) -> None:
        self._before = before
        self._metadata = metadata
        schema = canonical_schema([metadata])
        self._key = [*point_key(schema), "datetime"]
        self._names = {v.column: v.to_canonical_name() for v in metadata.ingestion_map.canonical_variables}
        self._flags = {v.column: v.flag_column for v in metadata.ingestion_map.canonical_variables if v.flag_column}
        self._columns = [*columns_of(schema, "variable")]
        self._given: list[pl.DataFrame] = []
        self._new: list[np.ndarray] = []
        self._old: list[np.ndarray] = []
        self._points_before: list[np.ndarray] = []
        self._rejected = 0
        self.rows = 0

    @property
    def says_nothing_new(self) -> bool:
        if self._rejected or _repeats(self._points_before):
            return False
        return bool(np.isin(_joined(self._new), _joined(self._old)).all())

    def together(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """`batches`, then what is kept, in batches of a bounded size that depends on the rows alone."""
        schema = None
        for batch in batches:
            schema = schema or batch.schema
            self._note(batch)
            yield batch
        given = _by_point(self._given, self._columns)
        waiting: pa.Table | None = None
        for batch in self._before.batches():
            kept = self._kept(batch, given)
            self.rows += kept.num_rows
            if kept.num_rows:
                more = pa.Table.from_batches([_fitted(kept, schema)])
                waiting = more if waiting is None else pa.concat_tables([waiting, more])
            while waiting is not None and waiting.num_rows >= ROWS_AT_ONCE:
                yield from waiting.slice(0, ROWS_AT_ONCE).combine_chunks().to_batches()
                waiting = waiting.slice(ROWS_AT_ONCE)
        if waiting is not None and waiting.num_rows:
            yield from waiting.combine_chunks().to_batches()

    def _note(self, batch: pa.RecordBatch) -> None:
        done = canonicalise(batch, self._metadata)
        self._rejected += done.rejected.height
        points = done.rows.select(self._key).hash_rows().alias(_POINT)
        self._given.append(
            pl.DataFrame([points, *(done.rows[name].is_not_null().alias(name) for name in self._columns)])
        )
        self._new.append(done.rows.hash_rows().to_numpy())

    def _kept(self, batch: pa.RecordBatch, given: pl.DataFrame) -> pa.RecordBatch:
        """The rows of an earlier batch of which a value is not given again, without those values that are."""
        done = canonicalise(batch, self._metadata)
        good = done.places.to_numpy()
        points = done.rows.select(self._key).hash_rows().alias(_POINT)
        self._old.append(done.rows.hash_rows().to_numpy())
        self._points_before.append(points.to_numpy())
        found = pl.DataFrame([points]).join(given, on=_POINT, how="left", maintain_order="left")
        lacking = {
            name: (done.rows[name].is_not_null() & ~found[name].fill_null(False)).to_numpy() for name in self._columns
        }
        # a point without a value (a mere quality code) is kept where the point is not given at all
        wanted = np.logical_or.reduce([found[self._columns[0]].is_null().to_numpy(), *lacking.values()])
        rows = batch.take(pa.array(good[wanted]))
        for column, name in self._names.items():
            rows = _without(rows, column, lacking[name][wanted])
            if flag := self._flags.get(column):
                rows = _without(rows, flag, lacking[name][wanted])
        return rows


def _by_point(frames: list[pl.DataFrame], columns: list[str]) -> pl.DataFrame:
    """Of each point that is given, which variables have a value."""
    if not frames:
        return pl.DataFrame(schema={_POINT: pl.UInt64, **dict.fromkeys(columns, pl.Boolean)})
    return pl.concat(frames).group_by(_POINT).agg(pl.col(columns).any())


def _without(rows: pa.RecordBatch, column: str, stays: np.ndarray) -> pa.RecordBatch:
    """`rows` with null in `column` where it does not stay."""
    if stays.all():
        return rows
    place = rows.schema.get_field_index(column)
    field = rows.schema.field(place)
    values = pa.compute.if_else(pa.array(stays), rows.column(place), pa.scalar(None, field.type))
    return rows.set_column(place, field.with_nullable(True), values)


def _fitted(rows: pa.RecordBatch, schema: pa.Schema | None) -> pa.RecordBatch:
    """`rows` with the columns of the new answer, null where the earlier one had none."""
    if schema is None:
        return rows.replace_schema_metadata(None)
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.schema.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _joined(hashes: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(hashes) if hashes else np.array([], np.uint64)


def _repeats(hashes: list[np.ndarray]) -> bool:
    joined = _joined(hashes)
    return len(np.unique(joined)) < len(joined)
