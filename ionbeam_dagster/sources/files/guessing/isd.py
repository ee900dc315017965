"""Cells with a value and codes in one text, as NOAA's Integrated Surface Database has them.

Belongs here: that one layout, whose cells say nothing of themselves. Does not belong here: quantities with a column of
their own (quantities.py).
"""

from __future__ import annotations

from typing import Any

import polars as pl

from ionbeam_dagster.sources.files.guessing.statements import ITEM, Statement

_CODES = {"pattern": ",(.)$", "good": [1, 5], "poor": [2, 3, 6, 7]}
_CELLS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "TMP": (
        r"^[+-]\d{4},.$",
        [{"column": "TMP", "pattern": "^([+-][0-9]{4}),", "scale": 0.1, "standard_name": "air_temperature",
          "cf_unit": "degC", "level": 2, "quality": {"column": "TMP", **_CODES}}],
    ),
    "DEW": (
        r"^[+-]\d{4},.$",
        [{"column": "DEW", "pattern": "^([+-][0-9]{4}),", "scale": 0.1, "standard_name": "dew_point_temperature",
          "cf_unit": "degC", "level": 2, "quality": {"column": "DEW", **_CODES}}],
    ),
    "SLP": (
        r"^\d{5},.$",
        [{"column": "SLP", "pattern": "^([0-9]{5}),", "scale": 0.1, "standard_name": "air_pressure_at_mean_sea_level",
          "cf_unit": "hPa", "quality": {"column": "SLP", **_CODES}}],
    ),
    "WND": (
        r"^\d{3},.,.,\d{4},.$",
        [{"column": "direction", "read_from": "WND", "pattern": "^([0-9]{3}),", "standard_name": "wind_from_direction",
          "cf_unit": "degree", "level": 10},
         {"column": "speed", "read_from": "WND", "pattern": "^.*,([0-9]{4}),.$", "scale": 0.1,
          "standard_name": "wind_speed", "cf_unit": "m s-1", "level": 10}],
    ),
    "VIS": (
        r"^\d{6},",
        [{"column": "VIS", "pattern": "^([0-9]{6}),", "standard_name": "visibility_in_air", "cf_unit": "m"}],
    ),
}  # fmt: skip
MISSING = [9999, 999, 99999, 999999]


def of_cells(rows: pl.DataFrame) -> list[Statement]:
    """An entry of `variables` for each quantity in the cells of such columns."""
    known = [name for name, (form, _) in _CELLS.items() if name in rows.columns and _all_are(rows[name], form)]
    return [
        Statement(
            ITEM, entry, "sure", "the cells are those of NOAA's ISD; the codes that are good and poor are its own"
        )
        for name in known
        for entry in _CELLS[name][1]
    ]


def _all_are(given: pl.Series, form: str) -> bool:
    texts = given.drop_nulls().str.strip_chars() if given.dtype == pl.String else pl.Series([], dtype=pl.String)
    texts = texts.filter(texts != "")
    return len(texts) > 0 and bool(texts.str.contains(form).all())
