"""Pictures of dataset windows: where the stations are and what they saw, as PNG.

Belongs here: the drawing of a map with the mean of one variable at each place, and beside it a few variables in time.
Does not belong here: what is drawn (aggregates.py), where the pictures are shown. Nothing global is touched (no
pyplot), so that threads may draw at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ionbeam_dagster.pictures.aggregates import Aggregates, DrawnWindow, aggregated
from ionbeam_dagster.pictures.ground import (
    DPI,
    FAINT,
    HEIGHT,
    INK,
    WIDTH,
    Extent,
    draw_graticule,
    draw_ground,
    framed,
    png,
    stretch,
    write_above,
)
from ionbeam_dagster.pictures.words import counted, period_of

LONGEST_TITLE = 56  # letters that have room beside the legend of the curves
LONGEST_NAMES = 100
CURVES = ("#b91c1c", "#1d4ed8", "#0f766e")


def window_picture(dataset_file: Path) -> bytes:
    """A PNG (900 x 420) of one dataset window; one without rows says so.

    Raises OSError or pyarrow's ArrowInvalid when the file cannot be read.
    """
    return map_of_windows([dataset_file])


def map_of_windows(files: Sequence[Path]) -> bytes:
    """A PNG (900 x 420) of several windows, of one dataset or several: means over all of them, one time axis.

    Several datasets have a curve each: a median over all of them would jump as one begins and another pauses.
    """
    windows = [DrawnWindow.of(file) for file in files]
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    rows = sum(window.rows for window in windows)
    found = aggregated([window for window in windows if window.rows]) if rows else None
    _write_title(figure, windows, rows, found)
    if found is None:
        figure.text(0.5, 0.45, "no observations", ha="center", fontsize=15, color=FAINT)
    else:
        _draw_map(figure, found)
        _draw_series(figure, found, [gap for window in windows for gap in window.gaps])
    return png(figure)


def _write_title(figure: Figure, windows: list[DrawnWindow], rows: int, found: Aggregates | None) -> None:
    about = windows[0].about if windows else {}
    starts = [moment for window in windows if (moment := window.moment("window_start"))]
    ends = [moment for window in windows if (moment := window.moment("window_end"))]
    parts = []
    if starts and ends:
        parts.append(period_of(min(starts), max(ends)))
    if len(windows) > 1:
        parts.append(f"{len(windows):,} windows")
    elif "revision" in about:
        parts.append(f"revision {about['revision']}")
    if found:
        places = f"{found.cells.height:,} places"
        parts.append(places if found.stations is None else counted(found.stations, "station"))
    parts.append(counted(rows, "row"))
    if len(windows) == 1 and about.get("coverage", 1) < 1:
        parts.append(f"{math.floor(100 * about['coverage'])} % of the window collected")
    names = dict.fromkeys(window.dataset for window in windows)
    title = ", ".join(names) or "dataset"
    if len(names) > 1 and len(title) > LONGEST_TITLE:
        figure.text(0.14, 0.947, shorten(title, LONGEST_NAMES, placeholder=" ..."), fontsize=7.5, color=FAINT)
        title = f"{len(names)} datasets"
    figure.text(0.012, 0.945, title, fontsize=13, weight="bold", color=INK)
    figure.text(0.012, 0.895, "   ·   ".join(parts), fontsize=9, color=FAINT)


def _draw_map(figure: Figure, found: Aggregates) -> None:
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
        note = f"{counted(found.outside, 'place')} outside this map"
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


def _draw_series(figure: Figure, found: Aggregates, gaps: Iterable[tuple[datetime, datetime]]) -> None:
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
                date2num(start), date2num(end), facecolor="#f3f4f6", edgecolor="#d1d5db", hatch="////", linewidth=0
            )
        axes.set_xlim(date2num(found.start), date2num(found.end))
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
    pauses = np.flatnonzero(steps > 2 * np.median(steps)) + 1 if len(steps) else np.empty(0, np.intp)
    at = seen["at"].to_numpy()
    values = (seen[f"{name}_{place}"].to_numpy() for name in ("mid", "low", "high"))
    return np.insert(at, pauses, at[pauses]), *(np.insert(value, pauses, np.nan) for value in values)
