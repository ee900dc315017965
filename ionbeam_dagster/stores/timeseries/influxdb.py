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

import csv
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from io import BytesIO
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple, TypeVar
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
from influxdb_client import Bucket, BucketRetentionRules, InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from influxdb_client.service import DBRPsService
from urllib3.exceptions import HTTPError

from ionbeam_dagster.domain.canonical import EARLIEST, LATEST
from ionbeam_dagster.domain.windows import EPOCH, HOUR, Window, merge, window_of
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.timeseries.segments import TIME, SegmentStore, merged

PARTS = "ionbeam.parts"  # no dataset's name has a dot
EVER = Window(EARLIEST, LATEST)
REQUEST_LINES = 50_000
SLICE_ROWS = 500_000  # what a reader fetches and merges at once
BATCH_ROWS = 100_000
LONGEST_ROW = 1 << 24  # bytes of a row in an answer
MOST_REFUSED = 200  # lines of one part; when there are more, it is not the lines
ATTEMPTS = 20  # at parts that others replace while we read them
BUSY = (429, 502, 503, 504)

Quarantine = Callable[[str, str, pl.DataFrame], None]
T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class InfluxError(StoreError):
    """InfluxDB cannot be used, or refuses; the message names the server, the reason and what to do."""


class _RefusedError(InfluxError):
    """The server understood a request and will not do it."""


class InfluxStore:
    """A `TimeSeriesStore` in one bucket of an InfluxDB 2 server. Any number of processes may write and read it at once.

    Making one connects to nothing; at first use the bucket is made, or checked. `revise_for` is the longest time for
    which windows are built again (None: for ever); a bucket that keeps data for less is refused. `timeout` (seconds)
    bounds a request, and how long one is tried again while the server is away or busy. Rows that InfluxDB refuses go to
    `quarantine(dataset, ingestion, rows)`, with a column ``reason``; the others are stored. Rows on their way lie in a
    folder that `scratch()` gives for as long as a block lasts.
    """

    def __init__(
        self,
        url: str,
        org: str,
        bucket: str,
        token: str,
        timeout: float = 60.0,
        revise_for: timedelta | None = None,
        quarantine: Quarantine | None = None,
        scratch: Callable[[], AbstractContextManager[str | Path]] = TemporaryDirectory,
    ) -> None:
        self._address = (url, org, bucket, token)
        self._timeout = timeout
        self._revise_for = revise_for
        self._quarantine = quarantine or _log_refused
        self._scratch = scratch
        self._checked = False

    def write(
        self, dataset: str, ingestion: str, arrival: int, frames: Iterable[pl.DataFrame], key: Sequence[str]
    ) -> int:
        """Store canonical rows durably; returns how many, without those that InfluxDB refused. NaN counts as null.

        Nothing is sent before the last frame was taken: until then the rows lie in a temporary folder. Raises
        ValueError for a row without a time, InfluxError when the server cannot be used.
        """
        with self._scratch() as folder, self._open() as bucket:
            points = _SortedPoints(Path(folder), key)
            rows = points.take(frames)
            earlier = bucket.parts(dataset, EVER, ingestion)
            number = 1 + max((part.number for part in earlier), default=0)
            attempt = uuid4().hex
            parts = [_Part(ingestion, attempt, number, arrival, *extent, layer="") for extent in points.extents()]
            refused = 0
            for part in _claim_layers(bucket, dataset, parts):
                for frame in points.of(part.datetime):
                    refused += self._send(bucket, dataset, part, frame, key)
            bucket.mark(dataset, parts, "ready")
            _retire(bucket, dataset, earlier)
        return rows - refused

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

    def lacking(self, dataset: str, ingestions: Sequence[str]) -> list[str]:
        """None: what a server has accepted, it keeps."""
        return []

    def arrivals(self, dataset: str) -> dict[str, int]:
        """The ingestions of which there are points, each with its place in the order of arrival."""
        with self._open() as bucket:
            return {part.ingestion: part.arrival for part in _visible(bucket.parts(dataset, EVER))}

    def held(self, dataset: str) -> dict[str, int]:
        """None: the bucket's retention removes what is old."""
        return {}

    def crowded(self, dataset: str) -> Iterator[tuple[Window, int]]:
        """None: the server compacts its own files."""
        return iter(())

    def compact(self, dataset: str, hour: Window) -> int:
        """Nothing to do: the server compacts its own files."""
        return 0

    def _send(self, bucket: _Bucket, dataset: str, part: _Part, frame: pl.DataFrame, key: Sequence[str]) -> int:
        """Store the rows of `frame` in the layer of `part`, and give those that are refused to the quarantine."""
        lines = line_protocol(f"{dataset},layer={part.layer}", frame, key)
        refused: dict[int, str] = {}
        for start in range(0, len(lines), REQUEST_LINES):
            for place, reason in bucket.send(lines[start : start + REQUEST_LINES]):
                refused[start + place] = reason
                if len(refused) > MOST_REFUSED:
                    raise InfluxError(f"{bucket}: refuses more than {MOST_REFUSED} lines of {part.ingestion}: {reason}")
        if refused:
            reasons = pl.Series("reason", list(refused.values()))
            self._quarantine(dataset, part.ingestion, frame[list(refused)].with_columns(reasons))
        return len(refused)

    @contextmanager
    def _open(self) -> Iterator[_Bucket]:
        with _Bucket(*self._address, self._timeout) as bucket:
            if not self._checked:
                bucket.prepare(self._revise_for)
                self._checked = True
            yield bucket


