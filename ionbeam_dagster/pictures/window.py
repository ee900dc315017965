"""Pictures of dataset windows: where the stations are and what they saw, as PNG.

Belongs here: the drawing of a map with the mean of one variable at each place, and beside it a few variables in time.
Does not belong here: what is drawn (aggregates.py), where the pictures are shown. Nothing global is touched (no
pyplot), so that threads may draw at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date

from ionbeam_dagster.pictures.aggregates import Aggregates, DrawnWindow, aggregated
from ionbeam_dagster.pictures.canvas import Box, Canvas, png, ticks
from ionbeam_dagster.pictures.ground import HEIGHT, INK, WIDTH, Extent, framed, stretch
from ionbeam_dagster.pictures.words import counted, period_of

LONGEST_TITLE = 56  # letters that have room beside the legend of the curves
LONGEST_NAMES = 100
_GRID = "#e5e7eb"
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
    canvas = Canvas()
    rows = sum(window.rows for window in windows)
    found = aggregated([window for window in windows if window.rows]) if rows else None
    _write_title(canvas, windows, rows, found)
    if found is None:
        canvas.write(0.5, 0.45, "no observations", 15, anchor="ms")
    else:
        _draw_map(canvas, found)
        _draw_series(canvas, found, [gap for window in windows for gap in window.gaps])
    return png(canvas)


def _write_title(canvas: Canvas, windows: list[DrawnWindow], rows: int, found: Aggregates | None) -> None:
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
        canvas.write(0.14, 0.947, shorten(title, LONGEST_NAMES, placeholder=" ..."))
        title = f"{len(names)} datasets"
    canvas.write(0.012, 0.945, title, 13, INK, bold=True)
    canvas.write(0.012, 0.895, "   ·   ".join(parts), 9)


def _draw_map(canvas: Canvas, found: Aggregates) -> None:
    box: Box = (0.055, 0.07, 0.43, 0.755)
    left, bottom, width, height = box
    extent = framed(found.extent, width * WIDTH / (height * HEIGHT))
    canvas.draw_map(box, extent)
    if found.tracks.height:
        canvas.track(
            box, extent, found.tracks.select(pl.col("lon", "lat").cast(pl.Float64).fill_null(np.nan)).to_numpy()
        )
    means = found.cells["value"].drop_nulls()
    scale = _draw_cells(canvas, box, extent, found)
    if len(means):
        only = f" {means[0]:.1f}" if len(means) == 1 else ""
        canvas.write(left, bottom + height + 0.012, f"{found.quantities[0].label}, mean{only}", 8.5, INK)
    if len(means) > 1:
        _draw_scale(canvas, (left + 1.025 * width, bottom, 0.028 * width, height), scale)
    if found.outside:
        note = f"{counted(found.outside, 'place')} outside this map"
        canvas.write(left + width - 0.005, bottom + 0.012, note, anchor="rs")
    if extent[3] - extent[2] < 3:
        _draw_locator(canvas, box, extent, found.cells)


def _draw_cells(canvas: Canvas, box: Box, extent: Extent, found: Aggregates) -> Normalize:
    """Points coloured by value, the warmest on top; grey where there is no value. Colours span 2 to 98 % of values."""
    cells = found.cells
    radius = math.sqrt(min(max(9000 / cells.height, 3.0), 42.0)) / 2 * 100 / 72
    silent, seen = cells.filter(pl.col("value").is_null()), cells.drop_nulls("value").sort("value", "lon", "lat")
    low, high = seen["value"].quantile(0.02), seen["value"].quantile(0.98)
    scale = Normalize(low, high if high != low else None)
    canvas.dots(box, extent, silent.select("lon", "lat").to_numpy(), "#9ca3af", 0.8 * radius)
    if seen.height:
        colours = colormaps["turbo"](scale(seen["value"].to_numpy()), bytes=True)[:, :3]
        edge = INK if cells.height <= 400 and not found.tracks.height else None  # those of a drive cover each other
        canvas.dots(box, extent, seen.select("lon", "lat").to_numpy(), colours, radius, edge)
    return scale


def _draw_scale(canvas: Canvas, box: Box, scale: Normalize) -> None:
    left, bottom, width, height = box
    if scale.vmin is None or scale.vmax is None or scale.vmin == scale.vmax:
        return
    edges = np.linspace(bottom, bottom + height, 65)
    for number, colour in enumerate(colormaps["turbo"](np.linspace(0, 1, 64))):
        canvas.fill(left, edges[number], left + width, edges[number + 1], to_hex(colour))
    for value in ticks(scale.vmin, scale.vmax, 8):
        canvas.write(
            left + width + 0.005, bottom + height * float(scale(value)), f"{value:.6g}", colour=INK, anchor="lm"
        )


def _draw_locator(canvas: Canvas, box: Box, extent: Extent, cells: pl.DataFrame) -> None:
    """A small map of the region in the emptiest corner: a city's own map has no coast to know it by."""
    west, east, south, north = extent
    x, y = (cells["lon"] - west) / (east - west), (cells["lat"] - south) / (north - south)
    corners = [(0.0, 0.0), (0.72, 0.0), (0.0, 0.72), (0.72, 0.72)]
    busy = [((x >= a) & (x <= a + 0.28) & (y >= b) & (y <= b + 0.28)).sum() for a, b in corners]
    a, b = corners[busy.index(min(busy))]
    left, bottom, width, height = box
    inset: Box = (left + a * width, bottom + b * height, 0.28 * width, 0.28 * height)
    lon, lat, high = (west + east) / 2, (south + north) / 2, 16.0
    wide = high * stretch(lat) * width * WIDTH / (height * HEIGHT)
    middle = min(max(lat, high / 2 - 90), 90 - high / 2)
    canvas.draw_ground(inset, (lon - wide / 2, lon + wide / 2, middle - high / 2, middle + high / 2), graticule=False)
    at = inset[0] + inset[2] / 2, inset[1] + inset[3] * (lat - middle + high / 2) / high
    size = inset[2] * (east - west) / wide, inset[3] * (north - south) / high
    canvas.frame((at[0] - size[0] / 2, at[1] - size[1] / 2, *size), CURVES[0], 1)
    canvas.spots([at], CURVES[0], 2)


