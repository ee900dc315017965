"""Annotated CSV: the CSV log of a station's `ionbeam_client.influx`, and whatever else `influx write` takes.

Belongs here: tables below each other, each with a head of annotations and names, and their columns all at once. Does
not belong here: what an annotation says (ionbeam_client.influx.annotated), or what names mean (logs.py).

A log changes its head with every other measurement, so that a part of the file has many tables: the rows of all that
have the same head are read as one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ionbeam_client.influx.annotated import PLACEHOLDER, Column, Parts, Table
from ionbeam_client.influx.annotated_values import parser, time_of
from ionbeam_dagster.sources.files.logs import MEASUREMENT, TIME, UTC_TIME, LogReader, meanings, moments, refuse_missing
from ionbeam_dagster.sources.files.readers import EMPTY, PROBLEM, ROW, Place, Unreadable, refusals
from ionbeam_dagster.sources.files.text_lines import LONGEST_LINE, MARK, blocks, decoded, line_breaks, opened

_ANNOTATION = r'(?i)^"?#(?:group|datatype|default|constant|concat|timezone)\b'
_OF_COLUMNS = r'(?i)^"?#(?:group|datatype|default)\b'
_ZONE = re.compile(rb'(?im)^"?#timezone\b')
_RFC3339 = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)$"
_COMMENT = r'^"?#'
_NUMBERS = ("double", "long", "unsignedLong")
_NUMBER_FORMAT = ". \n\t\r_"
_SHOWN = 200


class AnnotatedCsvReader(LogReader):
    """Annotated CSV. Its columns are texts, but for the time."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        missing = {column: _written(column) for column in self.named(path)}
        names: dict[str, None] = {}
        with refusals(), opened(path, self.config.member) as file:
            separator, start = _separator(file)
            head_at, head, start, first = _first_head(file, start)
            zoned = bool(_ZONE.search(head))
            if whole_lines and not head.endswith(b"\n"):
                raise Unreadable(EMPTY)
            missing = {column: form for column, form in missing.items() if not form.search(head)}
            for offset, line, block in blocks(file, start, whole_lines, first):
                missing = {column: form for column, form in missing.items() if not form.search(block)}
                yield (head_at, len(head), offset, len(block), line), sha256(head + block).hexdigest()[:16]
                names |= dict.fromkeys(_names(head, separator))
                lines = _lines(block, line)
                begun = head if _is_annotation_alone(head) else b""
                at, later = _last_head(lines, block)
                if later and zoned:
                    raise Unreadable(
                        f"line {lines['number'][0]} or below: a second table under a #timezone; write each into a file "
                        "of its own"
                    )
                if later:
                    head_at, head = offset + at, later
                elif begun:
                    head = begun + block[: _end_of_first(lines, block)]
        refuse_missing(list(missing), list(names))

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        with refusals(), opened(path, self.config.member) as file:
            separator, _ = _separator(file)
            for place in places:
                head_at, head_length, offset, length, line = place
                file.seek(head_at)
                head = file.read(head_length)
                file.seek(offset)
                yield place, _frame(head, file.read(length), columns, line, separator)


def _separator(file: IO[bytes]) -> tuple[str, int]:
    """What divides columns, and where the first line begins that is not about that."""
    file.seek(0)
    line = file.readline(LONGEST_LINE)
    start = len(MARK) if line.startswith(MARK) else 0
    said = line[start:].rstrip(b"\r\n")
    if said.startswith(b"sep=") and len(said) > 4 and said[4:5] not in b',"':
        return said[4:5].decode("ascii", "replace"), len(line)
    return ",", start


def _first_head(file: IO[bytes], start: int) -> tuple[int, bytes, int, int]:
    """Where the head of the first table is, itself, where the rows begin, and in which line."""
    first = 1 + (start > len(MARK))
    file.seek(start)
    head = b""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise Unreadable("line 1 does not end within 1 MiB, so it is no CSV file; remove it, or set `format`")
        head += line
        if len(head) > LONGEST_LINE:
            raise Unreadable(
                "its head does not end within 1 MiB, so it is no annotated CSV; remove it, or set `format`"
            )
        if line.strip() and not re.match(_COMMENT.encode(), line) and head.count(b'"') % 2 == 0:
            break
    if head.count(b'"') % 2:
        names = first + head.count(b"\n", 0, head.find(b'"'))
        raise Unreadable(f"a quote that opens in line {names} does not close; correct the file")
    if not head:
        raise Unreadable(EMPTY)
    return start, head, start + len(head), first + head.count(b"\n")


# -- lines and heads ---------------------------------------------------------------------------------------------------


