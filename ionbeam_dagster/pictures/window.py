"""Pictures of dataset windows: where the stations are and what they saw, as PNG.

Belongs here: a map with the mean of one variable at each place, and beside it a few variables in time; values that
quality control found bad are in neither (flags.py shows them). Does not belong here: where the pictures are shown.
Nothing global is touched (no pyplot), so that threads may draw at once.

Rows are aggregated by Polars before anything is drawn: to cells about a pixel wide for the map, to time bins for the
curves. Memory therefore does not grow with the windows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ionbeam_client.models import CanonicalVariable, parse_duration
from ionbeam_dagster.domain.canonical import columns_of, point_key, quality_column, variable_of
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.pictures.ground import (
    DPI,
    FAINT,
    HEIGHT,
    INK,
    SMALLEST_MAP,
    WIDTH,
    Extent,
    draw_graticule,
    draw_ground,
    framed,
    png,
    stretch,
    write_above,
)

CELLS_ACROSS = 300
BINS = 48
SAMPLED_ROWS = 300_000
MOST_TRACKS = 50
LONGEST_TITLE = 56  # letters that have room beside the legend of the curves
LONGEST_NAMES = 100
BIN_WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800]

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CURVES = ("#b91c1c", "#1d4ed8", "#0f766e")
SHOWN_FIRST = (
    "air_temperature",
    "relative_humidity",
    "wind_speed",
    "air_pressure_at_sea_level",
    "surface_air_pressure",
)


def window_picture(dataset_file: Path) -> bytes:
    """A PNG (900 x 420) of one dataset window; one without rows says so.

    Raises OSError or pyarrow's ArrowInvalid when the file cannot be read.
    """
    return map_of_windows([dataset_file])


def map_of_windows(files: Sequence[Path]) -> bytes:
    """A PNG (900 x 420) of several windows, of one dataset or several: means over all of them, one time axis.

    Several datasets have a curve each: a median over all of them would jump as one begins and another pauses.
    """
    windows = [_Window.of(file) for file in files]
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    rows = sum(window.rows for window in windows)
    found = _read([window for window in windows if window.rows]) if rows else None
    _write_title(figure, windows, rows, found)
    if found is None:
        figure.text(0.5, 0.45, "no observations", ha="center", fontsize=15, color=FAINT)
    else:
        _draw_map(figure, found)
        _draw_series(figure, found, [gap for window in windows for gap in window.gaps])
    return png(figure)


# What is in the files.


@dataclass(frozen=True, slots=True)
class _Window:
    """A dataset file's schema, row count and what it says of itself."""

    path: Path
    schema: pa.Schema
    rows: int
    about: dict[str, Any]

    @classmethod
    def of(cls, path: Path) -> _Window:
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
class _Quantity:
    """What is drawn in one colour scale or panel: a variable or, of several datasets, those that differ only in how
    they were aggregated."""

    variables: tuple[CanonicalVariable, ...]

    @property
    def label(self) -> str:
        first = self.variables[0]
        alike = len(self.variables) > 1
        return _label(first.model_copy(update={"method": "point", "period": "PT0S"}) if alike else first)

    def values(self) -> pl.Expr:
        return pl.coalesce(_shown_values(variable) for variable in self.variables)


@dataclass(frozen=True, slots=True)
class _Found:
    """The aggregates that are drawn.

    `cells` has lon, lat and value of the cells inside `extent`, and `outside` is the number of the others; `series` has
    dataset, at and, for each quantity number i, mid_i, low_i and high_i; `tracks` has lon and lat, with a null between
    two stations.
    """

    start: datetime
    end: datetime
    extent: Extent
    quantities: list[_Quantity]
    cells: pl.DataFrame
    outside: int
    stations: int | None
    series: pl.DataFrame
    tracks: pl.DataFrame


def _read(windows: list[_Window]) -> _Found:
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
        _Quantity((one, *_aggregated_otherwise(one, counted)) if several else (one,)) for one in _chosen(counted)
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
    return _Found(start, end, extent, quantities, inside, cells.height - inside.height, number, series, tracks)


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
    unit, _, _ = _shown(one)
    for other, values in counted:
        same = (other.standard_name, other.level, _shown(other)[0]) == (one.standard_name, one.level, unit)
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


def _cells(rows: pl.LazyFrame, extent: Extent, quantities: list[_Quantity]) -> pl.LazyFrame:
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


def _binned(rows: pl.LazyFrame, start: datetime, width: timedelta, quantities: list[_Quantity]) -> pl.LazyFrame:
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


# Words and units, as people who read weather maps expect them.


def _shown(variable: CanonicalVariable) -> tuple[str, float, float]:
    """The unit that is shown, and the factor and offset that lead to it."""
    name, unit = variable.standard_name, variable.cf_unit
    if unit in ("K", "kelvin") and name.endswith("temperature"):
        return "°C", 1.0, -273.15
    if unit in ("degC", "celsius", "Celsius", "degrees Celsius", "degree_Celsius"):
        return "°C", 1.0, 0.0
    if unit == "Pa":
        return "hPa", 0.01, 0.0
    if unit == "1" and name == "relative_humidity":
        return "%", 100.0, 0.0
    raised = re.sub(r"(?<=[A-Za-z])-?\d", lambda power: power.group().translate(SUPERSCRIPT), unit)
    return ("" if unit == "1" else raised), 1.0, 0.0


