"""A picture of what was heard of a source: where stations fell silent, and rows and lateness hour by hour.

Belongs here: its drawing. Does not belong here: which stations are silent (domain/silence.py).
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.domain.windows import DAY, HOUR
from ionbeam_dagster.pictures.ground import (
    DPI,
    FAINT,
    HEIGHT,
    INK,
    WIDTH,
    bulk,
    draw_graticule,
    draw_ground,
    framed,
    png,
    write_above,
)
from ionbeam_dagster.pictures.words import counted

_HEARD, _SILENT, _LATE = "#0f766e", "#b91c1c", "#1d4ed8"
_MOST_DRAWN = 50_000
"""Stations that come: more of them would show no more."""


def heard_picture(source: str, told: Told) -> bytes:
    """A PNG (900 x 420): a map of the stations, those that fell silent on top, and a week of rows and lateness."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    silent = told.silent.height
    parts = [f"until {told.until:%Y-%m-%d %H:%M} UTC", f"{counted(told.heard, 'station')} heard in a week",
             f"{silent:,} fell silent"]  # fmt: skip
    figure.text(0.012, 0.945, source, fontsize=13, weight="bold", color=INK)
    figure.text(0.012, 0.895, "   ·   ".join(parts), fontsize=9, color=_SILENT if silent else FAINT)
    _draw_map(figure, told)
    _draw_curves(figure, told)
    return png(figure)


def _draw_map(figure: Figure, told: Told) -> None:
    left, bottom, width, height = 0.055, 0.07, 0.43, 0.755
    placed = told.stations.drop_nulls(["lat", "lon"])
    if placed.is_empty():
        figure.text(left + width / 2, 0.45, "no places", ha="center", fontsize=12, color=FAINT)
        return
    axes = figure.add_axes((left, bottom, width, height))
    draw_ground(
        axes, framed(bulk(placed["lon"].to_numpy(), placed["lat"].to_numpy()), width * WIDTH / (height * HEIGHT))
    )
    draw_graticule(axes)
    silent, others = placed.filter("silent"), placed.filter(~pl.col("silent"))
    others = others.gather_every(-(-others.height // _MOST_DRAWN) or 1)
    size = float(np.clip(6000 / placed.height, 2.0, 24.0))
    axes.scatter(others["lon"], others["lat"], s=size, c=_HEARD, linewidths=0, alpha=0.6, zorder=4, label="heard")
    axes.scatter(silent["lon"], silent["lat"], s=size + 8, c=_SILENT, linewidths=0, zorder=5, label="fell silent")
    axes.legend(loc="lower left", fontsize=7.5, frameon=True, framealpha=0.85, edgecolor="none", borderpad=0.3)
    write_above(axes, "stations, and those that fell silent")


def _draw_curves(figure: Figure, told: Told) -> None:
    left, width = 0.605, 0.37
    at = date2num(told.hours["hour"].to_list())
    rows = figure.add_axes((left, 0.52, width, 0.31))
    rows.stairs(told.hours["rows"], [*at, at[-1] + 1 / 24], fill=True, color=_HEARD, alpha=0.25, linewidth=0)
    rows.stairs(told.hours["rows"], [*at, at[-1] + 1 / 24], baseline=None, color=_HEARD, linewidth=1)
    rows.set_ylim(bottom=0)
    write_above(rows, "rows an hour")
    late = figure.add_axes((left, 0.07, width, 0.31))
    for name, colour in (("latest", _LATE), ("late", FAINT)):
        minutes = [None if value is None else value / 60 for value in told.hours[name]]
        late.plot(at, np.array(minutes, float), color=colour, linewidth=1.2, marker="o", markersize=2.5)
    late.set_ylim(bottom=0)
    write_above(late, "minutes late in the last day: half, 95 % (blue)")
    hours = told.hours["hour"].to_list()
    for axes, begins in ((rows, hours[0]), (late, max(hours[0], hours[-1] - DAY))):
        _finish(axes, begins, hours[-1] + HOUR)


def _finish(axes: Axes, begins: datetime, ends: datetime) -> None:
    axes.set_xlim(date2num(begins), date2num(ends))
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axes.tick_params(labelsize=7.5, length=2, colors=FAINT)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color="#9ca3af", linewidth=0.6)
