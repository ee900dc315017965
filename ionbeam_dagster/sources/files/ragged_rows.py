"""Rows of a CSV that have more or fewer cells than its header.

Belongs here: what is taken of such rows, and what is told of them. Does not belong here: finding them (csv_files.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow.csv as pa_csv

from ionbeam_dagster.sources.files.readers import PROBLEM, ROW
from ionbeam_dagster.sources.files.written import CsvDialect


def ragged_rows(
    rows: Sequence[pa_csv.InvalidRow], lines: np.ndarray, dialect: CsvDialect, width: int, columns: Mapping[str, str]
) -> pl.DataFrame:
    """Such rows with their lines: with their cells, where the dialect lets rows have others than `width`, else with
    what is wrong. `columns` are the places of the header, by name, that are wanted."""
    told = pl.DataFrame({ROW: lines, PROBLEM: [_reason(row) for row in rows]})
    may_be = pl.Series([dialect.ragged and row.text.strip() != "" and "\n" not in row.text for row in rows])
    if not may_be.any():
        return told
    taken = [row for row, is_one in zip(rows, may_be, strict=True) if is_one]
    widest = max(width, *(row.actual_columns for row in taken))
    cells = _cells(taken, dialect, widest)
    if cells is None:
        return told
    beyond = [pl.col(str(place)).str.strip_chars() != "" for place in range(width, widest)]
    would_lose = pl.lit(cells.select(pl.any_horizontal(pl.lit(False), *beyond).fill_null(False)).to_series())
    found = told.filter(may_be).with_columns(
        pl.when(would_lose).then(PROBLEM),
        *(pl.when(~would_lose).then(pl.lit(cells[key].fill_null(""))).alias(column) for column, key in columns.items()),
    )
    return pl.concat([told.filter(~may_be), found], how="diagonal")


def _cells(rows: Sequence[pa_csv.InvalidRow], dialect: CsvDialect, widest: int) -> pl.DataFrame | None:
    """The cells of rows with up to `widest`; None where a quote within one makes them no rows."""
    of_all = dialect.delimiter * (widest - 1)  # the first row decides how many there are
    try:
        cells = pl.read_csv(
            "\n".join([of_all, *(row.text for row in rows)]).encode(),
            has_header=False,
            schema={str(place): pl.String for place in range(widest)},
            separator=dialect.delimiter,
            quote_char=dialect.mark,
        )
    except pl.exceptions.PolarsError:
        return None
    return cells[1:] if cells.height == len(rows) + 1 else None


def _reason(row: pa_csv.InvalidRow) -> str:
    """Why a row could not be split into the header's columns, with its text."""
    lines = row.text.count("\n") + 1
    if lines > 1:
        return f"a quote that opens in this line runs over {lines} lines: {row.text[:200]!r}"
    return f"{row.actual_columns} cells where the header has {row.expected_columns}: {row.text[:200]!r}"
