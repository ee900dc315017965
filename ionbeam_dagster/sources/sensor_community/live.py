"""The source `sensor_community_live`: what all sensors measured in the last five minutes, asked for over and over.

Belongs here: reading the live document in a stream, and which of its records are new. Does not belong here: the
archive.

A record stands in about five documents, so that each is taken once, by its id. What is new is written to a journal
before anything is made of it: a window that fails, or is collected again, gets its records from there.
"""

from __future__ import annotations

import io
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import ijson
import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field

from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.http import HttpClient
from ionbeam_dagster.sources.http.settings import Retries, Timeout
from ionbeam_dagster.sources.sensor_community.sensors import QUANTITIES, batches, metadata, shaped

ADDRESS = "https://data.sensor.community/static/v2/data.json"
_RECORDS_AT_ONCE = 5000
_REACH = timedelta(minutes=10)  # after it a window that was asked for is not asked for again
_KEPT = timedelta(days=1)  # in the journal
_PATIENCE = 60.0  # seconds, while another process writes its document
_NO_MEASUREMENTS = ("lat", "lon", "height", "timestamp")  # where and when a box with a receiver is, once more
_OTHER_NAMES = {"pressure_at_sealevel": "pressure_sealevel"}

_RECORD = pl.Schema(
    {
        "id": pl.Int64(),
        "timestamp": pl.String(),
        "location": pl.Struct(
            {"id": pl.Int64, "latitude": pl.String, "longitude": pl.String, "altitude": pl.String, "indoor": pl.Int64}
        ),
        "sensor": pl.Struct({"id": pl.Int64, "sensor_type": pl.Struct({"name": pl.String})}),
        "sensordatavalues": pl.List(pl.Struct({"value": pl.String, "value_type": pl.String})),
    }
)


class LiveConfig(SourceConfig):
    """The live feed of sensor.community: one document of the last five minutes."""

    base_url: Annotated[str, AfterValidator(lambda given: given or ADDRESS)] = Field(
        default=ADDRESS, description="Address of the document."
    )
    timeout_seconds: Timeout = 60
    max_retries: Retries = 3
    indoor: bool = Field(default=False, description="Whether sensors inside of buildings are taken, too.")


