"""What a reader of a window takes of segments and bundles, in ranges of points that can each be merged in memory.

Belongs here: which rows of which files, in order of arrival, and where a window is cut. Does not belong here: which
files there are (segments.py), or what rows of one point become (merging.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.timeseries import TIME, bundles
from ionbeam_dagster.stores.timeseries.steady import steadily

RANGE_ROWS = 500_000  # what a reader merges at once
SAMPLE_EVERY = 512

Point = tuple[Any, ...]


@dataclass(frozen=True)
class Hour:
    """The segments of an hour as they were listed: what the bundle has is looked up later, and not before."""

    folder: Path
    own: list[str]

    def files(self) -> Iterator[Path]:
        yield from (self.folder / name for name in self.own)
        if bundles.held(self.folder):
            yield self.folder / bundles.BUNDLE


class Selection:
    """What a reader takes of every segment: times of `window`, the columns of `schema`, in ranges over `order`."""

    def __init__(self, window: Window, schema: pl.Schema, order: Sequence[str]) -> None:
        self.schema = schema
        self.order = order
        self._in_window = pl.col(TIME).ge(pl.lit(window.start)) & pl.col(TIME).lt(pl.lit(window.end))
        self._cast = {name: pl.col(name).cast(kind) for name, kind in {**schema, bundles.PLACE: pl.UInt32()}.items()}
        self._absent = {name: pl.lit(None, kind).alias(name) for name, kind in schema.items()}

    def load(self, hours: Iterable[Hour], lower: Point | None, upper: Point | None) -> pl.DataFrame:
        """The rows in the half-open range of points [lower, upper); those of a point in order of arrival."""
        within = _within(self.order, lower, upper)
        return pl.concat([self.schema.to_frame(), *(rows for hour in hours for rows in self._in_order(hour, within))])

    def sample(self, files: Iterable[Path]) -> pl.DataFrame:
        """Every so many-th point of each of `files`, in order."""
        points = (self._take(file, self.order, []) for file in files)
        return pl.concat(some.gather_every(SAMPLE_EVERY) for some in points).sort(self.order)

    def _in_order(self, hour: Hour, conditions: Sequence[pl.Expr]) -> Iterator[pl.DataFrame]:
        """The rows of an hour in order of arrival, which is that of the names of segments, wherever they lie."""
        own = {name: self._take(hour.folder / name, self.schema, conditions) for name in hour.own}
        if not bundles.held(hour.folder):
            yield from own.values()
            return
        held, rows = self._take_bundle(hour.folder, conditions)
        place = {name: number for number, name in enumerate(sorted({*own, *held}))}
        places = pl.Series(bundles.PLACE, [None if name in own else place[name] for name in held], pl.UInt32)
        bundled = rows.with_columns(places.gather(rows[bundles.PLACE])).drop_nulls(bundles.PLACE)
        alone = (rows.with_columns(pl.lit(place[name], pl.UInt32).alias(bundles.PLACE)) for name, rows in own.items())
        yield pl.concat([bundled, *alone]).sort(bundles.PLACE, maintain_order=True).drop(bundles.PLACE)

    def _take_bundle(self, folder: Path, conditions: Sequence[pl.Expr]) -> tuple[list[str], pl.DataFrame]:
        """The names of the segments of a bundle, and its rows with the places of theirs."""
        path = folder / bundles.BUNDLE

        def names_and_rows() -> tuple[list[str], pl.DataFrame]:
            return list(bundles.held(folder)), self._take(path, [*self.schema, bundles.PLACE], conditions)

        return steadily(path, names_and_rows, bundles.REMEDY)

    def _take(self, file: Path, names: Iterable[str], conditions: Sequence[pl.Expr]) -> pl.DataFrame:
        def rows() -> pl.DataFrame:
            scan = pl.scan_parquet(file, glob=False)
            present = scan.collect_schema()
            absent = [self._absent[name] for name in self.schema if name not in present]
            scan = scan.with_columns(absent).filter(self._in_window, *conditions)
            return scan.select(self._cast[name] for name in names).collect()

        return steadily(file, rows, bundles.REMEDY)


def cuts(hours: Iterable[Hour], selected: Selection) -> list[Point]:
    """Points that cut the rows of `hours` into ranges that can each be merged in memory."""
    files = [file for hour in hours for file in hour.files()]
    metadata = (steadily(file, partial(pq.read_metadata, file), bundles.REMEDY) for file in files)
    if sum(one.num_rows for one in metadata) <= RANGE_ROWS:
        return []
    step = RANGE_ROWS // SAMPLE_EVERY
    return selected.sample(files).gather_every(step, offset=step).unique(maintain_order=True).rows()


def _within(order: Sequence[str], lower: Point | None, upper: Point | None) -> list[pl.Expr]:
    """Conditions for points in [lower, upper). Those on a single column are there to spare whole row groups."""
    conditions = []
    if lower is not None:
        conditions += [_not_before(order[0], lower[0]), ~_precedes(order, lower)]
    if upper is not None:
        conditions += [_not_after(order[0], upper[0]), _precedes(order, upper)]
    if lower is not None and upper is not None and lower[0] == upper[0]:
        for column, low, high in zip(order[1:], lower[1:], upper[1:], strict=True):
            conditions += [_not_before(column, low), _not_after(column, high)]
            if low != high:
                break
    return conditions


def _not_before(column: str, value: Any) -> pl.Expr:
    return pl.lit(True) if value is None else pl.col(column).ge(pl.lit(value))


def _not_after(column: str, value: Any) -> pl.Expr:
    null = pl.col(column).is_null()
    return null if value is None else null | pl.col(column).le(pl.lit(value))


def _precedes(order: Sequence[str], point: Point) -> pl.Expr:
    """Whether a row comes before `point`, column by column, nulls first."""
    before = pl.lit(False)
    for column, value in reversed(list(zip(order, point, strict=True))):
        null = pl.col(column).is_null()
        if value is None:
            before = null & before
        else:
            equal_and_before = pl.col(column).eq(pl.lit(value)).fill_null(False) & before
            before = null | pl.col(column).lt(pl.lit(value)).fill_null(False) | equal_and_before
    return before
