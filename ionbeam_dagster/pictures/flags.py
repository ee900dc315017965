"""What quality control made of a dataset window: a map of what was flagged, and which test flagged how much of what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ionbeam_dagster.domain.canonical import columns_of
from ionbeam_dagster.domain.quality import TELLS_NOTHING_OF_THE_VALUE, Flag, Test
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

SUSPECT, FAIL, GOOD = "#d97706", "#b91c1c", "#9ca3af"
_MOST_BARS = 14


def flags_picture(dataset_file: Path) -> bytes | None:
    """A PNG (900 x 420) of one dataset window; None where quality control looked at nothing.

    Raises OSError or pyarrow's ArrowInvalid when the file cannot be read.
    """
    schema = pq.read_schema(dataset_file)
    variables = [name for name in columns_of(schema, "variable") if f"{name}__flag" in schema.names]
    rows = pl.scan_parquet(dataset_file, glob=False)
    worst = pl.max_horizontal(_severity(name) for name in variables) if variables else None
    if worst is None or not rows.select(pl.len()).collect().item():
        return None
    places = rows.group_by(pl.col("lon", "lat").round(3)).agg(worst.max().alias("worst")).collect(engine="streaming")
    bars = list(_bars(rows, variables))[:_MOST_BARS]
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    draw_worst(figure, places)
    _draw_bars(figure, bars)
    return png(figure)


def _severity(variable: str) -> pl.Expr:
    """0 for what is good or not known, 1 for suspect, 2 for bad."""
    flag = pl.col(f"{variable}__flag")
    return (flag == Flag.SUSPECT).cast(pl.Int8) + 2 * (flag == Flag.FAIL).cast(pl.Int8)


def _bars(rows: pl.LazyFrame, variables: list[str]) -> Iterator[tuple[str, int, int]]:
    """For each variable and test: a label, how many values that failed it are suspect, and how many bad; most first."""
    tests = [test for test in Test if test != TELLS_NOTHING_OF_THE_VALUE]
    counts = [
        (pl.col(f"{name}__tests_failed") & int(test) > 0).and_(pl.col(f"{name}__flag") == flag).sum()
        .alias(f"{name} {test} {flag}")
        for name in variables for test in tests for flag in (Flag.SUSPECT, Flag.FAIL)
    ]  # fmt: skip
    found = rows.select(counts).collect(engine="streaming").row(0, named=True)
    told = [
        (f"{_name(name)}: {str(test.name).lower().replace('_', ' ')}", *(
            found[f"{name} {test} {flag}"] for flag in (Flag.SUSPECT, Flag.FAIL)
        ))
        for name in variables for test in tests
    ]  # fmt: skip
    yield from sorted((one for one in told if one[1] + one[2]), key=lambda one: -(one[1] + one[2]))


def _name(column: str) -> str:
    return column.split("__")[0].replace("_", " ")


def draw_worst(figure: Figure, places: pl.DataFrame) -> None:
    """A map in the left half of places (lon, lat, worst: 0 good, 1 suspect, 2 bad)."""
    left, bottom, width, height = 0.055, 0.07, 0.40, 0.80
    axes = figure.add_axes((left, bottom, width, height))
    extent = bulk(places["lon"].to_numpy(), places["lat"].to_numpy())
    draw_ground(axes, framed(extent, width * WIDTH / (height * HEIGHT)))
    draw_graticule(axes)
    shown = []
    for level, colour, size, word in ((0, GOOD, 6, "good"), (1, SUSPECT, 22, "suspect"), (2, FAIL, 22, "bad")):
        some = places.filter(pl.col("worst") == level)
        axes.scatter(some["lon"], some["lat"], s=size, c=colour, linewidths=0, zorder=4 + level)
        shown.append(f"{some.height:,} {word}")
    write_above(axes, f"places by their worst value: {', '.join(shown)}")


def _draw_bars(figure: Figure, bars: list[tuple[str, int, int]]) -> None:
    axes: Axes = figure.add_axes((0.76, 0.09, 0.22, 0.78))
    if not bars:
        axes.set_axis_off()
        axes.text(0.0, 0.5, "nothing was flagged", fontsize=12, color=FAINT, ha="center")
        return
    places = range(len(bars))
    suspect, bad = [bar[1] for bar in bars], [bar[2] for bar in bars]
    axes.barh(places, suspect, color=SUSPECT, height=0.7, label="suspect")
    axes.barh(places, bad, left=suspect, color=FAIL, height=0.7, label="bad")
    axes.set_yticks(list(places), [bar[0] for bar in bars], fontsize=7.5, color=INK)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7.5, length=0, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.legend(fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(-0.05, 1.0), ncols=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    write_above(axes, "values by failed test")