def _log_refused(dataset: str, ingestion: str, rows: pl.DataFrame) -> None:
    _LOG.warning(
        "InfluxDB refused %d rows of ingestion %s of %s, which are left out; the first: %s",
        rows.height, ingestion, dataset, rows.row(0, named=True),
    )  # fmt: skip


# --- parts and layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """What one attempt to write an ingestion has in one hour of one layer.

    Its times lie in [first, last], in microseconds since 1970. `number` counts the attempts to write the ingestion.
    """

    ingestion: str
    attempt: str
    number: int
    arrival: int
    datetime: datetime  # the hour
    first: int
    last: int
    rows: int
    layer: str
    ready: bool | None = None
    retired: bool | None = None

    def overlaps(self, other: _Part) -> bool:
        return self.datetime == other.datetime and self.first <= other.last and other.first <= self.last


_PART_TAGS = ["dataset", "ingestion", "attempt"]
_PART_SCHEMA = pa.schema(
    [("ingestion", pa.string()), ("attempt", pa.string()), ("number", pa.int64()), ("arrival", pa.int64()),
     (TIME, pa.timestamp("us", tz="UTC")), ("first", pa.int64()), ("last", pa.int64()), ("rows", pa.int64()),
     ("layer", pa.string()), ("ready", pa.bool_()), ("retired", pa.bool_())]
)  # fmt: skip


def _claim_layers(bucket: _Bucket, dataset: str, parts: list[_Part]) -> list[_Part]:
    """Give each of `parts` the lowest layer in which it overlaps no other, and make it known that it is taken.

    When another process took the same layer at the same time, both see it, and each moves to a layer of its own.
    """
    hours = merge(Window(part.datetime, part.datetime + HOUR) for part in parts)

    def taken(part: _Part) -> set[str]:
        return {other.layer for other in others.get(part.datetime, ()) if part.overlaps(other)}

    def others_now() -> dict[datetime, list[_Part]]:
        found: dict[datetime, list[_Part]] = {}
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


def _retire(bucket: _Bucket, dataset: str, parts: list[_Part]) -> None:
    """Forget `parts`: first they are seen no more, then their points are removed, at last they themselves.

    One that never became ready keeps its layer taken: a process that is slow, not dead, may still be writing to it.
    """
    bucket.mark(dataset, parts, "retired")
    for part in parts:
        bucket.delete(part.first, part.last, f'_measurement="{dataset}" AND layer="{part.layer}"')
    for attempt in {part.attempt for part in parts if part.ready}:
        hours = [_micros(part.datetime) for part in parts if part.attempt == attempt]
        bucket.delete(min(hours), max(hours), f'_measurement="{PARTS}" AND attempt="{attempt}"')


def _visible(parts: Iterable[_Part]) -> list[_Part]:
    """Of each ingestion the parts of the latest attempt that is ready."""
    latest: dict[str, tuple[int, str]] = {}
    ready = [part for part in parts if part.ready and not part.retired]
    for part in ready:
        latest[part.ingestion] = max(latest.get(part.ingestion, (0, "")), (part.number, part.attempt))
    return [part for part in ready if (part.number, part.attempt) == latest[part.ingestion]]


# --- reading ----------------------------------------------------------------------------------------------------------


def _slices(window: Window, parts: Iterable[_Part]) -> list[Window]:
    """Cut `window` into ranges of time with about SLICE_ROWS rows at most."""
    rows: Counter[datetime] = Counter()
    for part in _visible(parts):
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


def _points(bucket: _Bucket, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> pl.DataFrame:
    """The points of `window` with the columns of `schema`, sorted by `key` and time, all of them in memory."""
    for _ in range(ATTEMPTS):
        parts = _visible(bucket.parts(dataset, window))
        rows = bucket.points(dataset, window, schema)
        if parts == _visible(bucket.parts(dataset, window)):
            break
    else:
        raise InfluxError(f"{bucket}: {dataset} changes all the time in {window}; try again")
    order = [*key, TIME]
    return merged(_in_order_of_arrival(rows, parts).select(schema.names), order)


def _in_order_of_arrival(rows: pl.DataFrame, parts: list[_Part]) -> pl.DataFrame:
    """The rows that belong to one of `parts`."""
    extents = pl.DataFrame(
        [(part.layer, part.first, part.last, part.arrival) for part in parts],
        schema={_LAYER: pl.String, _FIRST: pl.Int64, _LAST: pl.Int64, _ARRIVAL: pl.Int64}, orient="row",
    ).with_columns(pl.col(_FIRST, _LAST).cast(rows.schema[TIME]))  # fmt: skip
    found = rows.sort(TIME).join_asof(
        extents.sort(_FIRST), left_on=TIME, right_on=_FIRST, by=_LAYER, check_sortedness=False
    )
    return found.filter(pl.col(TIME) <= pl.col(_LAST)).sort(_ARRIVAL, maintain_order=True)


# --- the server -------------------------------------------------------------------------------------------------------


class _Bucket:
    """A connection to one bucket, and what is asked of it."""

    def __init__(self, url: str, org: str, bucket: str, token: str, timeout: float) -> None:
        self._place = f"InfluxDB at {url}, bucket {bucket}"
        self._org, self._bucket = org, bucket
        self._patience = timeout
        self._client = InfluxDBClient(url, token, org=org, timeout=round(timeout * 1000))
        self._writes = self._client.write_api(write_options=SYNCHRONOUS)

    def __enter__(self) -> _Bucket:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def __str__(self) -> str:
        return self._place

    def prepare(self, revise_for: timedelta | None) -> None:
        """Make the bucket when it is not there; refuse one that forgets what is still needed."""
        found = self._found()
        if found is None:
            api, forever = self._client.buckets_api(), BucketRetentionRules(type="expire", every_seconds=0)
            with suppress(_RefusedError):  # another process may have been quicker
                self._ask(lambda: api.create_bucket(bucket_name=self._bucket, org=self._org, retention_rules=forever))
            found = self._found()
        if found is None:
            raise InfluxError(f"{self}: is not there and cannot be made; make it, or mend influxdb_common")
        mappings = DBRPsService(self._client.api_client)
        known = self._ask(lambda: mappings.get_dbr_ps(org=self._org, db=self._bucket).content)
        if [one.bucket_id for one in known if one.default] != [found.id]:
            raise InfluxError(
                f"{self}: is not database {self._bucket!r} in InfluxQL; remove the mapping that `influx v1 dbrp list` "
                "shows, or choose a bucket without '/' in its name"
            )
        rules = found.retention_rules
        kept = min((timedelta(seconds=rule.every_seconds) for rule in rules if rule.every_seconds), default=None)
        if kept is not None and (revise_for is None or kept < revise_for):
            raise InfluxError(
                f"{self}: keeps data for {kept}, but windows are built again for {revise_for or 'ever'}; "
                "lengthen the bucket's retention, or shorten revise_for"
            )

    def _found(self) -> Bucket | None:
        """The bucket as the server describes it; None when there is no such bucket."""
        api = self._client.buckets_api()
        try:
            bucket: Bucket
            [bucket] = self._ask(lambda: api.find_buckets(name=self._bucket, org=self._org).buckets)
        except _RefusedError as error:
            if not re.search("bucket .* not found", str(error)):
                raise
            return None
        return bucket

    def points(self, measurement: str, window: Window, schema: pa.Schema, condition: str = "true") -> pl.DataFrame:
        """What a measurement has in `window`, in no order: the columns of `schema`, and its layer.

        Asked in InfluxQL, which reads points: Flux reads values, and to pivot them costs the server thrice as much.
        """
        there = self._keys(measurement)
        forms = [form for some in _forms_of(schema).values() for form in some if form.stored in there]
        columns = ", ".join(["layer", "empty", *(f'"{form.stored}" AS {form.alias}' for form in forms)])
        start, end = (1000 * _micros(moment) for moment in (window.start, window.end))
        where = f"time >= {start} AND time < {end} AND {condition}"
        answer = self._query(f'SELECT {columns} FROM "{measurement}" WHERE {where}')
        return _parse(answer, schema)

    def _keys(self, measurement: str) -> set[str]:
        """The names of the measurement's fields and tags: one that is not there would cost as much as one that is."""
        answer = self._query(f'SHOW FIELD KEYS FROM "{measurement}"; SHOW TAG KEYS FROM "{measurement}"')
        return {row[2] for row in csv.reader(answer.decode().split("\n")) if len(row) > 2}

    def parts(self, dataset: str, window: Window, ingestion: str | None = None) -> list[_Part]:
        """The parts of `dataset` in the hours of `window`, of one ingestion or of all."""
        condition = f"dataset = {_quoted(_stored_text(dataset))}"
        if ingestion is not None:
            condition += f" AND ingestion = {_quoted(_stored_text(ingestion))}"
        hours = Window(window_of(window.start, HOUR).start, window.end)
        found = self.points(PARTS, hours, _PART_SCHEMA, condition).drop(_LAYER)
        # Of a part that was retired while it was being written, only the word "ready" is left.
        return [_Part(**part) for part in found.filter(pl.col("number").is_not_null()).sort(TIME, "attempt").to_dicts()]

    def record(self, dataset: str, parts: Sequence[_Part]) -> None:
        """Make `parts` known, before any of their points is written."""
        self._mark(dataset, pl.DataFrame([asdict(part) for part in parts], schema=_PART_FRAME))

    def mark(self, dataset: str, parts: Sequence[_Part], state: str) -> None:
        """Make `parts` "ready" or "retired", all at once."""
        marked = pl.DataFrame([asdict(part) for part in parts], schema=_PART_FRAME)
        self._mark(dataset, marked.select("ingestion", "attempt", TIME, pl.lit(True).alias(state)))

    def _mark(self, dataset: str, parts: pl.DataFrame) -> None:
        lines = line_protocol(PARTS, parts.with_columns(pl.lit(dataset).alias("dataset")), _PART_TAGS)
        for _, reason in self.send(lines):
            raise InfluxError(f"{self}: refuses to note what is written: {reason}")

    def send(self, lines: pl.Series, first: int = 0) -> Iterator[tuple[int, str]]:
        """Write `lines`, except those that are refused: gives their places, counted from `first`, and the reasons."""
        if lines.is_empty():
            return
        try:
            # The constants of WritePrecision are texts, whatever the annotation says.
            self._ask(lambda: self._writes.write(self._bucket, self._org, _body(lines), write_precision="us"))  # type: ignore[arg-type]
        except _RefusedError as error:
            if len(lines) == 1:
                yield first, str(error)
                return
            half = len(lines) // 2
            yield from self.send(lines[:half], first)
            yield from self.send(lines[half:], first + half)

    def delete(self, first: int, last: int, predicate: str) -> None:
        """Remove the points with times in [first, last] (microseconds since 1970) that meet `predicate`."""
        start, stop = _moment(first).isoformat(), _moment(last).isoformat()
        api = self._client.delete_api()
        self._ask(lambda: api.delete(start, stop, predicate, bucket=self._bucket, org=self._org))

    def _query(self, influxql: str) -> bytes:
        """The answer to statements as CSV, with times in microseconds; empty when there is nothing to tell."""
        asked = {"org": self._org, "db": self._bucket, "epoch": "u"}
        headers = {"Accept": "application/csv", "Content-Type": "application/x-www-form-urlencoded"}
        answer: bytes = self._ask(
            lambda: self._client.api_client.call_api(
                "/query", "POST", query_params=list(asked.items()), header_params=headers,
                post_params=[("q", f"{influxql}; {_END}")], _preload_content=False, _return_http_data_only=True,
            ).data
        )  # fmt: skip
        return _whole(answer)

    def _ask(self, request: Callable[[], T]) -> T:
        """Do `request`; while the server is away or busy, again and again for as long as our patience lasts."""
        until = time.monotonic() + self._patience
        for attempt in count():
            pause = min(0.1 * 2**attempt, 5.0)
            try:
                return request()
            except ApiException as error:
                if error.status not in BUSY:
                    raise self._understood(error) from error
                pause, reason = _retry_after(error, pause), _reason(error)
            except (HTTPError, OSError) as error:
                reason = str(error)
            if time.monotonic() + pause > until:
                raise InfluxError(f"{self}: does not answer ({reason}); start it, or mend influxdb_common.influxdb_url")
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _understood(self, error: ApiException) -> InfluxError:
        reason = _reason(error)
        if error.status == 401:
            return InfluxError(f"{self}: the token is not accepted ({reason}); mend influxdb_common.influxdb_token")
        if error.status == 403:
            return InfluxError(f"{self}: the token may not do this ({reason}); give it read and write of the bucket")
        if "organization name" in reason:
            return InfluxError(f"{self}: {reason}; mend influxdb_common.influxdb_org")
        return _RefusedError(f"{self}: {reason}")


