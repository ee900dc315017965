"""Answers of InfluxDB to statements in InfluxQL, as rows.

Belongs here: which forms a column may have there, and the reading of CSV. Does not belong here: the statements
(bucket.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from itertools import count
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from ionbeam_dagster.stores.timeseries import TIME
from ionbeam_dagster.stores.timeseries.influxdb.errors import InfluxError
from ionbeam_dagster.stores.timeseries.influxdb.names import FORMS, LAYER, decoded, stored_name

LONGEST_ROW = 1 << 24  # bytes of a row in an answer
# A statement that fails leaves out what follows it, and says nothing in CSV: so one follows that always has an answer.
END, END_BEGINS = "SHOW DATABASES", b"name,tags,name\n"


def whole(answer: bytes) -> bytes:
    """The answer to all statements before the last one, which tells that they had theirs; raises InfluxError."""
    found, end, _ = answer.rpartition(END_BEGINS)
    if not end:
        raise InfluxError(f"InfluxDB broke off its answer, which ends with {answer.decode(errors='replace')[-400:]!r}")
    return found


def parse(answer: bytes, schema: pa.Schema) -> pl.DataFrame:
    """An answer in CSV as rows with the columns of `schema`, and their layer; raises InfluxError for a broken one."""
    forms = forms_of(schema)
    types = {"layer": pa.string()} | {form.alias: form.kind for some in forms.values() for form in some}
    if not answer:
        return pl.DataFrame(schema.empty_table()).with_columns(pl.lit(None, pl.String).alias(LAYER))
    try:
        rows = pacsv.read_csv(
            BytesIO(answer),
            read_options=pacsv.ReadOptions(block_size=LONGEST_ROW),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(types), include_missing_columns=True, null_values=[""],
                strings_can_be_null=True, true_values=["true"], false_values=["false"],
            ),
        )  # fmt: skip
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InfluxError(f"an answer of InfluxDB cannot be read: {error}") from error
    kinds = pl.DataFrame(schema.empty_table()).schema
    columns = [_column(name, kind, forms[name]) for name, kind in kinds.items()]
    return pl.DataFrame(rows).select(*columns, pl.col("layer").alias(LAYER))


def _column(name: str, kind: pl.DataType, forms: Iterable[Form]) -> pl.Expr:
    values = [decoded(pl.col(form.alias)) if pa.types.is_string(form.kind) else pl.col(form.alias) for form in forms]
    return pl.coalesce([value.cast(kind) for value in values]).alias(name)


class Form(NamedTuple):
    """One of the tags and fields that may hold a column's values: its name here and in InfluxDB, and its type."""

    alias: str
    stored: str
    kind: pa.DataType


def forms_of(schema: pa.Schema) -> dict[str, list[Form]]:
    """The forms of each column of `schema`."""
    forms: dict[str, list[Form]] = {}
    number = count()
    for name, kind in pl.DataFrame(schema.empty_table()).schema.items():
        stored, plain = stored_name(name), pa.string() if kind == pl.String else pa.float64()
        types = {stored: plain} | {f"{stored}{suffix}": form for suffix, form in FORMS.items()}
        forms[name] = [Form(f"c{next(number)}", stored, kind) for stored, kind in types.items()]
    forms[TIME] = [Form("time", "time", pa.int64())]
    return forms
