"""What an export of dataset windows holds: a map of its places, and of each variable how its values are spread.

The rows are those of the dataset files that the export was made of, the variables those that its plan took: exporters
have read back by then what they wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import columns_of, quality_column, variable_of
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.pictures.canvas import Canvas, png
from ionbeam_dagster.pictures.flags import FAIL, GOOD, SUSPECT, draw_worst
from ionbeam_dagster.pictures.ground import INK

BINS = 24
COLUMNS, ROWS = 3, 3
COLOURS = GOOD, SUSPECT, FAIL


@dataclass(frozen=True, slots=True)
class _Spread:
    """`counts`: how many values fall into each bin (rows: good or not evaluated, suspect, bad) between low and high.

    Those are the bounds of what is not bad; a bad value beyond them stands at the edge.
    """

    name: str
    unit: str
    low: float
    high: float
    counts: npt.NDArray[np.int64]


def export_picture(dataset_files: Sequence[Path], mapped: Sequence[str]) -> bytes | None:
    """A PNG (900 x 420) of what an export took of `dataset_files`; None where that is nothing.

    Raises OSError or pyarrow's ArrowInvalid when one cannot be read.
    """
    fields = {field.name: field for file in reversed(dataset_files) for field in pq.read_schema(file)}
    schema = pa.schema(fields.values())
    scans = [pl.scan_parquet(file, glob=False) for file in dataset_files]
    rows = pl.concat(scans, how="diagonal_relaxed")
    types = rows.collect_schema()
    numeric = [name for name in columns_of(schema, "variable") if name in mapped and types[name].is_numeric()]
    flags = {name: quality_column(schema, name, "flag") for name in numeric}
    spreads = [found for name in numeric if (found := _spread(rows, schema.field(name), flags[name]))]
    if not spreads:
        return None
    worst = pl.max_horizontal(_kind(flags[name]) for name in numeric)
    some = pl.any_horizontal(pl.col(name).is_not_null() for name in numeric)
    places = (
        rows.filter(some)
        .group_by(pl.col("lon", "lat").round(3))
        .agg(worst.max().alias("worst"))
        .collect(engine="streaming")
    )
    canvas = Canvas()
    draw_worst(canvas, places)
    _draw_spreads(canvas, spreads)
    return png(canvas)


def _kind(flag: str | None) -> pl.Expr:
    """0 for what is good or not known, 1 for suspect, 2 for bad."""
    if flag is None:
        return pl.lit(0, pl.Int8)
    return (pl.col(flag) == Flag.SUSPECT).fill_null(False).cast(pl.Int8) + 2 * (
        (pl.col(flag) == Flag.FAIL).fill_null(False).cast(pl.Int8)
    )


def _spread(rows: pl.LazyFrame, field: object, flag: str | None) -> _Spread | None:
    variable = variable_of(field)
    name = variable.to_canonical_name()
    value = pl.col(name).cast(pl.Float64)
    finite = rows.filter(value.is_finite().fill_null(False))
    usable = value.filter(_kind(flag) < 2)
    bounds = [bound for one in (usable, value) for bound in (one.min(), one.max())]
    least, most, low, high = (
        finite.select(bound.alias(str(place)) for place, bound in enumerate(bounds)).collect(engine="streaming").row(0)
    )
    if low is None:
        return None
    low, high = (low, high) if least is None else (least, most)
    width = (high - low) / BINS or 1.0
    binned = ((value - low) / width).floor().clip(0, BINS - 1).cast(pl.Int32)
    found = finite.group_by(binned.alias("bin"), _kind(flag).alias("kind")).len().collect(engine="streaming")
    counts = np.zeros((len(COLOURS), BINS), np.int64)
    counts[found["kind"].to_numpy(), found["bin"].to_numpy()] = found["len"].to_numpy()
    return _Spread(variable.standard_name.replace("_", " "), variable.cf_unit, low, high, counts)


def _draw_spreads(canvas: Canvas, spreads: Sequence[_Spread]) -> None:
    for place, spread in enumerate(spreads[: COLUMNS * ROWS]):
        row, column = divmod(place, COLUMNS)
        left, bottom, width, height = 0.50 + column * 0.165, 0.70 - row * 0.315, 0.145, 0.20
        edges = np.linspace(left, left + width, BINS + 1)
        scale = height / max(int(spread.counts.sum(axis=0).max()), 1)
        tops = bottom + np.cumsum(spread.counts, axis=0) * scale
        for below, top, colour in zip((np.full(BINS, bottom), *tops), tops, COLOURS, strict=False):
            for bin in np.flatnonzero(top > below):
                canvas.fill(edges[bin], below[bin], edges[bin + 1], top[bin], colour)
        canvas.line([(left, bottom), (left + width, bottom)], width=0.7)
        words = spread.name if len(spread.name) < 30 else spread.name[:28] + "…"
        unit = f", {spread.unit}" if spread.unit != "1" else ""
        canvas.write(left, bottom + height + 0.035, words, 6.5, INK)
        canvas.write(left, bottom + height + 0.01, f"{spread.counts.sum():,} values{unit}", 6.5, INK)
        canvas.write(left, bottom - 0.01, f"{spread.low:.4g}", 6.5, INK, "lt")
        canvas.write(left + width, bottom - 0.01, f"{spread.high:.4g}", 6.5, INK, "rt")
    if len(spreads) > COLUMNS * ROWS:
        canvas.write(0.98, 0.015, f"and {len(spreads) - COLUMNS * ROWS} more variables", 7, anchor="rs")
