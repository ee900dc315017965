"""Seconds in which what was heard of 300,000 stations is brought up to date and told, beside one scan of the same rows.

``python benchmarks/heard.py`` puts an hour of rows (12 of each station) into a week that is full, and says which
stations fell silent. The named alternative, in the same run, is what told of silence before anything was kept: one scan
by polars of a day of the same rows in Parquet, for how many rows each station has and when the last of them was. It
learns no interval, no lateness and no pause, and reads all of the day again each time.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from measure import peak_megabytes, timed

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import ANY_TIME, STATION
from ionbeam_dagster.domain.heard import STATION_KEY, TIME, Week, sums_of
from ionbeam_dagster.domain.records import Claim
from ionbeam_dagster.domain.silence import told
from ionbeam_dagster.domain.station_entries import NO_ENTRIES
from ionbeam_dagster.domain.windows import DAY, HOUR, Window
from ionbeam_dagster.pipeline.heard import moments_of
from ionbeam_dagster.stores.files import Files
from ionbeam_dagster.stores.heard import HeardStore

BEGIN = datetime(2026, 6, 21, tzinfo=UTC)
AN_HOUR = 12
METADATA = IngestionMetadata(
    dataset=DatasetMetadata(name="crowd"),
    ingestion_map=DataIngestionMap(
        canonical_variables=[
            CanonicalVariable(column="warm", standard_name="air_temperature", cf_unit="degC", level=2.0)
        ],
        metadata_variables=[MetadataVariable(column=STATION)],
    ),
)


def rows_of(stations: int, hour: datetime) -> pl.DataFrame:
    random = np.random.default_rng(7)
    places = pl.DataFrame(
        {
            STATION_KEY: [f"70:ee:50:{n:06x}" for n in range(stations)],
            "lat": random.uniform(-60, 60, stations),
            "lon": random.uniform(-180, 180, stations),
            "offset": random.integers(0, 300, stations),
        }
    )
    steps = pl.DataFrame({"step": np.arange(AN_HOUR) * 3600 // AN_HOUR})
    moment = pl.lit(hour) + pl.duration(seconds=pl.col("offset") + pl.col("step"))
    return places.join(steps, how="cross").select(
        STATION_KEY,
        moment.cast(pl.Datetime("us", "UTC")).alias(TIME),
        "lat",
        "lon",
        pl.lit(90, pl.UInt32).alias("late"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=300_000)
    given = parser.parse_args()
    hour = pl.Datetime("us", "UTC")
    aside = pl.DataFrame(schema={STATION_KEY: pl.String, "hour": hour, "what": pl.String, "rows": pl.UInt32})
    rows = rows_of(given.stations, BEGIN)
    sums, week = sums_of(rows), Week()
    for number in range(168):
        later = pl.col("hour", "first", "last") + number * HOUR
        week.hear([BEGIN + number * HOUR], sums.with_columns(later), aside)
        week.forget(BEGIN + (number + 1) * HOUR)
    until = BEGIN + 169 * HOUR
    print(f"{given.stations:,} stations, {AN_HOUR} rows an hour of each, a week of them")
    with TemporaryDirectory() as folder:
        store = HeardStore(Files(Path(folder) / "drafts"), Path(folder))
        store.keep_week("crowd", week)
        of_a_day = Path(folder) / "day"
        of_a_day.mkdir()
        for number in range(24):
            moved = rows.select(STATION_KEY, pl.col(TIME) + (145 + number) * HOUR)
            moved.write_parquet(of_a_day / f"{number:02}.parquet")
        kept, reading = timed("the week is read", lambda: store.week("crowd"))
        newest = rows.with_columns(pl.col(TIME) + 168 * HOUR)
        raw = newest.with_columns(pl.lit(20.0).alias("warm")).rename({STATION_KEY: STATION}).drop("late")
        batches = raw.to_arrow().to_batches(max_chunksize=128 * 1024)
        claim = Claim("new", "crowd", "crowd", Window(until - HOUR, until), 1, raw.height, arrived_at=until)

        def read() -> pl.DataFrame:
            parts = (moments_of(batch, METADATA, ANY_TIME, NO_ENTRIES, claim)[0] for batch in batches)
            return pl.concat(parts)

        moments, canonical = timed("an hour of raw rows is made canonical", read)
        _, summing = timed("it is summed", lambda: kept.hear([BEGIN + 168 * HOUR], sums_of(moments), aside))
        found, saying = timed("which are silent, and how much came of each", lambda: told(kept, until))
        _, writing = timed("it is written", lambda: (store.keep_told("crowd", found), store.keep_week("crowd", kept)))
        again, looking = timed("it is looked at", lambda: store.told("crowd"))
        assert again is not None and again.stations.height == given.stations and again.silent.is_empty()

        def scanned() -> pl.DataFrame:
            day = pl.scan_parquet(of_a_day / "*.parquet").filter(pl.col(TIME) >= until - DAY)
            return day.group_by(STATION_KEY).agg(pl.len(), pl.col(TIME).max()).collect()

        plain, scanning = timed("one scan of a day of rows, by polars", scanned)
        assert plain.height == given.stations
    ours = reading + canonical + summing + saying + writing
    times = f"{scanning / ours:.1f} times as fast as one scan of a day, to look at it {scanning / looking:.0f} times"
    print(f"what was heard: {ours:.1f} s an hour of rows, {times}; peak {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