def _shown_values(variable: CanonicalVariable) -> pl.Expr:
    _, factor, offset = _shown(variable)
    values = pl.col(variable.to_canonical_name()).cast(pl.Float64)
    return pl.when(values.is_finite()).then(values * factor + offset)


def _label(variable: CanonicalVariable) -> str:
    unit, _, _ = _shown(variable)
    words = [variable.standard_name.replace("_", " ")]
    if variable.level:
        words.append(f"{variable.level:g} m")
    if variable.method != "point":
        words.append(variable.method)
    if seconds := parse_duration(variable.period).total_seconds():
        words.append(f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min")
    return ", ".join(words) + (f" [{unit}]" if unit else "")


def _write_title(figure: Figure, windows: list[_Window], rows: int, found: _Found | None) -> None:
    about = windows[0].about if windows else {}
    starts = [moment for window in windows if (moment := window.moment("window_start"))]
    ends = [moment for window in windows if (moment := window.moment("window_end"))]
    parts = []
    if starts and ends:
        parts.append(_period(min(starts), max(ends)))
    if len(windows) > 1:
        parts.append(f"{len(windows):,} windows")
    elif "revision" in about:
        parts.append(f"revision {about['revision']}")
    if found:
        places = f"{found.cells.height:,} places"
        parts.append(places if found.stations is None else _counted(found.stations, "station"))
    parts.append(_counted(rows, "row"))
    if len(windows) == 1 and about.get("coverage", 1) < 1:
        parts.append(f"{math.floor(100 * about['coverage'])} % of the window collected")
    names = dict.fromkeys(window.dataset for window in windows)
    title = ", ".join(names) or "dataset"
    if len(names) > 1 and len(title) > LONGEST_TITLE:
        figure.text(0.14, 0.947, shorten(title, LONGEST_NAMES, placeholder=" ..."), fontsize=7.5, color=FAINT)
        title = f"{len(names)} datasets"
    figure.text(0.012, 0.945, title, fontsize=13, weight="bold", color=INK)
    figure.text(0.012, 0.895, "   ·   ".join(parts), fontsize=9, color=FAINT)


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def _period(start: datetime, end: datetime) -> str:
    if end - start == timedelta(days=1) and start.time() == end.time() == datetime.min.time():
        return f"{start:%Y-%m-%d} UTC"
    same_day = (end - timedelta(microseconds=1)).date() == start.date()
    until = ("24:00" if end.date() > start.date() else f"{end:%H:%M}") if same_day else f"{end:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d %H:%M} – {until} UTC"


# The map.


def _draw_map(figure: Figure, found: _Found) -> None:
    left, bottom, width, height = 0.055, 0.07, 0.43, 0.755
    axes = figure.add_axes((left, bottom, width, height))
    extent = framed(found.extent, width * WIDTH / (height * HEIGHT))
    draw_ground(axes, extent)
    draw_graticule(axes)
    if found.tracks.height:
        axes.plot(found.tracks["lon"], found.tracks["lat"], color=FAINT, linewidth=0.7, zorder=3)
    points = _draw_cells(axes, found.cells)
    means = found.cells["value"].drop_nulls()
    if len(means):
        only = f" {means[0]:.1f}" if len(means) == 1 else ""
        write_above(axes, f"{found.quantities[0].label}, mean{only}")
    if len(means) > 1:
        bar = figure.colorbar(points, cax=axes.inset_axes((1.025, 0, 0.028, 1)), extend="both")
        bar.ax.tick_params(labelsize=7.5, length=2, colors=INK)
        bar.outline.set_visible(False)
    if found.outside:
        note = f"{_counted(found.outside, 'place')} outside this map"
        axes.annotate(note, (1, 0), (-4, 4), "axes fraction", "offset points", ha="right", fontsize=7.5, color=FAINT)
    if extent[3] - extent[2] < 3:
        _draw_locator(axes, extent, found.cells)


def _draw_cells(axes: Axes, cells: pl.DataFrame) -> PathCollection:
    """Points coloured by value, the warmest on top; grey where there is no value. Colours span 2 to 98 % of values."""
    size = min(max(9000 / cells.height, 3.0), 42.0)
    edge = {"edgecolors": INK, "linewidths": 0.35} if cells.height <= 400 else {"edgecolors": "none"}
    silent, seen = cells.filter(pl.col("value").is_null()), cells.drop_nulls("value").sort("value", "lon", "lat")
    axes.scatter(silent["lon"], silent["lat"], s=size * 0.6, c="#9ca3af", linewidths=0, zorder=4)
    low, high = seen["value"].quantile(0.02), seen["value"].quantile(0.98)
    scale = Normalize(low, high if high != low else None)
    return axes.scatter(seen["lon"], seen["lat"], s=size, c=seen["value"], cmap="turbo", norm=scale, zorder=5, **edge)


def _draw_locator(axes: Axes, extent: Extent, cells: pl.DataFrame) -> None:
    """A small map of the region in the emptiest corner: a city's own map has no coast to know it by."""
    west, east, south, north = extent
    x, y = (cells["lon"] - west) / (east - west), (cells["lat"] - south) / (north - south)
    corners = [(0.0, 0.0), (0.72, 0.0), (0.0, 0.72), (0.72, 0.72)]
    busy = [((x >= a) & (x <= a + 0.28) & (y >= b) & (y <= b + 0.28)).sum() for a, b in corners]
    a, b = corners[busy.index(min(busy))]
    inset = axes.inset_axes((a, b, 0.28, 0.28), zorder=8)
    lon, lat = (west + east) / 2, (south + north) / 2
    high = 16.0
    box = inset.get_window_extent()
    wide = high * stretch(lat) * box.width / box.height
    lat = min(max(lat, high / 2 - 90), 90 - high / 2)
    draw_ground(inset, (lon - wide / 2, lon + wide / 2, lat - high / 2, lat + high / 2))
    inset.set_xticks([])
    inset.set_yticks([])
    inset.add_patch(Rectangle((west, south), east - west, north - south, fill=False, edgecolor=CURVES[0], linewidth=1))
    inset.plot([lon], [(south + north) / 2], "o", markersize=3, color=CURVES[0])


# The curves.


def _draw_series(figure: Figure, found: _Found, gaps: Iterable[tuple[datetime, datetime]]) -> None:
    left, bottom, width, height = 0.605, 0.07, 0.37, 0.822
    if not found.quantities:
        figure.text(left + width / 2, 0.45, "no values", ha="center", fontsize=12, color=FAINT)
        return
    number = len(found.quantities)
    gaps = list(gaps)
    by_dataset = {name: series for (name,), series in found.series.partition_by("dataset", as_dict=True).items()}
    several = len(by_dataset) > 1
    if several:
        height -= 0.03 * _write_legend(figure, list(by_dataset), left, width)
    each = height / number
    legend = ("median of each dataset" if several else "median and 10–90 %") + (
        "   ·   hatched: not collected" if gaps else ""
    )
    figure.text(left + width, 0.95, legend, ha="right", fontsize=8, color=FAINT)
    for place, quantity in enumerate(found.quantities):
        axes = figure.add_axes((left, bottom + (number - 1 - place) * each, width, each - 0.067))
        colours = _colours(len(by_dataset)) if several else [CURVES[place]]
        for series, colour in zip(by_dataset.values(), colours, strict=True):
            at, middle, low, high = _curve(series, place)
            if not several:  # of many the bands would cover each other
                axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(at, middle, color=colour, linewidth=1.3, marker="o", markersize=1.8)
        for start, end in gaps:
            axes.axvspan(
                _naive(start), _naive(end), facecolor="#f3f4f6", edgecolor="#d1d5db", hatch="////", linewidth=0
            )
        axes.set_xlim(_naive(found.start), _naive(found.end))
        write_above(axes, quantity.label)
        locator = AutoDateLocator(minticks=3, maxticks=7)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=7.5, length=2, colors=FAINT, labelbottom=place == number - 1)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color="#9ca3af", linewidth=0.6)


