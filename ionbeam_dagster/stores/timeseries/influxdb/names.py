"""Names and texts of ours as they stand in InfluxDB.

Belongs here: what is written otherwise there, and read back. Does not belong here: lines (line_protocol.py) and
statements (influxql.py).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.windows import EPOCH

_OWN_NAMES = {"time", "error", "result", "table", "layer", "empty"}
_UNSAFE = {chr(code): f"%{code:02X}" for code in (*range(0x20), 0x7F, ord("%"), ord("\\"))}
_UNSAFE_IN_TEXTS = str.maketrans({**_UNSAFE})
_UNSAFE_IN_NAMES = str.maketrans(_UNSAFE | {'"': "%22", "|": "%7C"})
_EMPTY_TEXT = "%"  # no text becomes this one
SEPARATORS = {",": "\\,", "=": "\\=", " ": "\\ "}
_ESCAPES = str.maketrans({**SEPARATORS})
LAYER, FIRST, LAST, ARRIVAL, SERIES = (f"ionbeam.{name}" for name in ("layer", "first", "last", "arrival", "series"))
FORMS = {"|b": pa.bool_(), "|i": pa.int64(), "|u": pa.uint64(), "|s": pa.string(), "|t": pa.string()}


def encoded(text: pl.Expr) -> pl.Expr:
    return pl.when(text == "").then(pl.lit(_EMPTY_TEXT)).otherwise(text.str.replace_many(_UNSAFE))


def decoded(text: pl.Expr) -> pl.Expr:
    signs = {code: sign for sign, code in _UNSAFE.items()}
    return pl.when(text == _EMPTY_TEXT).then(pl.lit("")).otherwise(text.str.replace_many(signs))


def stored_text(text: str) -> str:
    return text.translate(_UNSAFE_IN_TEXTS) or _EMPTY_TEXT


def stored_name(name: str) -> str:
    """`name` as a tag or a field is called, apart from the names that have a meaning of their own."""
    if name in _OWN_NAMES or name.startswith("_"):
        return f"%{ord(name[0]):02X}{name[1:].translate(_UNSAFE_IN_NAMES)}"
    return name.translate(_UNSAFE_IN_NAMES)


def escaped(key: str) -> str:
    return key.translate(_ESCAPES)


def quoted(text: str) -> str:
    """`text`, which has no backslash, as InfluxQL writes it."""
    return "'" + text.replace("'", "\\'") + "'"


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)