def _reason(error: ApiException) -> str:
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason)
    with suppress(ValueError, KeyError, TypeError):
        body = json.loads(body)["message"]
    return body if len(body) < 400 else f"{body[:200]} ... {body[-200:]}"


def _retry_after(error: ApiException, otherwise: float) -> float:
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    return float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else otherwise


# --- the form of points in InfluxDB -----------------------------------------------------------------------------------

_OWN_NAMES = {"time", "error", "result", "table", "layer", "empty"}
_UNSAFE = {chr(code): f"%{code:02X}" for code in (*range(0x20), 0x7F, ord("%"), ord("\\"))}
_UNSAFE_IN_TEXTS = str.maketrans({**_UNSAFE})
_UNSAFE_IN_NAMES = str.maketrans(_UNSAFE | {'"': "%22", "|": "%7C"})
_EMPTY_TEXT = "%"  # no text becomes this one
_NO_FIELD = "empty=true"
# A statement that fails leaves out what follows it, and says nothing in CSV: so one follows that always has an answer.
_END, _END_BEGINS = "SHOW DATABASES", b"name,tags,name\n"
_SEPARATORS = {",": "\\,", "=": "\\=", " ": "\\ "}
_ESCAPES = str.maketrans({**_SEPARATORS})
_LAYER, _FIRST, _LAST, _ARRIVAL, _SERIES = (
    f"ionbeam.{name}" for name in ("layer", "first", "last", "arrival", "series")
)
_FORMS = {"|b": pa.bool_(), "|i": pa.int64(), "|u": pa.uint64(), "|s": pa.string(), "|t": pa.string()}