def _lines(data: bytes, first: int) -> pl.DataFrame:
    """The lines of `data` that are neither blank nor comments: ``line``, ``at`` (bytes), ``number`` (from `first`), and
    whether they are annotations (of columns); and ``table``, which counts the tables that begin in `data`, from 1."""
    ends = line_breaks(data) + 1
    starts = np.concatenate([[0], ends[ends < len(data)]]).astype(np.int32)
    decoded(data, "utf-8", first)
    texts = pa.StringArray.from_buffers(
        len(starts), pa.py_buffer(np.append(starts, np.int32(len(data)))), pa.py_buffer(data)
    )
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
    lines = pl.DataFrame(
        {"line": pl.Series(texts), "at": starts, "number": np.searchsorted(newlines, starts).astype(np.int64) + first}
    )
    text = pl.col("line")
    lines = lines.with_columns(
        text.str.contains(_ANNOTATION).alias("annotation"), text.str.contains(_OF_COLUMNS).alias("of_columns")
    ).filter((text.str.strip_chars() != "") & (pl.col("annotation") | ~text.str.contains(_COMMENT)))
    above = pl.col("annotation").shift(1, fill_value=False)
    return lines.with_columns((pl.col("annotation") & ~above).cum_sum().alias("table"), above.alias("below_annotation"))


def _last_head(lines: pl.DataFrame, data: bytes) -> tuple[int, bytes]:
    """Where the last head in `data` begins, and itself, as far as it goes; no bytes where there is none."""
    if lines.is_empty() or not lines["table"][-1]:
        return 0, b""
    last = lines.filter(pl.col("table") == pl.col("table").max())
    begins, names = int(last["at"][0]), last.filter(~pl.col("annotation"))
    ends = int(names["at"][1]) if names.height > 1 else len(data)
    return begins, data[begins:ends]


def _is_annotation_alone(head: bytes) -> bool:
    return bool(_lines(head, 1)["annotation"].all())


def _end_of_first(lines: pl.DataFrame, data: bytes) -> int:
    return int(lines["at"][1]) if lines.height > 1 else len(data)


def _names(head: bytes, separator: str) -> list[str]:
    try:
        parts = _Head.of(head.decode("utf-8", "replace"), separator).parts
    except Unreadable:
        return []
    return [*(column.label for column in parts.fields), *parts.tags]


def _written(column: str) -> re.Pattern[bytes]:
    """The expression that finds a name as a cell has it, with what a header may have behind it."""
    names = {one.name.replace('"', '""') for one in meanings(column)}
    return re.compile(
        b"|".join(rb'(?:^|[,;\t|"\n])' + re.escape(name.encode()) + rb'(?=[,;\t|"\r\n]|$)' for name in sorted(names))
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """What the head of a table says: how many cells its rows have, and which column is what."""

    cells: int
    parts: Parts

    @classmethod
    def of(cls, text: str, separator: str) -> _Head:
        """Read a head. Raises Unreadable."""
        table = Table()
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]
            for row in rows:
                table.is_data(row)
            table.check()
        except (csv.Error, ValueError) as error:
            raise Unreadable(f"its head {text[:_SHOWN]!r} cannot be read: {error}") from error
        return cls(len(rows[-1]), table.parts())


# -- rows --------------------------------------------------------------------------------------------------------------


def _frame(head: bytes, body: bytes, columns: Sequence[str], line: int, separator: str) -> pl.DataFrame:
    lines = _lines(head + body, line - head.count(b"\n"))
    first = pl.int_range(pl.len()) == 0
    lines = lines.with_columns(
        (pl.col("annotation") | pl.col("below_annotation") | first).alias("head"),
    )
    heads = (
        lines.filter("head").group_by("table", maintain_order=True)
        .agg(pl.col("line").str.join("").alias("text"), pl.col("of_columns").any(), pl.col("number").first())
    )  # fmt: skip
    alone = heads.slice(1).filter(~pl.col("of_columns"))
    if alone.height:
        raise Unreadable(
            f"line {alone['number'][0]}: annotations between rows that begin no table; give them a #datatype and "
            "a line of names, or write a file of its own"
        )
    rows = lines.filter(~pl.col("head")).join(heads.select("table", "text"), on="table", maintain_order="left")
    found = [
        _rows(_Head.of(text, separator), some, columns, separator)
        for (text,), some in rows.group_by("text", maintain_order=True)
    ]
    empty = {column: UTC_TIME if column == TIME else pl.String() for column in columns} | {
        ROW: pl.Int64(), PROBLEM: pl.String(),
    }  # fmt: skip
    return pl.concat(found).sort(ROW) if found else pl.DataFrame(schema=empty)


def _rows(head: _Head, lines: pl.DataFrame, columns: Sequence[str], separator: str) -> pl.DataFrame:
    """The rows of tables with one head."""
    body = "".join(lines["line"].to_list()).encode()
    keys = [str(place) for place in range(head.cells)]
    crooked: list[pa_csv.InvalidRow] = []

    def set_aside(row: pa_csv.InvalidRow) -> str:
        crooked.append(row)
        return "skip"

    table = pa_csv.read_csv(
        pa.BufferReader(body),
        # A single block, and no threads: only then does pyarrow number the rows that it cannot split.
        read_options=pa_csv.ReadOptions(column_names=keys, use_threads=False, block_size=len(body) + 1),
        parse_options=pa_csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=set_aside
        ),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(keys, pa.string())),
    )
    numbers = lines["number"].to_numpy()
    bad = [row.number - 1 for row in crooked]
    cells = pl.DataFrame({key: pl.Series(table[key]) for key in keys})
    frame = _meant(head.parts, cells, columns).with_columns(pl.Series(ROW, np.delete(numbers, bad)))
    reasons = [
        f"{row.actual_columns} cells where the head has {row.expected_columns}: {row.text[:_SHOWN]!r}"
        for row in crooked
    ]
    aside = pl.DataFrame({ROW: numbers[bad], PROBLEM: reasons}, schema={ROW: pl.Int64, PROBLEM: pl.String})
    return pl.concat([frame, aside], how="diagonal")


