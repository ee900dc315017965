"""Bundles: the small segments of one hour in one file.

Belongs here: the file of a bundle, and its exchange for another. Does not belong here: which segments become part of
one and when (segments, retention), or what rows mean.

    <root>/<dataset>/<UTC hour>/bundle.parquet

Nothing is merged in it: it has the rows of each segment as they were, with the place of their segment in the list of
names that is in the footer. So a bundle can be told from its segments by nobody who reads, and an ingestion can still
be withdrawn or replaced. A segment with a file of its own hides what the bundle has under the same name.

A folder has one bundle, always at the same path. Whoever changes it holds the folder's lock, and puts the new one in
its place before the segments' own files are removed; whoever reads lists these files first and opens the bundle then.
So a reader that misses a file finds its rows in the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.stores.publish import published
from ionbeam_dagster.stores.timeseries.steady import Replaced, identity, steadily, while_others_write

BUNDLE = "bundle.parquet"
PLACE = "__place"
GROUP_ROWS = 8_192
REMEDY = "its windows are built again from the raw partitions; `ionbeam rebuild` does it now"
_DRAFT = ".bundle"
_HELD = b"ionbeam.segments"


def held(folder: Path) -> Mapping[str, int]:
    """The names of the segments in the bundle of `folder` by place, each with the bytes that its own file had."""

    def read() -> Mapping[str, int]:
        known = identity(folder / BUNDLE)
        return {} if known is None else _held(folder / BUNDLE, known)

    return while_others_write(read)


@lru_cache(maxsize=1024)
def _held(path: Path, known: tuple[int, int]) -> Mapping[str, int]:
    found: dict[str, int] = json.loads(steadily(path, partial(pq.read_metadata, path), REMEDY).metadata[_HELD])
    return found


def exchange(folder: Path, added: Iterable[Path] = (), without: Collection[str] = ()) -> dict[str, tuple[int, int]]:
    """Put a new bundle in the place of the one of `folder`: with the segments `added`, `without` others.

    Gives the segments that it took, each with the identity of the file that it read. One whose columns are of other
    types than those before it is not taken. Call it only under the folder's lock. Holds one segment in memory.
    """
    path = folder / BUNDLE
    segments, schema = _fitting(path, added)
    before = held(folder)
    kept = [name for name in before if name not in without and name not in segments]
    if not segments and len(kept) == len(before):
        return {}
    if not segments and not kept:
        path.unlink()
        return {}
    sizes = {name: before[name] for name in kept}
    taken: dict[str, tuple[int, int]] = {}

    def frames() -> Iterator[pl.DataFrame]:
        if kept:
            yield from _kept(path, list(before), kept)
        for place, (name, segment) in enumerate(segments.items(), start=len(kept)):
            rows, sizes[name], taken[name] = while_others_write(partial(_whole, segment))
            yield rows.with_columns(pl.lit(place, pl.UInt32).alias(PLACE))

    with published(path, _DRAFT) as draft:
        _write(draft, frames(), schema, sizes)
    return taken


def of_station(folder: Path, station: str, remove: bool) -> int:
    """How many rows of a station a bundle has; and `remove` them. Call it only under the lock of its `folder`."""
    path = folder / BUNDLE
    if not path.exists():
        return 0
    schema = steadily(path, partial(pl.read_parquet_schema, path), REMEDY)
    if STATION not in schema:
        return 0
    gone = (pl.col(STATION) == station).fill_null(False)
    rows = int(pl.scan_parquet(path, glob=False).select(gone.sum()).collect().item())
    if rows and remove:
        names = held(folder)
        with published(path, _DRAFT) as draft:
            everything = _kept(path, list(names), list(names))
            _write(draft, (some.filter(~gone) for some in everything), pl.Schema(schema), names)
    return rows


def _fitting(path: Path, added: Iterable[Path]) -> tuple[dict[str, Path], pl.Schema]:
    """Those of the segments `added` that may share a file with what is there, and the columns of all."""
    schema = pl.Schema({PLACE: pl.UInt32})
    if path.exists():
        schema |= steadily(path, partial(pl.read_parquet_schema, path), REMEDY)
    segments = {}
    for segment in added:
        columns = while_others_write(partial(steadily, segment, partial(pl.read_parquet_schema, segment), REMEDY))
        if all(schema.get(name, kind) == kind for name, kind in columns.items()):
            schema |= columns
            segments[segment.name] = segment
    return segments, pl.Schema(schema)


def _whole(segment: Path) -> tuple[pl.DataFrame, int, tuple[int, int]]:
    known = identity(segment)
    rows = steadily(segment, partial(pl.read_parquet, segment, glob=False), REMEDY)
    if known is None or identity(segment) != known:
        raise Replaced(segment)
    return rows, segment.stat().st_size, known


def _kept(path: Path, before: list[str], kept: list[str]) -> Iterator[pl.DataFrame]:
    """The rows of the segments `kept` of a bundle, at their new places."""
    at = {name: place for place, name in enumerate(kept)}
    places = pl.Series(PLACE, [at.get(name) for name in before], pl.UInt32)
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            rows = pl.DataFrame(pl.from_arrow(steadily(path, partial(file.read_row_group, number), REMEDY)))
            yield rows.with_columns(places.gather(rows[PLACE])).drop_nulls(PLACE)


def _write(draft: Path, frames: Iterable[pl.DataFrame], schema: pl.Schema, sizes: Mapping[str, int]) -> None:
    empty = schema.to_frame()
    described = empty.to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with pq.ParquetWriter(draft, described, compression="zstd", compression_level=1) as writer:
        for group in _groups(frames):
            rows = pl.concat([empty, *group], how="diagonal")
            writer.write_table(rows.to_arrow(compat_level=pl.CompatLevel.oldest()), row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({_HELD: json.dumps(sizes).encode()})


def _groups(frames: Iterable[pl.DataFrame]) -> Iterator[list[pl.DataFrame]]:
    """Frames that fill a row group together. A larger one, which is sorted, stays by itself, for readers of a range."""
    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        if waiting and rows + frame.height > GROUP_ROWS:
            yield waiting
            waiting, rows = [], 0
        waiting.append(frame)
        rows += frame.height
    if waiting:
        yield waiting
