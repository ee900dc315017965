"""The time-series store in InfluxDB 2: for platforms that share their observations with others, or outgrow one machine.

Belongs here: how canonical points lie in a bucket, how they are written to it and read from it. Does not belong here:
which ingestions exist and in which order they arrived (stores/ledger).

    <dataset>,layer=0,station_id=A lat=52.1,lon=5.2,<variable>=12.5,altitude|s="3" <time>    a point
    ionbeam.parts,dataset=..,ingestion=..,attempt=.. arrival|i=7i,layer|s="0",.. <hour>      what an ingestion has there

InfluxDB keeps one value of a field for a series and a time, whichever was written last. So that an older ingestion
never hides a newer one, and each can be taken back, ingestions that overlap within an hour lie in different layers: the
first in layer 0, and so on. What is seen of a layer are the parts in `ionbeam.parts` that are ready and not retired; to
write an ingestion again is to write it to a free layer, make that one ready and retire the old one.

Columns of the key are tags, all others fields. A field's name tells its type after a ``|`` (floats have none), since
InfluxDB refuses a second type under one name. Texts come through as they are, except that control characters, backslash
and ``%`` are written as in a URL.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.domain.windows import HOUR, Window, merge
from ionbeam_dagster.stores.quarantine import REASON
from ionbeam_dagster.stores.timeseries import TIME, Refused
from ionbeam_dagster.stores.timeseries.influxdb.bucket import OpenBucket
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError
from ionbeam_dagster.stores.timeseries.influxdb.line_protocol import line_protocol
from ionbeam_dagster.stores.timeseries.influxdb.names import ARRIVAL, FIRST, LAST, LAYER, micros
from ionbeam_dagster.stores.timeseries.influxdb.parts import EVER, PARTS, Part, visible
from ionbeam_dagster.stores.timeseries.influxdb.sorted_points import SortedPoints
from ionbeam_dagster.stores.timeseries.merging import merged
from ionbeam_dagster.stores.timeseries.segments import SegmentStore
from ionbeam_dagster.tls import TlsSettings

REQUEST_LINES = 50_000
SLICE_ROWS = 500_000  # what a reader fetches and merges at once
BATCH_ROWS = 100_000
MOST_REFUSED = 200  # lines of one part that are refused one by one; when there are more, it is not the lines
ASKED_AT_ONCE = 100  # ingestions in one question
ATTEMPTS = 20  # at parts that others replace while we read them
_LOG = logging.getLogger(__name__)


class InfluxStore:
    """A `TimeSeriesStore` in one bucket of an InfluxDB 2 server. Any number of processes may write and read it at once.

    Making one connects to nothing; at first use the bucket is made, or checked. `revise_for` is the longest time for
    which windows are built again (None: for ever); a bucket that keeps data for less is refused. `timeout` (seconds)
    bounds a request, and how long one is tried again while the server is away or busy. Rows on their way lie in a
    folder that `scratch()` gives for as long as a block lasts. `tls` has the certificates for a server of https://.
    """

    def __init__(
        self,
        url: str,
        org: str,
        bucket: str,
        token: str,
        timeout: float = 60.0,
        revise_for: timedelta | None = None,
        scratch: Callable[[], AbstractContextManager[str | Path]] = TemporaryDirectory,
        tls: TlsSettings | None = None,
    ) -> None:
        self._address = (url, org, bucket, token)
        self._tls = tls
        self._timeout = timeout
        self._revise_for = revise_for
        self._scratch = scratch
        self._checked = False
        self._keeps: timedelta | None = None

    def write(
        self,
        dataset: str,
        ingestion: str,
        arrival: int,
        frames: Iterable[pl.DataFrame],
        key: Sequence[str],
        refused: Refused | None = None,
    ) -> int:
        """Store canonical rows durably; returns how many, without those that InfluxDB refused. NaN counts as null.

        Nothing is sent before the last frame was taken: until then the rows lie in a temporary folder. Rows of hours
        that the bucket no longer keeps are not sent: it would refuse them, and the note of their hour. Raises
        ValueError for a row without a time, InfluxError when the server cannot be used.
        """
        aside = refused or partial(_log_refused, dataset, ingestion)
        with self._scratch() as folder, self._open() as bucket:
            points = SortedPoints(Path(folder), key)
            rows = points.take(self._kept(bucket, frame, aside) for frame in frames)
            earlier = bucket.parts(dataset, EVER, ingestion)
            number = 1 + max((part.number for part in earlier), default=0)
            attempt = uuid4().hex
            parts = [Part(ingestion, attempt, number, arrival, *extent, layer="") for extent in points.extents()]
            for part in _claim_layers(bucket, dataset, parts):
                for frame in points.of(part.datetime):
                    rows -= _send(bucket, dataset, part, frame, key, aside)
            bucket.mark(dataset, parts, "ready")
            _retire(bucket, dataset, earlier)
        return rows

    def read(self, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The points of `window`, one row each, with the columns of `schema`, ordered by `key` (nulls first) and time.

        What is withdrawn or replaced meanwhile is seen as it was or as it is. A large window is fetched in slices of
        time, which are sorted in a temporary folder. Raises InfluxError when the server cannot be used.
        """
        with self._open() as bucket:
            slices = _slices(window, bucket.parts(dataset, window))
            fetched = (_points(bucket, dataset, piece, schema, key) for piece in slices)
            if len(slices) == 1:
                for some in next(fetched).iter_slices(BATCH_ROWS):
                    yield from some.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema).to_batches()
                return
            with self._scratch() as folder:
                whole = SegmentStore(Path(folder))
                whole.write(dataset, "window", 0, fetched, key)
                yield from whole.read(dataset, window, schema, key)

    def withdraw(self, dataset: str, ingestion: str) -> None:
        """Forget what `ingestion` brought; values that it had replaced are seen again. Unknown ones are no error."""
        with self._open() as bucket:
            _retire(bucket, dataset, bucket.parts(dataset, EVER, ingestion))

    def of_station(self, dataset: str, station: str, remove: bool) -> int:
        """How many points of the station there are in all layers; and `remove` them.

        The server's index keeps the name of a series without points until its shards are compacted or expire.
        """
        with self._open() as bucket:
            points = bucket.points_of(dataset, STATION, station)
            if points and remove:
                bucket.delete_of(dataset, STATION, station)
        return points

    def lacking(self, dataset: str, ingestions: Sequence[str]) -> list[str]:
        with self._open() as bucket:
            found = [bucket.parts(dataset, EVER, *some) for some in _portions(ingestions, ASKED_AT_ONCE)]
        there = {part.ingestion for parts in found for part in visible(parts)}
        return [ingestion for ingestion in ingestions if ingestion not in there]

    def damaged(self, dataset: str, window: Window) -> frozenset[str]:
        return frozenset()

    def read_through(self, dataset: str) -> list[str]:
        return []

    def arrivals(self, dataset: str) -> dict[str, int]:
        """The ingestions of which there are points, each with its place in the order of arrival."""
        with self._open() as bucket:
            return {part.ingestion: part.arrival for part in visible(bucket.parts(dataset, EVER))}

    def held(self, dataset: str) -> dict[str, int]:
        """None: the bucket's retention removes what is old."""
        return {}

    def crowded(self, dataset: str) -> Iterator[tuple[Window, int]]:
        """None: the server compacts its own files."""
        return iter(())

    def compact(self, dataset: str, hour: Window) -> int:
        """Nothing to do: the server compacts its own files."""
        return 0

    def _kept(self, bucket: OpenBucket, frame: pl.DataFrame, refused: Refused) -> pl.DataFrame:
        """The rows of hours that the bucket keeps for another hour at least; the others are refused."""
        if self._keeps is None:
            return frame
        too_old = frame[TIME].dt.truncate("1h") < datetime.now(UTC) - self._keeps + HOUR
        if not too_old.any():
            return frame
        reason = (
            f"of an hour that {bucket}, no longer keeps, or lets go of within the next (it keeps data for "
            f"{in_short(self._keeps)}); lengthen its retention, and collect the window again"
        )
        refused(frame.filter(too_old).with_columns(pl.lit(reason).alias(REASON)))
        return frame.filter(~too_old)

    @contextmanager
    def _open(self) -> Iterator[OpenBucket]:
        with OpenBucket(*self._address, self._timeout, self._tls) as bucket:
            if not self._checked:
                self._keeps = bucket.prepare(self._revise_for)
                self._checked = True
            try:
                yield bucket
            except InfluxError:
                self._checked = False  # the bucket may be another one now
                raise


