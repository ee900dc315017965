"""Seconds in which the registry of 300,000 stations is brought up to date, and as a loop over rows would do it.

``python benchmarks/stations.py`` lets rows of so many stations, one hour after the other, add to what is known of them:
all of them new, all of them heard again, a thousand of them heard again; then it makes the table that is listed. The
named alternative, in the same run, is a dictionary of stations that a loop over the rows keeps.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import polars as pl
from measure import peak_megabytes, timed
from numpy.random import default_rng

from ionbeam_dagster.domain.station_entries import NO_ENTRIES
from ionbeam_dagster.domain.stations import Registry, heard_in, heard_together, nothing_heard

BEGIN = datetime(2026, 6, 21, tzinfo=UTC)
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"


def rows_of(stations: int) -> pl.DataFrame:
    random = default_rng(7)
    moments = pl.Series(random.integers(0, 3_600, stations) * 1_000_000, dtype=pl.Duration("us"))
    return pl.DataFrame(
        {
            "datetime": pl.Series([BEGIN] * stations, dtype=pl.Datetime("us", "UTC")) + moments,
            "lat": random.uniform(-60, 60, stations),
            "lon": random.uniform(-180, 180, stations),
            TEMPERATURE: random.normal(15, 5, stations),
            "station_id": [f"70:ee:50:{n:06x}" for n in range(stations)],
            "altitude": ["12.0"] * stations,
        }
    )


def in_a_loop(rows: pl.DataFrame) -> dict[str, dict[str, object]]:
    known: dict[str, dict[str, object]] = {}
    for row in rows.iter_rows(named=True):
        one = known.setdefault(row["station_id"], {"first": row["datetime"], "last": row["datetime"], "places": {}})
        one["first"], one["last"] = min(one["first"], row["datetime"]), max(one["last"], row["datetime"])
        place = round(row["lat"], 3), round(row["lon"], 3)
        since, until = one["places"].get(place, (row["datetime"], row["datetime"]))
        one["places"][place] = min(since, row["datetime"]), max(until, row["datetime"])
        one |= {name: row[name] for name in ("lat", "lon", "altitude") if row[name] is not None}
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stations", type=int, default=300_000)
    given = parser.parse_args()
    rows = rows_of(given.stations)
    later = rows.with_columns(pl.col("datetime") + timedelta(hours=1))

    def heard(some: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        return heard_together(known, [heard_in(some, [TEMPERATURE], ["station_id", "altitude"])])

    print(f"{given.stations:,} stations, a row of each")
    known, ours = timed("all new", lambda: heard(rows, nothing_heard()))
    both, _ = timed("all heard again", lambda: heard(later, known))
    timed("1,000 heard again", lambda: heard(later.head(1_000), known))
    timed("the table of all", lambda: Registry("crowd", both, NO_ENTRIES).table)
    found, plain = timed("all new, in a loop over rows", lambda: in_a_loop(rows))
    assert len(found) == known.height == both.height == given.stations
    print(f"registry of stations: {plain / ours:.1f} times as fast as the loop; peak {peak_megabytes():.0f} MB")


if __name__ == "__main__":
    main()
