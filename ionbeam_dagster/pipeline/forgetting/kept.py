"""What the platform keeps as it came: raw partitions, rows set aside, what sources remember, observations.

Belongs here: finding a station there, and writing these files again without it. Does not belong here: what is made of
observations (made.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.raw_values import as_text
from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.domain.windows import FOREVER, Window, windows_between
from ionbeam_dagster.pipeline.forgetting.who import Others, Removed, Who, is_of, telling_unread, without
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.stores.raw import RawFile

_JOURNAL = "journal"
_CALLED = (STATION, "platform")
"""The columns in which what is set aside, and journals, call a station."""
_MESSAGE = "text"
"""The column of a message that could not be read."""


def raws(others: Others, platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Raw partitions are written again without its rows, in their places and under the same ingestions, while nobody
    else collects or ingests their windows."""
    for source, station in who.names:
        store = platform.raws(source)
        recorded = {raw.path: raw for raw in platform.ledger.raws(source.name, FOREVER)}
        for path in sorted({*recorded, *store.files(source.name)}):
            raw = recorded.get(path)
            file, rows = _opened(platform, source, path, station)
            if dry_run and rows:
                yield Removed("raw partitions", path, rows)
            elif not dry_run and file is not None and (rows or _is_unnoted(platform, source, file, raw)):
                windows = _windows_of(platform, source, file)
                with others.kept_from(source.name, windows):
                    raw = _recorded_now(platform, source, windows[0], path) if windows else raw
                    yield from _raw(platform, source, path, raw, station)
        yield from _set_aside(platform, within(source.config.data_path, source.name), dry_run)


def _opened(platform: Platform, source: SourceSettings, path: str, station: str) -> tuple[RawFile | None, int]:
    """A raw partition, where it can be read, and how many rows of the station it has."""
    with telling_unread(path):
        file = platform.raws(source).open(path)
        return file, _rows_of(file, station)
    return None, 0


def _is_unnoted(platform: Platform, source: SourceSettings, file: RawFile, raw: RawPartition | None) -> bool:
    """Whether a process that was killed had written a raw partition again and could not note it."""
    if raw is None or not file.ingestion:
        return False
    return platform.raws(source).measured(file.path) != (raw.rows, raw.bytes, raw.hash)


def _windows_of(platform: Platform, source: SourceSettings, file: RawFile) -> list[Window]:
    """The windows of its source that a raw partition touches."""
    first, _ = platform.range_of(source)
    return list(windows_between(max(file.collected.start, first), file.collected.end, source.window_size))


def _recorded_now(platform: Platform, source: SourceSettings, window: Window, path: str) -> RawPartition | None:
    """What is known of a raw partition; None of one that was replaced or purged meanwhile."""
    ledger = platform.ledger
    found = ledger.sent(source.name, window) if source.sent else [ledger.raw(source.name, window)]
    return next((raw for raw in found if raw is not None and raw.path == path and raw.purged is None), None)


def _raw(
    platform: Platform, source: SourceSettings, path: str, raw: RawPartition | None, station: str
) -> Iterator[Removed]:
    """Write a raw partition again as it is now, and note it."""
    file, rows = _opened(platform, source, path, station)
    if file is None:
        return
    if rows:
        # A file that nobody noted is taken in by its content, as it was before.
        ingestion = raw.ingestion if raw is not None else file.ingestion
        platform.raws(source).write_again(file, ingestion, partial(without, station))
    if raw is not None and (rows or _is_unnoted(platform, source, file, raw)):
        _note(platform, source, path, raw)
    if rows:
        yield Removed("raw partitions", path, rows)


def _note(platform: Platform, source: SourceSettings, path: str, raw: RawPartition) -> None:
    rows, size, hash = platform.raws(source).measured(path)
    known = replace(raw, rows=rows, bytes=size, hash=hash)
    if source.sent:
        platform.ledger.record_sent([(known, ())])
    elif (now := platform.ledger.raw(source.name, raw.window)) is not None and now.ingestion == raw.ingestion:
        platform.ledger.record_raw(known)


def _rows_of(file: RawFile, station: str) -> int:
    if STATION not in {one.column for one in file.metadata.ingestion_map.metadata_variables}:
        return 0
    found = (batch for batch in file.batches([STATION]) if STATION in batch.schema.names)
    return sum(int(is_of(batch, station).sum()) for batch in found)


def quarantined(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Rows that could not be used, also those that the time-series server refused."""
    ids = {source.name: station for source, station in who.names} | {who.dataset.name: who.id}
    for file in platform.quarantine.files():
        if file.of in ids:
            gone = _called(ids[file.of], who.id)
            yield from rows_in(platform, file.location, gone, "rows in quarantine", dry_run)


def remembered(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """The journals of sources that are published to."""
    for source, station in who.names:
        journal = source.config.cache_path / f"{source.name}.{_JOURNAL}"
        for path in sorted(journal.rglob("*.parquet")):
            yield from rows_in(platform, str(path), _called(station), "rows of journals", dry_run)


def observations(platform: Platform, who: Who, dry_run: bool) -> Iterator[Removed]:
    """Its points in the time-series store."""
    rows = platform.series.of_station(who.dataset.name, who.id, remove=not dry_run)
    if rows:
        yield Removed("observations", f"the time-series store of {who.dataset.name}", rows)


def left_elsewhere(platform: Platform, who: Who) -> Iterator[str]:
    """What sources themselves keep and the platform does not look into."""
    for source, _ in who.names:
        folder = source.config.cache_path
        own = [path for path in sorted(folder.glob(f"{source.name}.*")) if path.suffix != f".{_JOURNAL}"]
        for path in own:
            yield f"{path}, where {source.name} notes what it reads or downloaded: remove it while nothing is collected"
        if not source.sent:
            yield f"what {source.name} reads is its owner's: rows of the station are left out as they are collected"


def rows_in(
    platform: Platform, location: str, gone: Callable[[pl.DataFrame], pl.Series], kind: str, dry_run: bool
) -> Iterator[Removed]:
    """The rows of a table that are to be `gone`; a table of which nothing is left goes."""
    table: pl.DataFrame | None = None
    with telling_unread(location), platform.files.fetched(location) as local:
        table = pl.DataFrame(pl.from_arrow(pq.read_table(local)))
    if table is None:
        return
    its_own = gone(table)
    if not its_own.any():
        return
    if not dry_run:
        left = table.filter(~its_own)
        if left.is_empty():
            platform.files.delete(location)
        else:
            with platform.files.published(location) as draft:
                pq.write_table(left.to_arrow(), draft, compression="zstd")
    yield Removed(kind, location, int(its_own.sum()))


def _called(*names: str) -> Callable[[pl.DataFrame], pl.Series]:
    """Rows of stations of these names, and messages in JSON that say one."""
    in_json = [json.dumps(name) for name in names]

    def gone(table: pl.DataFrame) -> pl.Series:
        found = pl.repeat(False, table.height, eager=True)
        for name in table.columns:
            if name in _CALLED:
                found |= as_text(table[name]).is_in(names).fill_null(False)
            elif name == _MESSAGE:
                found |= table[name].str.contains_any(in_json).fill_null(False)
        return found

    return gone


def _set_aside(platform: Platform, folder: str, dry_run: bool) -> Iterator[Removed]:
    """Damaged files, of which nobody can say what they hold."""
    for location in sorted(platform.files.aside(folder)):
        if not dry_run:
            platform.files.delete(location)
        yield Removed("damaged files", location)