class _SortedPoints:
    """The points of one ingestion on their way, in a temporary folder: each once, hour by hour, sorted by key and time.

    What merges them is the store that lies in files, so that both give the same.
    """

    def __init__(self, folder: Path, key: Sequence[str]) -> None:
        self._store = SegmentStore(folder)
        self._key = key
        self._schema: dict[str, pl.DataType] = {}
        self._extents = [pl.DataFrame(schema=_EXTENT)]

    def take(self, frames: Iterable[pl.DataFrame]) -> int:
        return self._store.write("points", "points", 0, self._noted(frames), self._key)

    def _noted(self, frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        moment = pl.col(TIME)
        for frame in frames:
            self._schema |= frame.schema
            extents = frame.group_by(moment.dt.truncate("1h").alias("hour")).agg(
                moment.min().to_physical().alias("first"), moment.max().to_physical().alias("last"),
                pl.len().alias("rows"),
            )  # fmt: skip
            self._extents.append(extents.cast(_EXTENT))
            yield frame

    def extents(self) -> list[tuple[datetime, int, int, int]]:
        """Of each hour, in order: the hour, its first and last time in microseconds, and at most how many points."""
        extents = pl.concat(self._extents).group_by("hour").agg(pl.min("first"), pl.max("last"), pl.sum("rows"))
        return extents.sort("hour").rows()

    def of(self, hour: datetime) -> Iterator[pl.DataFrame]:
        """The points of one hour."""
        schema = pl.DataFrame(schema=self._schema).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        for batch in self._store.read("points", Window(hour, hour + HOUR), schema, self._key):
            yield pl.DataFrame(batch)


_PART_FRAME = pl.DataFrame(_PART_SCHEMA.empty_table()).schema
_EXTENT = pl.Schema({"hour": pl.Datetime("us", "UTC"), "first": pl.Int64(), "last": pl.Int64(), "rows": pl.Int64()})


def line_protocol(head: str, frame: pl.DataFrame, tags: Sequence[str]) -> pl.Series:
    """The rows of `frame` as lines for InfluxDB, each with its line break.

    `head` is a measurement, perhaps with tags. Null tags, and null, NaN and infinite fields are left out.
    """
    distinct = frame.select(tags).unique()
    keys = [_tag(name, kind) for name, kind in distinct.schema.items()]
    distinct = distinct.with_columns(pl.concat_str(pl.lit(head), *keys, ignore_nulls=True).alias(_SERIES))
    series = frame.select(tags).join(distinct, on=tags, how="left", nulls_equal=True, maintain_order="left")[_SERIES]
    fields = [_field(frame[name]) for name in frame.columns if name not in (*tags, TIME)]
    moment = frame[TIME].dt.cast_time_unit("us").to_physical().cast(pl.String)
    pieces = [pl.lit(series), pl.lit(" "), *_joined(fields), pl.lit(" "), pl.lit(moment), pl.lit("\n")]
    return pl.select(pl.concat_str(pieces, ignore_nulls=True)).to_series()


def _body(lines: pl.Series) -> bytes:
    """The text of `lines`, as it lies in memory."""
    text = lines.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, content = text.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[text.offset, text.offset + len(text)]]
    body: bytes = content[first:last].to_pybytes()
    return body