def _write_legend(figure: Figure, names: list[str], left: float, width: float) -> int:
    """The datasets in the colours of their curves, above these; returns how many lines it takes."""
    lines = [Line2D([], [], color=colour, marker="o", markersize=3) for colour in _colours(len(names))]
    across = min(3, len(names))
    figure.legend(
        lines,
        [shorten(name, 22, placeholder="...") for name in names],
        loc="upper left",
        bbox_to_anchor=(left - 0.01, 0.94, width + 0.02, 0),
        mode="expand",
        ncols=across,
        fontsize=7,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
        handletextpad=0.4,
        borderpad=0.2,
        labelspacing=0.2,
    )
    return -(-len(names) // across)


def _colours(number: int) -> list[Any]:
    return list(colormaps["tab10" if number <= 10 else "turbo"].resampled(number)(range(number)))


def _curve(series: pl.DataFrame, place: int) -> tuple[npt.NDArray[Any], ...]:
    """Times, medians, low and high values of a variable, with NaN where it paused: no line is drawn across."""
    seen = series.drop_nulls(f"mid_{place}")
    steps = np.diff(seen["bin"].to_numpy())
    pauses = np.flatnonzero(steps > 2 * np.median(steps)) + 1 if len(steps) else []
    at = seen["at"].to_numpy()
    values = (seen[f"{name}_{place}"].to_numpy() for name in ("mid", "low", "high"))
    return np.insert(at, pauses, at[pauses]), *(np.insert(value, pauses, np.nan) for value in values)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
