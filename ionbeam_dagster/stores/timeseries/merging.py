"""Rows of one station and time, which came one after the other, become one point.

Belongs here: what of them the point has. Does not belong here: where the rows are kept, or in which order they came
(segments.py, influxdb/).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ionbeam_dagster.domain.geo import great_circle

ONE_SITE = 1_000.0
"""m: of rows of one station and time that are further apart, only those where the latest is are of the point."""


def merged(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """One row for each point of `rows`, which come in order of arrival: of each column the latest value not null.

    A point is at one place: rows that are further than `ONE_SITE` from where its latest row is are not of it.
    """
    rows = rows.sort(order, maintain_order=True)
    again = rows.select(
        pl.all_horizontal(pl.col(column).eq_missing(pl.col(column).shift(1)) for column in order)
    ).to_series()
    if not again.any():
        return rows
    point = np.cumsum(~again.to_numpy())
    elsewhere = _elsewhere(rows, point)
    if elsewhere.any():
        rows, point = rows.filter(~elsewhere), point[~elsewhere]
    first = np.flatnonzero(np.diff(point, prepend=0))
    last = np.append(first[1:], rows.height) - 1
    return rows.select(_latest_not_null(column, first, last) for column in rows)


def _elsewhere(rows: pl.DataFrame, point: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which rows are far from the latest row of their point; `point` numbers them."""
    lat, lon = (rows[axis].to_numpy() for axis in ("lat", "lon"))
    latest = np.searchsorted(point, point, side="right") - 1
    moved: npt.NDArray[np.bool_] = (lat != lat[latest]) | (lon != lon[latest])
    if moved.any():
        ends = (values[places] for places in (moved, latest[moved]) for values in (lat, lon))
        moved[moved] = great_circle(*ends) > ONE_SITE
    return moved


def _latest_not_null(column: pl.Series, first: np.ndarray, last: np.ndarray) -> pl.Series:
    """Of each run of rows `first`..`last` of a column the last value that is not null, or null when there is none."""
    position = np.where(column.is_not_null().to_numpy(), np.arange(len(column)), -1)
    found = np.maximum.accumulate(position)[last]
    return column.gather(pl.Series(np.where(found >= first, found, first)))
