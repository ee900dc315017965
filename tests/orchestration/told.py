"""A source that does as a test tells it, and names for times of its first day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig

QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)
START = datetime(2026, 6, 21, tzinfo=UTC)
TEMPERATURE = CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC", level=2.0)


class Told(Source):
    """Gives two temperatures a window; a test tells which windows fail, and how much warmer others come now.

    It may also tell which windows are empty, lack their second station, or bring a row of another time.
    """

    Config = SourceConfig
    default_window = QUARTER
    default_span = HOUR

    def __init__(self, name: str, config: SourceConfig) -> None:
        super().__init__(name, config)
        self.failing: set[str] = set()
        self.failing_once: set[str] = set()
        self.stopped_at: str | None = None
        self.warmer: dict[str, float] = {}
        self.fetched: list[str] = []
        self.empty: set[str] = set()
        self.lacking: set[str] = set()
        self.stray: dict[str, datetime] = {}
        self.latitude = 52.0

    @property
    def metadata(self) -> IngestionMetadata:
        described = [MetadataVariable(column="station_id")]
        columns = DataIngestionMap(canonical_variables=[TEMPERATURE], metadata_variables=described)
        dataset = DatasetMetadata(name=self.config.dataset or self.name, aggregation_span=HOUR)
        return IngestionMetadata(dataset=dataset, ingestion_map=columns)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        self.fetched.append(window.key)
        if window.key == self.stopped_at:
            raise KeyboardInterrupt
        refused = window.key in self.failing_once
        self.failing_once.discard(window.key)
        if refused or window.key in self.failing:
            raise SourceError(f"no answer for {window.key}")
        if window.key in self.empty:
            return
        points = [(window.start, "a", 10.0 + self.warmer.get(window.key, 0.0), self.latitude)]
        if window.key not in self.lacking:
            points.append((window.start, "b", 11.0, self.latitude + 1))
        if window.key in self.stray:
            points.append((self.stray[window.key], "c", 12.0, self.latitude))
        yield points_as_batch(points)


def points_as_batch(points: list[tuple[datetime, str, float, float]]) -> pa.RecordBatch:
    """Rows as the source gives them, of times, stations, temperatures and latitudes."""
    times, stations, temperatures, latitudes = zip(*points, strict=True)
    return pa.RecordBatch.from_pydict(
        {
            "datetime": pa.array(times, pa.timestamp("us", tz="UTC")),
            "lat": latitudes,
            "lon": [4.0 + place for place in range(len(points))],
            "station_id": stations,
            "t": temperatures,
        }
    )


class ToldChanges(Told):
    """The same, but it says itself which ranges changed, as sources of files do."""

    def __init__(self, name: str, config: SourceConfig) -> None:
        super().__init__(name, config)
        self.changed: list[Window] = []

    tells_changes = True

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        seen = int(cursor or 0)
        return self.changed[seen:], str(len(self.changed))


def key(text: str) -> str:
    """The partition key of a time on the first day: ``key("03:05")``."""
    return f"20260621T{text.replace(':', '')}00"


def window(text: str, span: timedelta = QUARTER) -> Window:
    start = datetime.strptime(key(text), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return Window(start, start + span)


def put_point(platform, time: str, ingestion: str, latitude: float) -> None:
    """Bring a point into the store past every check of ingestion, as a fault of ours would."""
    collected, arrival = window(time), platform.ledger.arrival_of(ingestion)
    name = TEMPERATURE.to_canonical_name()
    point = pl.DataFrame(
        {"datetime": [collected.start], "lat": [latitude], "lon": [4.0], name: [10.0], "station_id": ["z"]},
        schema_overrides={"datetime": pl.Datetime("us", "UTC")},
    )
    platform.series.write("told", ingestion, arrival, [point], ["station_id"])
    claim = Claim(ingestion, "nobody", "told", collected, arrival, 1)
    platform.ledger.record_claim(claim, platform.sources["told"].metadata, {window(time, HOUR): 1})
