"""JSON lines: the log that a station's `ionbeam_client.influx` writes, and others with one object a line.

Belongs here: reading them, and telling which lines are none. Does not belong here: what names mean (logs.py).

A row of the log is ``{"timestamp": ns, "measurement": ..., "tags": {...}, "fields": {...}}``. A name is that of an
entry of the object itself, of a field, or of a tag; the first of these that has a value is taken.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import polars as pl

from ionbeam_dagster.sources.files.logs import MEASUREMENT, TIME, LogReader, meanings, moments, refuse_missing
from ionbeam_dagster.sources.files.readers import PROBLEM, ROW, Place, Unreadable, refusals
from ionbeam_dagster.sources.files.text_lines import MARK, blocks, opened

_SAMPLE = 64 * 1024  # bytes of which the names are told, where one is missing
_SHOWN = 200


class JsonLinesReader(LogReader):
    """JSON lines. Its columns are texts, but for the time of a log."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        missing = {column: _written(column) for column in self.named(path)}
        sample = b""
        with refusals(), opened(path, self.config.member) as file:
            start = len(MARK) if file.read(len(MARK)) == MARK else 0
            for offset, line, block in blocks(file, start, whole_lines, 1, quote=None):
                missing = {column: form for column, form in missing.items() if not form.search(block)}
                sample = sample or block[: block.find(b"\n", _SAMPLE) + 1 or len(block)]
                yield (0, 0, offset, len(block), line), sha256(block).hexdigest()[:16]
        if missing:
            refuse_missing(list(missing), _names(sample))

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        with refusals(), opened(path, self.config.member) as file:
            for place in places:
                *_, offset, length, line = place
                file.seek(offset)
                yield place, self._frame(file.read(length), columns, line)

    def _frame(self, body: bytes, columns: Sequence[str], line: int) -> pl.DataFrame:
        lines = (
            pl.Series("line", [str(body, "utf-8", "replace")])
            .str.split("\n")
            .explode()
            .to_frame()
            .with_row_index(ROW, line)
        )
        lines = lines.with_columns(pl.col(ROW).cast(pl.Int64)).filter(pl.col("line").str.strip_chars() != "")
        lines = lines.with_columns(_fault().alias(PROBLEM))
        found = _parsed(lines, columns)
        if found is None:
            whole = pl.col("line").str.json_path_match("$").is_not_null()
            torn = _told("is not whole JSON: its writer was killed, or it was edited")
            lines = lines.with_columns(pl.coalesce(PROBLEM, pl.when(~whole).then(torn)).alias(PROBLEM))
            found = _parsed(lines, columns)
        if found is None:
            raise Unreadable(f"lines {line} to {lines[ROW][-1]} cannot be read as JSON lines; correct the file")
        values = [_value(column).alias(column) for column in columns]
        frame = found.with_columns(values).select(*columns, ROW, PROBLEM)
        return self._timed(frame) if self.has_own_time and TIME in columns else frame

    def _timed(self, frame: pl.DataFrame) -> pl.DataFrame:
        given = frame[TIME]
        number = given.cast(pl.Int64, strict=False)
        why = pl.format("timestamp: {} is no whole number of nanoseconds since 1970", pl.lit(given).fill_null("none"))
        return frame.with_columns(
            moments(number).alias(TIME),
            pl.coalesce(PROBLEM, pl.when(pl.lit(number).is_null()).then(why)).alias(PROBLEM),
        )


def _parsed(lines: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame | None:
    """The lines without a problem as the entries that `columns` may mean, and the others without any; None where one
    of the lines is no JSON."""
    names = {meaning.name for column in columns for meaning in meanings(column)}
    inner = pl.Struct(dict.fromkeys(sorted(names), pl.String()))
    top = {name: pl.String() for name in (*columns, TIME, MEASUREMENT) if name not in ("tags", "fields")}
    schema = top | {"tags": inner, "fields": inner}
    good = lines.filter(pl.col(PROBLEM).is_null())
    body = "\n".join(good["line"].to_list()).encode()
    try:
        # ignore_errors: a value of another kind than its neighbours' is no value; the other rows are read.
        found = (
            pl.read_ndjson(io.BytesIO(body), schema=schema, ignore_errors=True) if body else pl.DataFrame(schema=schema)
        )
    except pl.exceptions.PolarsError:
        return None
    if found.height != good.height:
        return None
    found = found.with_columns(good[ROW], good[PROBLEM])
    bad = lines.filter(pl.col(PROBLEM).is_not_null()).select(ROW, PROBLEM)
    return pl.concat([found, bad], how="diagonal").sort(ROW) if bad.height else found


def _value(column: str) -> pl.Expr:
    """What a row has under a name: texts, and numbers as they were written."""
    top = [] if column in ("tags", "fields") else [pl.col(column)]
    options = [*top]
    for measurement, name in meanings(column):
        value = pl.coalesce(pl.col("fields").struct.field(name), pl.col("tags").struct.field(name))
        options.append(value if measurement is None else pl.when(pl.col(MEASUREMENT) == measurement).then(value))
    return pl.coalesce(options)


def _fault() -> pl.Expr:
    """What is wrong with a line at first sight."""
    text = pl.col("line").str.strip_chars_start()
    return (
        pl.when(~text.str.starts_with("{"))
        .then(_told("is no JSON object"))
        .when(text.str.contains("\ufffd", literal=True))
        .then(_told("is not UTF-8 text"))
    )


def _told(what: str) -> pl.Expr:
    return pl.format(what + ": {}", pl.col("line").str.slice(0, _SHOWN))


def _written(column: str) -> re.Pattern[bytes]:
    """The expression that finds a name as JSON has it."""
    names = {json.dumps(one.name, ensure_ascii=ascii) for one in meanings(column) for ascii in (True, False)}
    return re.compile(b"|".join(re.escape(name.encode()) + rb"\s*:" for name in sorted(names)))


def _names(sample: bytes) -> list[str]:
    """The names in some rows of a file."""
    try:
        found = pl.read_ndjson(io.BytesIO(sample), ignore_errors=True, infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return []
    names = [name for name in found.columns if name not in ("tags", "fields")]
    for part in ("fields", "tags"):
        kind = found.schema.get(part)
        names += [one.name for one in kind.fields] if isinstance(kind, pl.Struct) else []
    return names
