"""Rows as lines for InfluxDB.

Belongs here: the writing of tags and fields. Does not belong here: what is sent when (store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from ionbeam_dagster.stores.timeseries import TIME
from ionbeam_dagster.stores.timeseries.influxdb.names import SEPARATORS, SERIES, encoded, escaped, stored_name

_NO_FIELD = "empty=true"


def line_protocol(head: str, frame: pl.DataFrame, tags: Sequence[str]) -> pl.Series:
    """The rows of `frame` as lines for InfluxDB, each with its line break.

    `head` is a measurement, perhaps with tags. Null tags, and null, NaN and infinite fields are left out.
    """
    distinct = frame.select(tags).unique()
    keys = [_tag(name, kind) for name, kind in distinct.schema.items()]
    distinct = distinct.with_columns(pl.concat_str(pl.lit(head), *keys, ignore_nulls=True).alias(SERIES))
    series = frame.select(tags).join(distinct, on=tags, how="left", nulls_equal=True, maintain_order="left")[SERIES]
    fields = [_field(frame[name]) for name in frame.columns if name not in (*tags, TIME)]
    moment = frame[TIME].dt.cast_time_unit("us").to_physical().cast(pl.String)
    pieces = [pl.lit(series), pl.lit(" "), *_joined(fields), pl.lit(" "), pl.lit(moment), pl.lit("\n")]
    return pl.select(pl.concat_str(pieces, ignore_nulls=True)).to_series()


def body_of(lines: pl.Series) -> bytes:
    """The text of `lines`, as it lies in memory."""
    text = lines.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, content = text.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[text.offset, text.offset + len(text)]]
    body: bytes = content[first:last].to_pybytes()
    return body


def _tag(name: str, kind: pl.DataType) -> pl.Expr:
    key = stored_name(name) if kind == pl.String else f"{stored_name(name)}|t"
    text = encoded(pl.col(name).cast(pl.String)).str.replace_many(SEPARATORS)
    return pl.concat_str(pl.lit(f",{escaped(key)}="), text)


def _field(values: pl.Series) -> tuple[str, pl.Series]:
    """What stands before the value of a field, and its values as they are written, null where there is none."""
    key, kind = escaped(stored_name(values.name)), values.dtype
    if kind.is_float():
        finite = values if values.is_finite().all(ignore_nulls=True) else values.set(~values.is_finite(), None)
        return f"{key}=", finite.cast(pl.Float64).cast(pl.String)
    if kind == pl.Boolean:
        return f"{key}|b=", values.cast(pl.String)
    if kind.is_integer():
        unit = "u" if kind == pl.UInt64 else "i"
        return f"{key}|{unit}=", values.cast(pl.String) + unit
    text = pl.concat_str(encoded(pl.lit(values.cast(pl.String))).str.replace_all('"', '\\"', literal=True), pl.lit('"'))
    return f'{key}|s="', pl.select(text).to_series()


def _joined(fields: Iterable[tuple[str, pl.Series]]) -> list[pl.Expr]:
    """The pieces of text that are the fields of each row; null ones are left out, with their comma."""
    ordered = sorted(fields, key=lambda field: field[1].null_count() > 0)
    if not ordered or ordered[0][1].null_count():
        present = [pl.concat_str(pl.lit(before), pl.lit(values)) for before, values in ordered]
        text = pl.concat_str(present, separator=",", ignore_nulls=True) if present else pl.lit("")
        return [pl.when(text == "").then(pl.lit(_NO_FIELD)).otherwise(text)]
    # Every row has the first field, so that no one has to ask whether there is a comma before the next.
    pieces: list[pl.Expr] = []
    for before, values in ordered:
        piece = [pl.lit(f",{before}" if pieces else before), pl.lit(values)]
        pieces += [pl.concat_str(piece)] if values.null_count() else piece
    return pieces