def _send(
    bucket: OpenBucket, dataset: str, part: Part, frame: pl.DataFrame, key: Sequence[str], refused: Refused
) -> int:
    """Store the rows of `frame` in the layer of `part`, but for those that are refused; gives how many these are."""
    lines = line_protocol(f"{dataset},layer={part.layer}", frame, key)
    reasons: dict[int, str] = {}
    pieces = 0
    for start in range(0, len(lines), REQUEST_LINES):
        for places, reason in bucket.send(lines[start : start + REQUEST_LINES]):
            reasons |= {start + place: reason for place in places}
            pieces += 1
            if pieces > MOST_REFUSED:
                raise InfluxError(f"{bucket}: refuses more than {MOST_REFUSED} lines of {part.ingestion}: {reason}")
    if reasons:
        refused(frame[list(reasons)].with_columns(pl.Series(REASON, list(reasons.values()))))
    return len(reasons)


def _portions(given: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    return (given[start : start + most] for start in range(0, len(given), most))


def _log_refused(dataset: str, ingestion: str, rows: pl.DataFrame) -> None:
    _LOG.warning(
        "InfluxDB refused %d rows of ingestion %s of %s, which are left out; the first: %s",
        rows.height, ingestion, dataset, rows.row(0, named=True),
    )  # fmt: skip


def _claim_layers(bucket: OpenBucket, dataset: str, parts: list[Part]) -> list[Part]:
    """Give each of `parts` the lowest layer in which it overlaps no other, and make it known that it is taken.

    When another process took the same layer at the same time, both see it, and each moves to a layer of its own.
    """
    hours = merge(Window(part.datetime, part.datetime + HOUR) for part in parts)

    def taken(part: Part) -> set[str]:
        return {other.layer for other in others.get(part.datetime, ()) if part.overlaps(other)}

    def others_now() -> dict[datetime, list[Part]]:
        found: dict[datetime, list[Part]] = {}
        for hour in hours:
            for other in bucket.parts(dataset, hour):
                if other.attempt != parts[0].attempt:
                    found.setdefault(other.datetime, []).append(other)
        return found

    others = others_now()
    for place, part in enumerate(parts):
        occupied = taken(part)
        parts[place] = replace(part, layer=next(name for name in map(str, count()) if name not in occupied))
    bucket.record(dataset, parts)
    others = others_now()
    moved = [place for place, part in enumerate(parts) if part.layer in taken(part)]
    for place in moved:
        parts[place] = replace(parts[place], layer=parts[place].attempt)
    bucket.record(dataset, [parts[place] for place in moved])
    return parts


def _retire(bucket: OpenBucket, dataset: str, parts: list[Part]) -> None:
    """Forget `parts`: first they are no longer seen, then their points are removed, at last they themselves.

    One that never became ready keeps its layer taken: a process that is slow, not dead, may still be writing to it.
    """
    bucket.mark(dataset, parts, "retired")
    for part in parts:
        bucket.delete(part.first, part.last, f'_measurement="{dataset}" AND layer="{part.layer}"')
    for attempt in {part.attempt for part in parts if part.ready}:
        hours = [micros(part.datetime) for part in parts if part.attempt == attempt]
        bucket.delete(min(hours), max(hours), f'_measurement="{PARTS}" AND attempt="{attempt}"')


def _slices(window: Window, parts: Iterable[Part]) -> list[Window]:
    """Cut `window` into ranges of time with about SLICE_ROWS rows at most."""
    rows: Counter[datetime] = Counter()
    for part in visible(parts):
        rows[part.datetime] += part.rows
    cuts, held = [], 0
    for hour in sorted(rows):
        held += rows[hour]
        if held > SLICE_ROWS:
            pieces = -(-rows[hour] // SLICE_ROWS)
            cuts += [hour + HOUR * piece / pieces for piece in range(pieces)]
            held = rows[hour] // pieces
    inside = [cut for cut in cuts if window.start < cut < window.end]
    return [Window(start, end) for start, end in pairwise([window.start, *inside, window.end])]


def _points(bucket: OpenBucket, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> pl.DataFrame:
    """The points of `window` with the columns of `schema`, sorted by `key` and time, all of them in memory."""
    for _ in range(ATTEMPTS):
        parts = visible(bucket.parts(dataset, window))
        rows = bucket.points(dataset, window, schema)
        if parts == visible(bucket.parts(dataset, window)):
            break
    else:
        raise InfluxError(f"{bucket}: {dataset} changes all the time in {window}; try again")
    order = [*key, TIME]
    return merged(_in_order_of_arrival(rows, parts).select(schema.names), order)


def _in_order_of_arrival(rows: pl.DataFrame, parts: list[Part]) -> pl.DataFrame:
    """The rows that belong to one of `parts`."""
    extents = pl.DataFrame(
        [(part.layer, part.first, part.last, part.arrival) for part in parts],
        schema={LAYER: pl.String, FIRST: pl.Int64, LAST: pl.Int64, ARRIVAL: pl.Int64}, orient="row",
    ).with_columns(pl.col(FIRST, LAST).cast(rows.schema[TIME]))  # fmt: skip
    found = rows.sort(TIME).join_asof(
        extents.sort(FIRST), left_on=TIME, right_on=FIRST, by=LAYER, check_sortedness=False
    )
    return found.filter(pl.col(TIME) <= pl.col(LAST)).sort(ARRIVAL, maintain_order=True)