def _tag(name: str, kind: pl.DataType) -> pl.Expr:
    key = _stored_name(name) if kind == pl.String else f"{_stored_name(name)}|t"
    text = _encoded(pl.col(name).cast(pl.String)).str.replace_many(_SEPARATORS)
    return pl.concat_str(pl.lit(f",{_escaped(key)}="), text)


def _field(values: pl.Series) -> tuple[str, pl.Series]:
    """What stands before the value of a field, and its values as they are written, null where there is none."""
    key, kind = _escaped(_stored_name(values.name)), values.dtype
    if kind.is_float():
        finite = values if values.is_finite().all(ignore_nulls=True) else values.set(~values.is_finite(), None)
        return f"{key}=", finite.cast(pl.Float64).cast(pl.String)
    if kind == pl.Boolean:
        return f"{key}|b=", values.cast(pl.String)
    if kind.is_integer():
        unit = "u" if kind == pl.UInt64 else "i"
        return f"{key}|{unit}=", values.cast(pl.String) + unit
    text = pl.concat_str(
        _encoded(pl.lit(values.cast(pl.String))).str.replace_all('"', '\\"', literal=True), pl.lit('"')
    )
    return f'{key}|s="', pl.select(text).to_series()


def _joined(fields: Iterable[tuple[str, pl.Series]]) -> list[pl.Expr]:
    """The pieces of text that are the fields of each row; null ones are left out, with their comma."""
    ordered = sorted(fields, key=lambda field: field[1].null_count() > 0)
    if not ordered or ordered[0][1].null_count():
        present = [pl.concat_str(pl.lit(before), pl.lit(values)) for before, values in ordered]
        text = pl.concat_str(present, separator=",", ignore_nulls=True) if present else pl.lit("")
        return [pl.when(text == "").then(pl.lit(_NO_FIELD)).otherwise(text)]
    # Every row has the first field, so that no one has to ask whether there is a comma before the next.
    pieces: list[pl.Expr] = []
    for before, values in ordered:
        piece = [pl.lit(f",{before}" if pieces else before), pl.lit(values)]
        pieces += [pl.concat_str(piece)] if values.null_count() else piece
    return pieces


