"""What quality control made of a dataset window: a map of what was flagged, and which test flagged how much of what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import columns_of
from ionbeam_dagster.domain.quality import TELLS_NOTHING_OF_THE_VALUE, Flag, Test
from ionbeam_dagster.pictures.canvas import Box, Canvas, png
from ionbeam_dagster.pictures.ground import HEIGHT, INK, WIDTH, bulk, framed

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
    canvas = Canvas()
    draw_worst(canvas, places)
    _draw_bars(canvas, bars)
    return png(canvas)


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


def draw_worst(canvas: Canvas, places: pl.DataFrame) -> None:
    """A map in the left half of places (lon, lat, worst: 0 good, 1 suspect, 2 bad)."""
    box: Box = (0.055, 0.07, 0.40, 0.80)
    left, bottom, width, height = box
    around = bulk(places["lon"].to_numpy(), places["lat"].to_numpy())
    extent = framed(around, width * WIDTH / (height * HEIGHT))
    canvas.draw_map(box, extent)
    shown = []
    for level, colour, radius, word in ((0, GOOD, 1.7, "good"), (1, SUSPECT, 3.2, "suspect"), (2, FAIL, 3.2, "bad")):
        some = places.filter(pl.col("worst") == level)
        canvas.dots(box, extent, some.select("lon", "lat").to_numpy(), colour, radius)
        shown.append(f"{some.height:,} {word}")
    words = f"places by their worst value: {', '.join(shown)}"
    canvas.write(left, bottom + height + 0.012, words, 8.5, INK)


def _draw_bars(canvas: Canvas, bars: list[tuple[str, int, int]]) -> None:
    left, bottom, width, height = 0.76, 0.09, 0.22, 0.78
    if not bars:
        canvas.write(left, bottom + height / 2, "nothing was flagged", 12, anchor="mm")
        return
    longest, each = max(suspect + bad for _, suspect, bad in bars), height / len(bars)
    for place, (label, suspect, bad) in enumerate(bars):
        middle, begins = bottom + height - (place + 0.5) * each, left
        for number, colour in ((suspect, SUSPECT), (bad, FAIL)):
            ends = begins + 0.8 * width * number / longest
            canvas.fill(begins, middle - 0.35 * each, ends, middle + 0.35 * each, colour)
            begins = ends
        canvas.write(left - 0.006, middle, label, colour=INK, anchor="rm")
        canvas.write(begins + 0.006, middle, f"{suspect + bad:,}", colour=INK, anchor="lm")
    top = bottom + height + 0.012
    canvas.write(left, top, "values by failed test", 8.5, INK)
    for number, (word, colour) in enumerate((("suspect", SUSPECT), ("bad", FAIL))):
        begins = left - 0.155 + 0.085 * number
        canvas.fill(begins, top, begins + 0.018, top + 0.02, colour)
        canvas.write(begins + 0.024, top, word, colour=INK)