def _meant(parts: Parts, cells: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """`columns` of a table, and what is wrong with a row's time."""

    def texts(column: Column) -> pl.Series:
        return _texts(parts, cells, column)

    fields = {column.label: _values(column, texts(column)) for column in parts.fields}
    tags = {label: texts(column) for label, column in parts.tags.items()}
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, cells.height)
    measurement = nothing if parts.measurement is None else texts(parts.measurement)
    pair = None
    if parts.name is not None and parts.value is not None:
        pair = texts(parts.name), _values(parts.value, texts(parts.value))
    given = nothing if parts.time is None else texts(parts.time)
    times = nothing.cast(UTC_TIME) if parts.time is None else _times(parts.time, given)

    def value(column: str) -> pl.Expr:
        if column == MEASUREMENT:
            return pl.lit(measurement)
        options: list[pl.Expr] = []
        for of, name in meanings(column):
            some = [pl.lit(one[name]) for one in (fields, tags) if name in one]
            some += [] if pair is None else [pl.when(pl.lit(pair[0]) == name).then(pl.lit(pair[1]))]
            options += [pl.when(pl.lit(measurement) == of).then(one) for one in some] if of is not None else some
        return pl.coalesce(options) if options else pl.lit(nothing)

    why = pl.format("timestamp: {} is no time as the head says", pl.lit(given).fill_null("none"))
    return pl.select(
        *((pl.lit(times) if column == TIME else value(column)).alias(column) for column in columns),
        pl.when(pl.lit(times).is_null()).then(why).alias(PROBLEM),
    )


def _texts(parts: Parts, cells: pl.DataFrame, column: Column) -> pl.Series:
    """What the rows have in a column, null where that is nothing."""
    if column.index >= 0:
        cell = pl.col(str(column.index))
        found = pl.when(cell != "").then(cell).otherwise(pl.lit(column.default or None, pl.String))
    elif column.template is not None:
        literal_or_label = PLACEHOLDER.split(column.template)
        by_label = {one.label: one for one in reversed(parts.columns)}
        found = pl.concat_str(
            pl.lit(_texts(parts, cells, by_label[text]).fill_null("")) if place % 2 else pl.lit(text)
            for place, text in enumerate(literal_or_label)
        )
    else:
        found = pl.lit(column.default or None, pl.String)
    return cells.with_columns(found.alias("found"))["found"]


def _values(column: Column, texts: pl.Series) -> pl.Series:
    """A field's texts as numbers are written, where they are numbers; what is no such value stays, and is told as any
    cell that is no number."""
    if column.kind == "string":
        return texts
    if column.kind not in _NUMBERS:  # as line protocol has it, when there is no type
        said = _each(texts, parser(column.kind, column.format, column.zone)) if column.kind else texts
        return said.str.replace(r"^([+-]?\d+)[iu]$", "$1").str.replace(r'^"((?s:.*))"$', "$1")
    text = pl.lit(texts)
    form = column.format.removeprefix("strict") or _NUMBER_FORMAT
    text = text.str.replace_all("[" + re.escape(form[1:]) + "]", "") if len(form) > 1 else text
    if column.kind == "double":
        text = text.str.replace_all(form[0], ".", literal=True)
    elif column.format.startswith("strict"):
        told = pl.format("{} has a fraction", text)
        text = pl.when(text.str.contains(form[0], literal=True)).then(told).otherwise(text)
    else:
        text = text.str.replace("(?s)" + re.escape(form[0]) + ".*$", "")
    return pl.select(text.alias("found")).to_series()


def _each(texts: pl.Series, parse: Callable[[str], str]) -> pl.Series:
    """Each different text by the client's own reader: of values there are few, and other notations are rare."""
    known: dict[str, str] = {}
    for text in texts.drop_nulls().unique():
        try:
            known[text] = parse(text)
        except ValueError as error:
            known[text] = str(error)
    return texts.replace(list(known), list(known.values())) if known else texts


def _times(column: Column, texts: pl.Series) -> pl.Series:
    found = pl.Series([None], dtype=UTC_TIME).new_from_index(0, len(texts))
    if column.format in ("", "number"):
        found = moments(texts.cast(pl.Int64, strict=False))
    if column.format in ("", "RFC3339", "RFC3339Nano") and found.has_nulls():
        rfc3339 = texts.set(~texts.str.contains(_RFC3339), None)
        found = found.fill_null(rfc3339.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False))
    elif column.format not in ("number", ""):
        zone = column.zone or UTC
        nanoseconds = _each(texts, lambda text: str(time_of(text, column.format, zone)))
        found = moments(nanoseconds.cast(pl.Int64, strict=False))
    return found