def _whole(answer: bytes) -> bytes:
    """The answer to all statements before the last one, which tells that they had theirs; raises InfluxError."""
    found, end, _ = answer.rpartition(_END_BEGINS)
    if not end:
        raise InfluxError(f"InfluxDB broke off its answer, which ends with {answer.decode(errors='replace')[-400:]!r}")
    return found


def _parse(answer: bytes, schema: pa.Schema) -> pl.DataFrame:
    """An answer in CSV as rows with the columns of `schema`, and their layer; raises InfluxError for a broken one."""
    forms = _forms_of(schema)
    types = {"layer": pa.string()} | {form.alias: form.kind for some in forms.values() for form in some}
    if not answer:
        return pl.DataFrame(schema.empty_table()).with_columns(pl.lit(None, pl.String).alias(_LAYER))
    try:
        rows = pacsv.read_csv(
            BytesIO(answer),
            read_options=pacsv.ReadOptions(block_size=LONGEST_ROW),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), include_missing_columns=True, null_values=[""],
                strings_can_be_null=True, true_values=["true"], false_values=["false"],
            ),
        )  # fmt: skip
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InfluxError(f"an answer of InfluxDB cannot be read: {error}") from error
    kinds = pl.DataFrame(schema.empty_table()).schema
    columns = [_column(name, kind, forms[name]) for name, kind in kinds.items()]
    return pl.DataFrame(rows).select(*columns, pl.col("layer").alias(_LAYER))


