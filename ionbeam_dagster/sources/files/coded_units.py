"""Rows whose unit a code of theirs says: which factors each has, and which rows cannot be read.

Belongs here: the codes of rows. Does not belong here: what a block says of them (unit_codes.py), or other values of
rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from ionbeam_dagster.sources.files.config import FileVariable
from ionbeam_dagster.sources.files.readers import PROBLEM
from ionbeam_dagster.sources.files.times import present
from ionbeam_dagster.sources.files.unit_codes import WEEWX, contradicted


def contradictions(variables: Sequence[FileVariable]) -> dict[str, Mapping[str, str]]:
    """The variables whose unit in the block is not that of weewx's column of their name by some of its codes, each with
    those codes and their units."""
    units = {one.column: one.unit or one.cf_unit for one in variables if one.column == one.stands_in}
    found = {column: contradicted(column, unit) for column, unit in units.items() if isinstance(unit, str)}
    return {column: codes for column, codes in found.items() if codes}


def with_refused_codes(
    frame: pl.DataFrame, variables: Sequence[FileVariable], by_weewx: Mapping[str, Mapping[str, str]]
) -> pl.DataFrame:
    """`frame` without the times of rows whose code says no unit, or another one than the block does; they say so.
    `by_weewx` are its contradictions."""
    for one in variables:
        if one.unit_codes is None:
            continue
        column, code = one.unit_codes.column, _code(one.unit_codes.column)
        known = code.is_in([*one.unit_codes.units]).fill_null(False)
        told = code.fill_null("empty")
        why = pl.format(f"{one.column}: {column} is {{}}, of which `unit` says nothing; state its unit there", told)
        frame = set_aside(frame, _has_value(one.column) & ~known, why)
    if WEEWX not in frame.columns or frame[WEEWX].null_count() == frame.height:
        return frame
    for name, wrong in by_weewx.items():
        code = _code(WEEWX)
        is_wrong = _has_value(name) & code.is_in([*wrong]).fill_null(False)
        unit = code.replace_strict(dict(wrong), default="")
        why = pl.format(
            f"{name}: {WEEWX} is {{}}, by which it is in {{}}, and the block says otherwise; state what its codes "
            f"mean: `unit` with `column: {WEEWX}` and `units`",
            code, unit,
        )  # fmt: skip
        frame = set_aside(frame, is_wrong, why)
    return frame


def factors_by_code(column: str, of_code: Mapping[str, tuple[float, float]]) -> tuple[pl.Expr, pl.Expr]:
    """Scale and offset of each row by its code; null for codes without a unit."""
    code = _code(column)
    scale, offset = (
        code.replace_strict({one: pair[n] for one, pair in of_code.items()}, default=None, return_dtype=pl.Float64)
        for n in (0, 1)
    )
    return scale, offset


def set_aside(frame: pl.DataFrame, rows: pl.Expr, why: pl.Expr) -> pl.DataFrame:
    """`frame`, in which some rows have no time, and say why."""
    return frame.with_columns(
        pl.when(~rows).then(pl.col("datetime")), pl.when(rows).then(why).otherwise(pl.col(PROBLEM)).alias(PROBLEM)
    )


def _has_value(column: str) -> pl.Expr:
    return present(pl.col(column).cast(pl.String).str.strip_chars()).is_not_null()


def _code(column: str) -> pl.Expr:
    """A column of codes as texts; whole numbers without a fraction, however they are written."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return present(text.str.replace(r"^([0-9]+)\.0*$", "$1"))