class Live(Source):
    """The live feed. A window gets every record that was new when it was asked for, the late ones of earlier times as
    well; it can be asked for as long as the document holds something of its time."""

    Config = LiveConfig
    network = "sensor_community"
    default_window = timedelta(minutes=5)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: LiveConfig) -> None:
        super().__init__(name, config)
        self._config = config
        self._left_out: Counter[str] = Counter()

    @property
    def metadata(self) -> IngestionMetadata:
        return metadata(self)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The records that are new in the document, and those that earlier asked for this window; all columns are text.

        Raises SourceError when the document cannot be had or read whole, and when it says nothing of the window.
        """
        with closing(_Journal(self._config.cache_path / f"{self.name}.live.sqlite")) as journal:
            if not journal.has(window) or _now() - window.end <= _REACH:
                journal.add(window, map(self.forgotten().left, self._document()))
            for rows in journal.rows(window):
                yield from batches(rows)

    def sample(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The document as it is now; the journal is left alone."""
        for rows in self._document():
            yield from batches(rows.drop("id"))

    def problems(self) -> list[str]:
        return [
            f"{count:,} values a document of {name!r}, which is not known, are left out"
            for name, count in sorted(self._left_out.items())
        ]

    @cached_property
    def _client(self) -> HttpClient:
        config = self._config
        return HttpClient(config.base_url, timeout=config.timeout_seconds, retries=config.max_retries, concurrency=1)

    def _document(self) -> Iterator[pl.DataFrame]:
        """The wanted records of the document, with their ids, some thousands at once."""
        self._left_out = Counter()
        with self._client.stream(self._config.base_url) as pieces:
            try:
                records = ijson.items(_File(pieces), "item", use_float=True)
                while some := list(islice(records, _RECORDS_AT_ONCE)):
                    rows, left_out = _rows(some, self._config.indoor)
                    self._left_out += left_out
                    yield rows
            except (ijson.JSONError, UnicodeDecodeError, pl.exceptions.PolarsError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise SourceError(f"{self._config.base_url}: is not the JSON of the live feed ({reason})") from error


def _now() -> datetime:
    return datetime.now(UTC)


def _rows(records: list[dict[str, Any]], indoor: bool) -> tuple[pl.DataFrame, Counter[str]]:
    """The rows of records, and how many values there are of each quantity that is not known."""
    place, sensor = pl.col("location").struct, pl.col("sensor").struct
    rows = pl.from_dicts(records, schema=_RECORD, strict=False).select(
        "id",
        "timestamp",
        place.field("latitude").alias("lat"),
        place.field("longitude").alias("lon"),
        sensor.field("id").cast(pl.String).alias("platform_id"),
        place.field("altitude").alias("station_height"),
        place.field("indoor").fill_null(0).eq(1).cast(pl.String).alias("indoor"),
        sensor.field("sensor_type").struct.field("name").alias("sensor_type"),
        place.field("id").cast(pl.String).alias("location_id"),
        "sensordatavalues",
    )
    if not indoor:
        rows = rows.filter(pl.col("indoor") == "false")
    values = (
        rows.select("id", pl.col("sensordatavalues"))
        .explode("sensordatavalues")
        .unnest("sensordatavalues")
        .with_columns(pl.col("value_type").replace(_OTHER_NAMES))
    )
    is_known = pl.col("value_type").is_in(list(QUANTITIES))
    left_out = values.filter(~is_known, ~pl.col("value_type").is_in(_NO_MEASUREMENTS))["value_type"].value_counts()
    wide = values.filter(is_known).pivot(on="value_type", index="id", values="value", aggregate_function="last")
    known = rows.drop("sensordatavalues").join(wide, on="id", how="inner", maintain_order="left")
    told = pl.concat([known.select("id"), shaped(known)], how="horizontal").unique(
        "id", keep="last", maintain_order=True
    )
    return told, Counter(dict(left_out.iter_rows()))


class _File:
    """Pieces of a body as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


class _Journal:
    """The records of the last day, each under the window that asked for it first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(path, timeout=_PATIENCE)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("CREATE TABLE IF NOT EXISTS polls (window TEXT, at REAL, rows BLOB)")
        self._base.execute("CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY, at REAL)")

    def close(self) -> None:
        self._base.close()

    def add(self, window: Window, document: Iterator[pl.DataFrame]) -> None:
        """Keep what is new of a document, all of it or nothing; raises SourceError when it says nothing of `window`."""
        at = _now().timestamp()
        known = self.has(window)
        times: list[pl.Series] = []
        begun = list(islice(document, 1))  # while a service is away, others may write
        with self._base:
            self._base.execute("DELETE FROM polls WHERE at < ?", (at - _KEPT.total_seconds(),))
            self._base.execute("DELETE FROM seen WHERE at < ?", (at - _KEPT.total_seconds(),))
            for rows in chain(begun, document):
                seen = pl.Series("id", [id for (id,) in self._base.execute("SELECT id FROM seen")], pl.Int64)
                new = rows.filter(~pl.col("id").is_in(seen.implode()))
                self._base.executemany("INSERT INTO seen VALUES (?, ?)", ((id, at) for id in new["id"]))
                self._base.execute("INSERT INTO polls VALUES (?, ?, ?)", (window.key, at, _packed(new.drop("id"))))
                times.append(rows["timestamp"])
            if not known and not (times and _reaches(times, window)):
                raise SourceError(_why_not(times, window))

    def has(self, window: Window) -> bool:
        return self._base.execute("SELECT 1 FROM polls WHERE window = ?", (window.key,)).fetchone() is not None

    def rows(self, window: Window) -> Iterator[pl.DataFrame]:
        asked = "SELECT rows FROM polls WHERE window = ? AND rows IS NOT NULL ORDER BY rowid"
        for (packed,) in self._base.execute(asked, (window.key,)):
            rows = pl.read_ipc(io.BytesIO(packed))
            if rows.height:
                yield rows


def _reaches(times: list[pl.Series], window: Window) -> bool:
    """Whether a document whose records have these times says something of `window`, whatever one wrong clock says."""
    seconds = pl.concat(times).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).drop_nulls().sort()
    if seconds.is_empty():
        return False
    oldest: datetime = seconds[len(seconds) // 20]
    newest: datetime = seconds[-1 - len(seconds) // 20]
    return window.start <= newest.replace(tzinfo=UTC) and oldest.replace(tzinfo=UTC) < window.end


def _why_not(times: list[pl.Series], window: Window) -> str:
    held = pl.concat(times).sort() if times else pl.Series([], dtype=pl.String)
    said = f"it holds {held[0]} to {held[-1]}" if len(held) else "it holds no record"
    return (
        f"the live document says nothing of {window}: {said}. The source sensor_community has the whole day when it is "
        "over"
    )


def _packed(rows: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    rows.write_ipc(target, compression="zstd")
    return target.getvalue()