def _draw_series(canvas: Canvas, found: Aggregates, gaps: Iterable[tuple[datetime, datetime]]) -> None:
    left, bottom, width, height = 0.605, 0.07, 0.37, 0.822
    if not found.quantities:
        canvas.write(left + width / 2, 0.45, "no values", 12, anchor="ms")
        return
    gaps = list(gaps)
    by_dataset = {name: series for (name,), series in found.series.partition_by("dataset", as_dict=True).items()}
    several = len(by_dataset) > 1
    if several:
        height -= 0.03 * _write_legend(canvas, list(by_dataset), left, width)
    number = len(found.quantities)
    each = height / number
    legend = ("median of each dataset" if several else "median and 10–90 %") + (
        "   ·   hatched: not collected" if gaps else ""
    )
    canvas.write(left + width, 0.95, legend, 8, anchor="rs")
    for place, quantity in enumerate(found.quantities):
        colours = _colours(len(by_dataset)) if several else [CURVES[place]]
        curves = [_curve(series, place) for series in by_dataset.values()]
        panel = _Panel.of(canvas, (left, bottom + (number - 1 - place) * each, width, each - 0.067), found, curves)
        panel.draw_frame(gaps, has_times=place == number - 1)
        for curve, colour in zip(curves, colours, strict=True):
            panel.draw_curve(curve, colour, with_band=not several)  # of many the bands would cover each other
        canvas.write(left, panel.box[1] + panel.box[3] + 0.012, quantity.label, 8.5, INK)


