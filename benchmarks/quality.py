"""Quality control: the buddy test against titanlib, all tests on one large window, and what is found of known errors.

``python benchmarks/quality.py`` prints titanlib's and our seconds on the same random network and how many flags agree;
the seconds of all tests on a window of many stations; and, on the synthetic crowd with errors of known kinds, the share
of the wrong values that is flagged and the share of the right ones that is. Memory is in memory.py (build).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from measure import peak_megabytes

from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.quality import neighbours
from ionbeam_dagster.domain.quality.chain import LOOK_BACK
from ionbeam_dagster.domain.quality.limits import DEFAULTS
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline import quality_control as qc
from ionbeam_dagster.sources.ioncannon import IonCannon, IonCannonConfig

START = datetime(2026, 6, 21, 12, tzinfo=UTC)
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"


def buddies(stations: int) -> None:
    random = np.random.default_rng(0)
    lat, lon = random.uniform(47, 55, stations), random.uniform(5, 15, stations)
    height = random.uniform(0, 400, stations)
    values = 15 - 0.0065 * height + 2 * np.sin(3 * lat) + random.normal(0, 0.7, stations)
    wrong = random.random(stations) < 0.05
    values[wrong] += random.choice([-1, 1], wrong.sum()) * random.uniform(4, 15, wrong.sum())
    places = neighbours.Places(lat, lon, height, np.arange(stations))
    given = {"radius": 50_000.0, "num_min": 5, "threshold": 2.0, "max_height_difference": 200.0, "min_std": 1.0}

    def ours() -> np.ndarray:
        test = neighbours.Buddy(values, np.ones(stations, np.bool_), gradient=-0.0065, **given)
        return test.judged(values, neighbours.Surroundings(places, [test]).sums_at(places)[test]).failed

    seconds, processor, found = timed(ours)
    print(f"buddy test of {stations:,} stations in Central Europe, neighbours within 50 km, two iterations")
    try:
        import titanlib
    except ImportError:
        print(f"  ours      {seconds:7.2f} s ({processor:.2f} of CPU); titanlib has no wheel for this Python")
        return
    points = titanlib.Points(lat, lon, height)
    theirs_seconds, theirs_processor, theirs = timed(
        lambda: np.array(titanlib.buddy_check(points, values, [50_000.0], [5], 2.0, 200.0, -0.0065, 1.0, 2), bool)
    )
    print(f"  titanlib  {theirs_seconds:7.2f} s ({theirs_processor:.2f} of CPU)   {theirs.sum()} flagged")
    alike = (theirs == found).mean()
    print(f"  ours      {seconds:7.2f} s ({processor:.2f} of CPU)   {found.sum()} flagged, {alike:.5%} alike")
    print(f"  ratio     {theirs_seconds / seconds:7.1f}   ({theirs_processor / processor:.1f} by CPU)")


def whole_window(stations: int) -> None:
    schema, rows = crowd(stations, minutes=10, north=60.0)
    batches = rows.to_arrow().cast(schema).to_batches(max_chunksize=65_536)
    plan, window = Plan.of(schema, DEFAULTS), Window(START, START + timedelta(minutes=10))
    seconds, processor, found = timed(
        lambda: sum(b.num_rows for b in qc.checked(qc.Network(plan, point_key(schema), batches), [], window, schema))
    )
    print(f"all tests of 8 quantities, {found:,} reports of {stations:,} stations")
    told = f"{found / seconds:,.0f} reports/s   peak {peak_megabytes():.0f} MB"
    print(f"  ours      {seconds:7.2f} s ({processor:.2f} of CPU)   {told}")


def detection(stations: int) -> None:
    schema, rows = crowd(stations, minutes=60, north=50.0)
    kinds: dict[str, Callable[[pl.Expr], pl.Expr]] = {
        "off by 3 K": lambda value: value + 3,
        "off by 6 K": lambda value: value + 6,
        "off by 12 K": lambda value: value - 12,
        "one spike of 15 K": lambda value: (
            pl.when(pl.col("datetime") == START + timedelta(minutes=30)).then(value + 15).otherwise(value)
        ),
        "stuck": lambda value: value.first().over("station_id"),
        "in a room": lambda value: pl.lit(22.5) + 0.01 * value,
        "Fahrenheit": lambda value: value * 1.8 + 32,
        "not connected": lambda value: pl.lit(-146.1),
    }
    names = rows["station_id"].unique(maintain_order=True)
    random = np.random.default_rng(1)
    wrong = random.choice(len(names), size=len(names) // 20, replace=False)
    parts = np.array_split(wrong, len(kinds))
    share = {name: names.gather(part.tolist()) for name, part in zip(kinds, parts, strict=True)}
    spoilt = rows
    for name, spoil in kinds.items():
        of = pl.col("station_id").is_in(share[name].implode())
        value = spoil(pl.col(TEMPERATURE))
        spoilt = spoilt.with_columns(pl.when(of).then(value).otherwise(pl.col(TEMPERATURE)).alias(TEMPERATURE))
    window = Window(START, START + timedelta(hours=1))
    plan = Plan.of(schema, DEFAULTS)
    batches = spoilt.to_arrow().cast(schema).to_batches()
    checked = qc.checked(qc.Network(plan, point_key(schema), batches), [], window, schema)
    found = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(list(checked), plan.schema(schema))))
    before = rows.filter(pl.col("datetime") >= START)
    found = found.with_columns((before[TEMPERATURE] != found[TEMPERATURE]).alias("wrong"))
    print(f"temperatures of {stations:,} synthetic stations for an hour, a twentieth of them wrong")
    print(f"  {'kind of error':<20}{'values':>8}{'suspect':>10}{'bad':>10}{'flagged':>10}")
    for name in kinds:
        some = found.filter(pl.col("station_id").is_in(share[name].implode()) & pl.col("wrong"))
        report(name, some)
    report("none (false alarms)", found.filter(~pl.col("wrong")))


def report(name: str, some: pl.DataFrame) -> None:
    flags = some[f"{TEMPERATURE}__flag"]
    suspect, bad = (flags == 3).mean() or 0.0, (flags == 4).mean() or 0.0
    print(f"  {name:<20}{some.height:>8,}{suspect:>10.2%}{bad:>10.2%}{suspect + bad:>10.2%}")


def crowd(stations: int, minutes: int, north: float) -> tuple[pa.Schema, pl.DataFrame]:
    """A synthetic network with `LOOK_BACK` before the window, as a store would give it."""
    config = IonCannonConfig(num_stations=stations, max_lat=north, max_lon=5 + (north - 47) * 1.5)
    source = IonCannon("crowd", config)
    schema = canonical_schema([source.metadata])
    begin = START - (LOOK_BACK if minutes > 10 else timedelta(0))
    fetched = source.fetch(Window(begin, START + timedelta(minutes=minutes)))
    names = {v.column: v.to_canonical_name() for v in source.metadata.ingestion_map.canonical_variables}
    rows = pl.concat(pl.DataFrame(pl.from_arrow(batch)) for batch in fetched).rename(names)
    return schema, rows.select(schema.names).sort("station_id", "datetime")


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, seconds of the processor (the steadier ones where others work, too), and the result."""
    begun, spent = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - begun, time.process_time() - spent, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buddies", type=int, default=30_000, help="stations of the buddy test")
    parser.add_argument("--stations", type=int, default=100_000, help="stations of the whole window")
    parser.add_argument("--crowd", type=int, default=4_000, help="stations of the crowd with known errors")
    given = parser.parse_args()
    buddies(given.buddies)
    whole_window(given.stations)
    detection(given.crowd)


if __name__ == "__main__":
    main()
