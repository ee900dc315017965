"""The time-series store on plain Parquet files, without a server.

Belongs here: how canonical points are cut into segments, and read again for a window. Does not belong here:
which ingestions exist and in which order they arrived (stores/ledger), which segments each may have (journals.py), or
other back ends.

    <root>/<dataset>/<UTC hour>/<arrival>-<ingestion>-<part>.parquet    one segment: rows of one hour of one ingestion
    <root>/<dataset>/<UTC hour>/bundle.parquet                          small segments that became one file (bundles.py)
    <root>/<dataset>/.ingestions/<ingestion>                            its journal (what it may have) and lock
    <root>/<dataset>/.drafts/<ingestion>/                               segments that are being written, never read

A segment is sorted by key and time, in small row groups, so that a reader that wants a range of stations decodes little
else. The names of segments sort in order of arrival, and that order decides which value of a point wins.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote

import polars as pl
import polars.selectors as cs
import pyarrow as pa

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.windows import HOUR, Window, windows_between
from ionbeam_dagster.errors import LostPoints
from ionbeam_dagster.stores.damage import is_of_one_file, read_through, remedy_of
from ionbeam_dagster.stores.locks import folder_locked
from ionbeam_dagster.stores.publish import DAMAGED, make_folder, published, put_in_place, sync
from ionbeam_dagster.stores.timeseries import TIME, Refused, bundles, journals
from ionbeam_dagster.stores.timeseries.merging import merged
from ionbeam_dagster.stores.timeseries.selecting import Hour, Point, Selection, cuts
from ionbeam_dagster.stores.timeseries.steady import Replaced, SegmentError, identity, steadily, while_others_write

BUCKET_FORMAT = "%Y%m%dT%H"
PART_ROWS = 500_000  # of one segment: what is sorted at once
BUFFERED_ROWS = 1_000_000  # of all hours of one ingestion that wait to be written
ROW_GROUP_ROWS = 8_192  # what a reader of a narrow range decodes too much per segment
BATCH_ROWS = 100_000
SMALL_BYTES = 4 << 20  # a larger segment gains nothing in a bundle
CROWD = 8  # so many small segments of an hour are worth a bundle

_INGESTED_AGAIN = (
    "its rows are ingested again when a window of that hour is built; `ionbeam rebuild --force` of it does so now"
)


class SegmentStore:
    """A `TimeSeriesStore` in the folder `root`. Any number of processes may write and read it at once.

    Memory: a write holds about a million rows and a read half a million, however many there are in all.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(
        self,
        dataset: str,
        ingestion: str,
        arrival: int,
        frames: Iterable[pl.DataFrame],
        key: Sequence[str],
        refused: Refused | None = None,
    ) -> int:
        """Store canonical rows durably; returns how many. NaN counts as null, and none is refused.

        All segments are drafts until the last frame was taken; then they are renamed into place one by one. A crash
        between two renames leaves a part of the ingestion to be seen, until it is written again: its claim is recorded
        only after this method returned, so it will be. Raises ValueError for a row without a time.
        """
        home = self.root / dataset
        with journals.opened(home, ingestion) as journal, _drafts(home, ingestion) as drafts:
            rows, segments = _write_drafts(drafts, f"{arrival:012d}-{quote(ingestion, safe='')}", frames, key)
            earlier = journal.names()
            journal.add(name for name in segments if name not in earlier)
            buckets = {(home / name).parent for name in [*segments, *earlier]}
            for bucket in buckets:
                make_folder(bucket)
            for name, draft in segments.items():
                put_in_place(draft, home / name)
            for bucket in buckets:
                sync(bucket)
            _remove(home, earlier - segments.keys())
            journal.strike(earlier - segments.keys())
        return rows

    def read(self, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The points of `window`, one row each, with the columns of `schema`, ordered by `key` (nulls first) and time.

        Equal nulls are the same key. A segment that is withdrawn or replaced meanwhile is seen as it was or as it is.
        Raises LostPoints when a segment is damaged.
        """
        home = self.root / dataset
        order = [*key, TIME]
        selected = Selection(window, pl.DataFrame(schema.empty_table()).schema, order)

        def load(lower: Point | None, upper: Point | None) -> pl.DataFrame:
            return selected.load(_hours(home, window), lower, upper)

        between = while_others_write(lambda: cuts(_hours(home, window), selected))
        for lower, upper in pairwise([None, *between, None]):
            points = merged(while_others_write(partial(load, lower, upper)), order)
            for some in points.select(schema.names).iter_slices(BATCH_ROWS):
                yield from some.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema).to_batches()

    def withdraw(self, dataset: str, ingestion: str) -> None:
        """Forget what `ingestion` brought; values that it had replaced are seen again. Unknown ones are no error."""
        home = self.root / dataset
        if not journals.is_there(home, ingestion):
            return
        with journals.opened(home, ingestion) as journal:
            shutil.rmtree(_drafts_path(home, ingestion), ignore_errors=True)
            _remove(home, journal.names())
            journal.remove()

    def of_station(self, dataset: str, station: str, remove: bool) -> int:
        """How many rows of the station there are; and `remove` them. A segment of which nothing is left stays, empty:
        its journal names it. What was set aside because it is damaged goes, whosever it is."""
        home, rows = self.root / dataset, 0
        for ingestion, _ in journals.all_of(home):
            with journals.opened(home, ingestion) as journal:
                names = sorted(journal.names())
                if not names:  # withdrawn meanwhile
                    journal.remove()
                rows += sum(_of_station(home / name, station, remove) for name in names)
        for folder in sorted(home.glob("[0-9]*")):
            with folder_locked(folder):
                rows += bundles.of_station(folder, station, remove)
                for path in folder.glob(f"*{DAMAGED}") if remove else ():
                    path.unlink(missing_ok=True)
        return rows

    def lacking(self, dataset: str, ingestions: Sequence[str]) -> list[str]:
        """Those of `ingestions`, all of which brought rows, that lack a segment of their journal, or all of them.

        A journal without a segment is what a write left that failed.
        """
        home = self.root / dataset
        return [ingestion for ingestion in ingestions if not _is_whole(home, ingestion)]

    def damaged(self, dataset: str, window: Window) -> frozenset[str]:
        found = (hour.folder.glob(f"*{DAMAGED}") for hour in _hours(self.root / dataset, window))
        return frozenset(str(path) for paths in found for path in paths)

    def read_through(self, dataset: str) -> list[str]:
        home, found = self.root / dataset, []
        for folder in sorted(home.glob("????????T??")):
            for path in Hour(folder, _own(folder)).files():
                try:
                    steadily(path, partial(read_through, path), _INGESTED_AGAIN)
                except LostPoints as error:
                    found.append(str(error))
                except (FileNotFoundError, Replaced):  # another took its place, of which the next look tells
                    continue
                except OSError as error:
                    if not is_of_one_file(error):
                        raise
                    found.append(f"segment {path} cannot be read ({error}); {remedy_of(error)}")
        return found

    def held(self, dataset: str) -> dict[str, int]:
        """The ingestions that have segments, each with the bytes of these."""
        home = self.root / dataset
        found = {}
        for ingestion, names in journals.all_of(home):
            with suppress(FileNotFoundError):  # withdrawn meanwhile
                found[ingestion] = sum(_size(home / name) for name in names)
        return found

    def arrivals(self, dataset: str) -> dict[str, int]:
        """The ingestions of which there are points, each with its place in the order of arrival."""
        found = {}
        for folder in (self.root / dataset).glob("[0-9]*"):
            for name in [*_own(folder), *bundles.held(folder)]:
                arrival, ingestion = _named(name)
                found[ingestion] = arrival
        return found

    def crowded(self, dataset: str) -> Iterator[tuple[Window, int]]:
        """The hours that have enough small segments to be worth `compact`, each with how many; the earliest first."""
        for folder in sorted((self.root / dataset).glob("[0-9]*")):
            if (number := len(_small(folder))) >= CROWD:
                start = datetime.strptime(folder.name, BUCKET_FORMAT).replace(tzinfo=UTC)
                yield Window(start, start + HOUR), number

    def compact(self, dataset: str, hour: Window) -> int:
        """Make the small segments of an hour one file; gives how many became a part of it.

        What is read stays the same, and who writes or reads meanwhile is not kept waiting. A segment that is being
        written again keeps its file. A crash leaves segments twice, which no reader notices, until the next
        call.
        """
        home = self.root / dataset
        folder = home / hour.start.strftime(BUCKET_FORMAT)
        with folder_locked(folder):
            taken = bundles.exchange(folder, added=_small(folder))
            for name, known in taken.items():
                with journals.unless_written(home, _named(name)[1]) as unwritten:
                    if unwritten and identity(folder / name) == known:
                        (folder / name).unlink()
            sync(folder)
        return len(taken)


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_drafts(
    drafts: Path, prefix: str, frames: Iterable[pl.DataFrame], key: Sequence[str]
) -> tuple[int, dict[str, Path]]:
    """Write `frames` as sorted segments into `drafts`; gives the number of rows, and the draft of each segment's name.

    No file stays open, whatever the number of hours. When too many rows wait, the fullest hour is written.
    """
    waiting: defaultdict[str, list[pl.DataFrame]] = defaultdict(list)
    heights: defaultdict[str, int] = defaultdict(int)
    parts: defaultdict[str, int] = defaultdict(int)
    segments: dict[str, Path] = {}
    rows = 0

    def flush(bucket: str) -> None:
        name = f"{prefix}-{parts[bucket]:05d}.parquet"
        draft = drafts / f"{bucket}-{parts[bucket]:05d}"
        _write_segment(draft, pl.concat(waiting.pop(bucket)), key)
        segments[f"{bucket}/{name}"] = draft
        parts[bucket] += 1
        del heights[bucket]

    for frame in frames:
        rows += frame.height
        for piece in frame.iter_slices(PART_ROWS):
            for bucket, part in _by_hour(piece):
                waiting[bucket].append(part)
                heights[bucket] += part.height
                if heights[bucket] >= PART_ROWS:
                    flush(bucket)
            while sum(heights.values()) > BUFFERED_ROWS:
                flush(max(heights, key=heights.__getitem__))
    for bucket in list(waiting):
        flush(bucket)
    return rows, segments


def _by_hour(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    if frame[TIME].null_count():
        raise ValueError(f"{frame[TIME].null_count()} rows have no {TIME}; such rows belong into quarantine")
    hours = frame[TIME].dt.truncate("1h")
    if frame.height and hours.min() == hours.max():
        yield hours[0].strftime(BUCKET_FORMAT), frame
        return
    by_hour = frame.with_columns(hours.alias("__hour")).partition_by(
        "__hour", maintain_order=True, include_key=False, as_dict=True
    )
    for (hour,), part in by_hour.items():
        yield hour.strftime(BUCKET_FORMAT), part


def _write_segment(path: Path, frame: pl.DataFrame, key: Sequence[str]) -> None:
    rows = frame.with_columns(cs.float().fill_nan(None)).sort(*key, TIME, maintain_order=True)
    try:
        rows.write_parquet(path, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS)
        sync(path)
    except (OSError, pl.exceptions.PolarsError) as error:  # Polars does not always say that it was the system
        raise SegmentError(
            f"segment {path} cannot be written ({error}); what was there before is untouched. Make room, or give "
            "permission, and ingest again"
        ) from error


def _remove(home: Path, names: Iterable[str]) -> None:
    """Remove segments durably, from the bundles first: whoever holds their journal may do so."""
    by_folder = defaultdict(set)
    for name in names:
        by_folder[(home / name).parent].add((home / name).name)
    for folder, gone in by_folder.items():
        if not folder.exists():
            continue
        with folder_locked(folder):
            bundles.exchange(folder, without=gone)
            for name in gone:
                (folder / name).unlink(missing_ok=True)
            sync(folder)


def _drafts_path(home: Path, ingestion: str) -> Path:
    return home / ".drafts" / quote(ingestion, safe="")


@contextmanager
def _drafts(home: Path, ingestion: str) -> Iterator[Path]:
    """An empty folder for the drafts of `ingestion`, also when a crash left some there; gone afterwards."""
    path = _drafts_path(home, ingestion)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _of_station(segment: Path, station: str, remove: bool) -> int:
    """How many rows of a station a segment has that has a file of its own; and `remove` them."""
    with folder_locked(segment.parent):
        try:
            columns = pl.read_parquet_schema(segment)
        except FileNotFoundError:  # in the bundle
            return 0
        if STATION not in columns:
            return 0
        gone = (pl.col(STATION) == station).fill_null(False)
        rows = int(pl.scan_parquet(segment, glob=False).select(gone.sum()).collect().item())
        if rows and remove:
            with published(segment) as draft:
                left = pl.read_parquet(segment, glob=False).filter(~gone)
                left.write_parquet(draft, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS)
    return rows


# --- the segments of an ingestion -------------------------------------------------------------------------------------


def _is_whole(home: Path, ingestion: str) -> bool:
    names = journals.names_of(home, ingestion)
    return bool(names) and all((home / name).exists() or _is_bundled(home / name) for name in names)


def _is_bundled(segment: Path) -> bool:
    return segment.name in bundles.held(segment.parent)


def _size(segment: Path) -> int:
    """The bytes of a segment; in a bundle, those that it had before."""
    try:
        return segment.stat().st_size
    except FileNotFoundError:
        if _is_bundled(segment):
            return bundles.held(segment.parent)[segment.name]
        raise


# --- the files of an hour ---------------------------------------------------------------------------------------------


def _own(folder: Path) -> list[str]:
    """The segments of an hour that have a file of their own, in order of arrival."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  (names are enough)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name[0].isdigit() and name.endswith(".parquet"))


def _small(folder: Path) -> list[Path]:
    found = []
    for name in _own(folder):
        with suppress(FileNotFoundError):  # withdrawn meanwhile
            if (folder / name).stat().st_size < SMALL_BYTES:
                found.append(folder / name)
    return found


def _named(segment: str) -> tuple[int, str]:
    """The arrival and the ingestion that the name of a segment tells."""
    arrival, rest = segment.removesuffix(".parquet").split("-", 1)
    return int(arrival), unquote(rest.rsplit("-", 1)[0])


# --- reading ----------------------------------------------------------------------------------------------------------


def _hours(home: Path, window: Window) -> list[Hour]:
    """The hours that may hold rows of `window`."""
    folders = (home / hour.start.strftime(BUCKET_FORMAT) for hour in windows_between(window.start, window.end, HOUR))
    return [Hour(folder, _own(folder)) for folder in folders]