def _column(name: str, kind: pl.DataType, forms: Iterable[_Form]) -> pl.Expr:
    values = [_decoded(pl.col(form.alias)) if pa.types.is_string(form.kind) else pl.col(form.alias) for form in forms]
    return pl.coalesce([value.cast(kind) for value in values]).alias(name)


class _Form(NamedTuple):
    """One of the tags and fields that may hold a column's values: its name here and in InfluxDB, and its type."""

    alias: str
    stored: str
    kind: pa.DataType


def _forms_of(schema: pa.Schema) -> dict[str, list[_Form]]:
    """The forms of each column of `schema`."""
    forms: dict[str, list[_Form]] = {}
    number = count()
    for name, kind in pl.DataFrame(schema.empty_table()).schema.items():
        stored, plain = _stored_name(name), pa.string() if kind == pl.String else pa.float64()
        types = {stored: plain} | {f"{stored}{suffix}": form for suffix, form in _FORMS.items()}
        forms[name] = [_Form(f"c{next(number)}", stored, kind) for stored, kind in types.items()]
    forms[TIME] = [_Form("time", "time", pa.int64())]
    return forms


def _encoded(text: pl.Expr) -> pl.Expr:
    return pl.when(text == "").then(pl.lit(_EMPTY_TEXT)).otherwise(text.str.replace_many(_UNSAFE))


def _decoded(text: pl.Expr) -> pl.Expr:
    signs = {code: sign for sign, code in _UNSAFE.items()}
    return pl.when(text == _EMPTY_TEXT).then(pl.lit("")).otherwise(text.str.replace_many(signs))


def _stored_text(text: str) -> str:
    return text.translate(_UNSAFE_IN_TEXTS) or _EMPTY_TEXT


def _stored_name(name: str) -> str:
    """`name` as a tag or a field is called, apart from the names that have a meaning of their own."""
    if name in _OWN_NAMES or name.startswith("_"):
        return f"%{ord(name[0]):02X}{name[1:].translate(_UNSAFE_IN_NAMES)}"
    return name.translate(_UNSAFE_IN_NAMES)


def _escaped(key: str) -> str:
    return key.translate(_ESCAPES)


def _quoted(text: str) -> str:
    """`text`, which has no backslash, as InfluxQL writes it."""
    return "'" + text.replace("'", "\\'") + "'"


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)
