"""What pictures show of dataset files: aggregates of their rows, for a map and for curves in time.

Belongs here: which variables are shown, and the sums that Polars makes: cells about a pixel wide for the map, time bins
for the curves. Memory therefore does not grow with the windows. Values that quality control found bad are in none
(flags.py shows them). Does not belong here: the drawing (window.py), words and units (words.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import CanonicalVariable
from ionbeam_dagster.domain.canonical import columns_of, point_key, quality_column, variable_of
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.pictures.ground import SMALLEST_MAP, Extent
from ionbeam_dagster.pictures.words import label_of, shown, shown_values

CELLS_ACROSS = 300
BINS = 48
SAMPLED_ROWS = 300_000
MOST_TRACKS = 50
BIN_WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800]
SHOWN_FIRST = (
    "air_temperature",
    "relative_humidity",
    "wind_speed",
    "air_pressure_at_sea_level",
    "surface_air_pressure",
)


@dataclass(frozen=True, slots=True)
class DrawnWindow:
    """A dataset file's schema, row count and what it says of itself."""

    path: Path
    schema: pa.Schema
    rows: int
    about: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> DrawnWindow:
        with pq.ParquetFile(path) as file:
            about = json.loads((file.metadata.metadata or {}).get(b"ionbeam", b"{}"))
            return cls(path, file.schema_arrow, file.metadata.num_rows, about)

    @property
    def dataset(self) -> str:
        return str(self.about.get("dataset", "dataset"))

    def moment(self, key: str) -> datetime | None:
        return _utc(datetime.fromisoformat(self.about[key])) if key in self.about else None

    @property
    def gaps(self) -> list[tuple[datetime, datetime]]:
        return [
            (_utc(datetime.fromisoformat(a)), _utc(datetime.fromisoformat(b))) for a, b in self.about.get("gaps", [])
        ]


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is drawn in one colour scale or panel: a variable or, of several datasets, those that differ only in how
    they were aggregated."""

    variables: tuple[CanonicalVariable, ...]

    @property
    def label(self) -> str:
        first = self.variables[0]
        alike = len(self.variables) > 1
        return label_of(first.model_copy(update={"method": "point", "period": "PT0S"}) if alike else first)

    def values(self) -> pl.Expr:
        return pl.coalesce(shown_values(variable) for variable in self.variables)


@dataclass(frozen=True, slots=True)
class Aggregates:
    """The aggregates that are drawn.

    `cells` has lon, lat and value of the cells inside `extent`, and `outside` is the number of the others; `series` has
    dataset, at and, for each quantity number i, mid_i, low_i and high_i; `tracks` has lon and lat, with a null between
    two stations.
    """

    start: datetime
    end: datetime
    extent: Extent
    quantities: list[Quantity]
    cells: pl.DataFrame
    outside: int
    stations: int | None
    series: pl.DataFrame
    tracks: pl.DataFrame


def aggregated(windows: list[DrawnWindow]) -> Aggregates:
    schema = pa.unify_schemas([window.schema for window in windows], promote_options="permissive")
    files = [
        pl.scan_parquet(window.path, glob=False).with_columns(pl.lit(window.dataset).alias("@dataset"))
        for window in windows
    ]
    rows = pl.concat(files, how="diagonal_relaxed")
    numeric = [
        name
        for name in columns_of(schema, "variable")
        if pa.types.is_floating(schema.field(name).type) or pa.types.is_integer(schema.field(name).type)
    ]
    rows = rows.with_columns(_not_bad(name, flag) for name in numeric if (flag := quality_column(schema, name, "flag")))
    lon, moment = pl.col("lon"), pl.col("datetime").dt.epoch("us")
    facts = _collected(
        rows.select(
            pl.col("lat").min().alias("south"),
            pl.col("lat").max().alias("north"),
            lon.min().alias("west"),
            lon.max().alias("east"),
            ((lon + 360) % 360).min().alias("west of the date line"),
            ((lon + 360) % 360).max().alias("east of the date line"),
            moment.min().alias("first"),
            moment.max().alias("last"),
            *(pl.col(name).is_finite().sum().alias(f"n {name}") for name in numeric),
        )
    ).row(0, named=True)
    counted = [(variable_of(schema.field(name)), facts[f"n {name}"] or 0) for name in numeric]
    several = len({window.dataset for window in windows}) > 1
    quantities = [
        Quantity((one, *_aggregated_otherwise(one, counted)) if several else (one,)) for one in _chosen(counted)
    ]
    start = min([m for w in windows if (m := w.moment("window_start"))], default=_from_epoch(facts["first"]))
    end = max([m for w in windows if (m := w.moment("window_end"))], default=_from_epoch(facts["last"]))
    end = max(end, start + timedelta(seconds=1))

    west, east = facts["west"], facts["east"]
    if facts["east of the date line"] - facts["west of the date line"] < 0.7 * (east - west):
        west, east = facts["west of the date line"], facts["east of the date line"]
        rows = rows.with_columns((lon + 360) % 360)
    sample = _sampled(rows, sum(window.rows for window in windows))
    extent = _bulk((west, east, facts["south"], facts["north"]), rows, sample)
    names = [name for name in point_key(schema) if name not in ("lat", "lon")]
    times = _collected(sample.select(pl.col("datetime").n_unique())).item()
    cells = _collected(_cells(rows, extent, quantities))
    series = _collected(_binned(sample, start, _bin_width(start, end, times), quantities))
    number = _collected(rows.select(names).unique().select(pl.len())).item() if names else None
    inside = cells.filter("inside")
    tracks = pl.DataFrame({"lon": [], "lat": []})
    if number and number <= MOST_TRACKS and cells.height > 3 * number:
        tracks = _tracks(sample, names, start, (end - start) / 300)
    return Aggregates(start, end, extent, quantities, inside, cells.height - inside.height, number, series, tracks)


def _not_bad(name: str, flag: str) -> pl.Expr:
    return pl.when((pl.col(flag) == Flag.FAIL).fill_null(False)).then(None).otherwise(pl.col(name)).alias(name)


def _collected(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.collect(engine="streaming")


def _chosen(counted: list[tuple[CanonicalVariable, int]]) -> list[CanonicalVariable]:
    """Three quantities at most, the one for the map first: air temperature if there is any, else what has most values.

    Directions and codes are passed over where there is anything else: neither mean nor median says much of them.
    """

    def rank(one: tuple[CanonicalVariable, int]) -> tuple[int, int, bool]:
        variable, values = one
        name = variable.standard_name
        familiar = SHOWN_FIRST.index(name) if name in SHOWN_FIRST else len(SHOWN_FIRST)
        return familiar, -values, variable.method != "point"

    present = [(variable, values) for variable, values in counted if values]
    scalar = [one for one in present if not one[0].standard_name.endswith(("direction", "code"))] or present
    ranked = sorted(scalar, key=rank)
    if ranked and ranked[0][0].standard_name != "air_temperature":
        ranked.insert(0, max(ranked, key=lambda one: one[1]))
    one_of_each: dict[str, CanonicalVariable] = {}
    for variable, _ in ranked:
        one_of_each.setdefault(variable.standard_name, variable)
    return list(one_of_each.values())[:3]


def _aggregated_otherwise(
    one: CanonicalVariable, counted: list[tuple[CanonicalVariable, int]]
) -> Iterable[CanonicalVariable]:
    """The variables with values that are `one` by another cell method or period, in the same unit as shown."""
    unit, _, _ = shown(one)
    for other, values in counted:
        same = (other.standard_name, other.level, shown(other)[0]) == (one.standard_name, one.level, unit)
        if same and values and other != one:
            yield other


def _sampled(rows: pl.LazyFrame, number: int) -> pl.LazyFrame:
    """About `SAMPLED_ROWS` rows, spread evenly but with no beat against the stations' own rhythm."""
    if number <= SAMPLED_ROWS:
        return rows
    scattered = (pl.col("@row").cast(pl.UInt64) * 2_654_435_761) % 2**32
    return rows.with_row_index("@row").filter(scattered < 2**32 * SAMPLED_ROWS // number).drop("@row")


def _bulk(extent: Extent, rows: pl.LazyFrame, sample: pl.LazyFrame) -> Extent:
    """`extent`, or where nearly all rows are when a few far ones (an overseas station) would make dots of the rest."""
    west, east, south, north = extent
    ends = [pl.col(name).quantile(q).alias(f"{name} {q}") for name in ("lon", "lat") for q in (0.1, 0.9)]
    low_lon, high_lon, low_lat, high_lat = _collected(sample.select(ends)).row(0)
    wide, high = max(high_lon - low_lon, 1.0), max(high_lat - low_lat, 1.0)
    if east - west < 9 * wide and north - south < 9 * high:
        return extent
    near = (low_lon - wide, high_lon + wide, low_lat - high, high_lat + high)
    lon, lat = pl.col("lon"), pl.col("lat")
    bounds = (lon.min().alias("w"), lon.max().alias("e"), lat.min().alias("s"), lat.max().alias("n"))
    return _collected(rows.filter(_within(near)).select(bounds)).row(0)


def _within(extent: Extent) -> pl.Expr:
    west, east, south, north = extent
    return pl.col("lon").is_between(west, east) & pl.col("lat").is_between(south, north)


def _cells(rows: pl.LazyFrame, extent: Extent, quantities: list[Quantity]) -> pl.LazyFrame:
    west, east, south, north = extent
    size = max(east - west, north - south, SMALLEST_MAP) / CELLS_ACROSS
    # What is aggregated are plain columns: of expressions the streaming engine would keep every row of a group.
    placed = rows.select(
        "lon",
        "lat",
        ((pl.col("lon") - west) / size).floor().cast(pl.Int32).alias("column"),
        ((pl.col("lat") - south) / size).floor().cast(pl.Int32).alias("row"),
        _within(extent).alias("inside"),
        (quantities[0].values() if quantities else pl.lit(None, pl.Float64)).alias("value"),
    )
    return placed.group_by("column", "row", "inside").agg(pl.col("lon", "lat", "value").mean())


def _bin_width(start: datetime, end: datetime, times: int) -> timedelta:
    """A round width: about `BINS` bins at most, and none shorter than the rhythm of the observations."""
    span = (end - start).total_seconds()
    least = max(span / BINS, span / times)
    return timedelta(seconds=next((width for width in BIN_WIDTHS if width >= 0.999 * least), least))


def _binned(rows: pl.LazyFrame, start: datetime, width: timedelta, quantities: list[Quantity]) -> pl.LazyFrame:
    step = width // timedelta(microseconds=1)
    origin = _microseconds(start)
    placed = rows.select(
        pl.col("@dataset").alias("dataset"),
        ((pl.col("datetime").dt.epoch("us") - origin) // step).alias("bin"),
        *(quantity.values().alias(str(number)) for number, quantity in enumerate(quantities)),
    )
    values = pl.exclude("dataset", "bin")
    spread = (
        values.quantile(share, "linear").name.prefix(name)
        for name, share in (("mid_", 0.5), ("low_", 0.1), ("high_", 0.9))
    )
    middle = (pl.col("bin") * step + origin + step // 2).cast(pl.Datetime("us")).alias("at")
    return placed.group_by("dataset", "bin").agg(*spread).sort("dataset", "bin").with_columns(middle)


def _tracks(rows: pl.LazyFrame, names: list[str], start: datetime, step: timedelta) -> pl.DataFrame:
    bins = (pl.col("datetime").dt.epoch("us") - _microseconds(start)) // (step // timedelta(microseconds=1))
    points = _collected(rows.group_by(*names, bins.alias("@bin")).agg(pl.col("lon").mean(), pl.col("lat").mean()))
    ordered = points.sort(*names, "@bin")
    pieces = ordered.partition_by(names, maintain_order=True)
    gap = pl.DataFrame({"lon": [None], "lat": [None]}, schema={"lon": pl.Float64, "lat": pl.Float64})
    return pl.concat([part for piece in pieces for part in (piece.select("lon", "lat"), gap)])


def _from_epoch(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


def _microseconds(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