Curve = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, slots=True)
class _Panel:
    """The curves of one quantity: where they stand, and from which to which time (in days) and value they reach."""

    canvas: Canvas
    box: Box
    begins: float
    ends: float
    low: float
    high: float

    @classmethod
    def of(cls, canvas: Canvas, box: Box, found: Aggregates, curves: Sequence[Curve]) -> _Panel:
        values = np.concatenate([values for _, *several in curves for values in several] or [np.empty(0)])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        margin = 0.05 * (high - low) or 0.05 * abs(low) or 1.0
        return cls(canvas, box, date2num(found.start), date2num(found.end), low - margin, high + margin)

    def at(self, times: npt.NDArray[Any], values: npt.NDArray[Any]) -> list[tuple[float, float]]:
        left, bottom, width, height = self.box
        x = left + width * (times - self.begins) / (self.ends - self.begins)
        return list(
            zip(x.tolist(), (bottom + height * (values - self.low) / (self.high - self.low)).tolist(), strict=True)
        )

    def draw_frame(self, gaps: Iterable[tuple[datetime, datetime]], has_times: bool) -> None:
        left, bottom, width, height = self.box
        for moments in gaps:
            ends = np.clip([date2num(one) for one in moments], self.begins, self.ends)
            (x1, _), (x2, _) = self.at(ends, np.array([self.low, self.low]))
            self.canvas.hatch(x1, bottom, x2, bottom + height, "#f3f4f6", "#d1d5db")
        locator = AutoDateLocator(minticks=3, maxticks=7)
        times = [
            one for one in locator.tick_values(*num2date([self.begins, self.ends])) if self.begins <= one <= self.ends
        ]
        words = ConciseDateFormatter(locator, show_offset=False).format_ticks(times)
        for (x, _), word in zip(self.at(np.array(times), np.full(len(times), self.low)), words, strict=True):
            self.canvas.line([(x, bottom), (x, bottom + height)], _GRID, 0.8)
            if has_times:
                self.canvas.write(x, bottom - 0.012, word, anchor="mt")
        values = np.array(ticks(self.low, self.high, 4))
        for (_, y), value in zip(self.at(np.full(len(values), self.begins), values), values, strict=True):
            self.canvas.line([(left, y), (left + width, y)], _GRID, 0.8)
            self.canvas.write(left - 0.006, y, f"{value:.6g}", anchor="rm")
        self.canvas.line([(left, bottom + height), (left, bottom), (left + width, bottom)], "#9ca3af", 0.8)

    def draw_curve(self, curve: Curve, colour: str, with_band: bool) -> None:
        times, middle, low, high = curve
        for part in np.split(np.arange(len(times)), np.flatnonzero(np.isnan(middle))):
            part = part[~np.isnan(middle[part])]
            if with_band and len(part) > 1:
                edges = self.at(times[part], low[part]) + self.at(times[part], high[part])[::-1]
                red, green, blue = (0.84 + 0.16 * part for part in to_rgb(colour))
                self.canvas.area(edges, to_hex((red, green, blue)))
            if len(part) > 1:
                self.canvas.line(self.at(times[part], middle[part]), colour, 1.8)
            self.canvas.spots(self.at(times[part], middle[part]), colour, 1.5)


def _write_legend(canvas: Canvas, names: list[str], left: float, width: float) -> int:
    """The datasets in the colours of their curves, above these; returns how many lines it takes."""
    across = min(3, len(names))
    for number, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True)):
        line, column = divmod(number, across)
        x, y = left + column * width / across, 0.915 - 0.03 * line
        canvas.line([(x, y), (x + 0.014, y)], colour, 1.5)
        canvas.spots([(x + 0.007, y)], colour, 2)
        canvas.write(x + 0.019, y, shorten(name, 22, placeholder="..."), 7, INK, "lm")
    return -(-len(names) // across)


def _colours(number: int) -> list[str]:
    return [to_hex(one) for one in colormaps["tab10" if number <= 10 else "turbo"].resampled(number)(range(number))]


def _curve(series: pl.DataFrame, place: int) -> Curve:
    """Times in days, medians, low and high values of a variable, with NaN where it paused: no line is drawn across."""
    seen = series.drop_nulls(f"mid_{place}")
    steps = np.diff(seen["bin"].to_numpy())
    pauses = np.flatnonzero(steps > 2 * np.median(steps)) + 1 if len(steps) else np.empty(0, np.intp)
    at = date2num(seen["at"].to_numpy())
    values = (seen[f"{name}_{place}"].to_numpy() for name in ("mid", "low", "high"))
    return np.insert(at, pauses, at[pauses]), *(np.insert(value, pauses, np.nan) for value in values)
