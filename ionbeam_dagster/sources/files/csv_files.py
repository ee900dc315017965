"""CSV: cells that a separator or blanks divide, under a header, in one table or several below each other.

Belongs here: how such files become rows of texts. Does not belong here: where rows end (text_lines.py), many small
files at once (small_files.py), and what becomes of rows (rows.py).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ionbeam_dagster.sources.files.ragged_rows import ragged_rows
from ionbeam_dagster.sources.files.readers import EMPTY, PROBLEM, ROW, Place, Unreadable, listed, near_names, refusals
from ionbeam_dagster.sources.files.text_lines import (
    LONGEST_LINE,
    MARK,
    LineReader,
    blocks,
    decoded,
    line_breaks,
    opened,
)
from ionbeam_dagster.sources.files.written import BLANKS, CsvDialect

MOST_ABOVE = 50
"""Lines that are looked at for the names of columns."""


class CsvReader(LineReader):
    """CSV: one table, or several below each other, each under a header line that begins as the first one does. Its
    columns are texts."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        wanted = self.wanted(path)
        found: dict[str, None] = {}
        with refusals(), opened(path, self.config.member) as file:
            opening: bytes | None = None  # one table alone
            if self.config.csv.is_plain:
                start, header = _first_line(file)
                opening, first = opening_of(header, self.config.csv), 1
                header_at = start
            else:
                header_at, header, start, first = self._head(file)
                found |= dict.fromkeys(self.checked_names(header, 1, wanted))
            if whole_lines and header and not header.endswith(b"\n"):
                raise Unreadable(EMPTY)
            for offset, line, block in blocks(file, start, whole_lines, first, self._quote):
                for at, table in _tables(block, opening):
                    line_of_table = line + block.count(b"\n", 0, at)
                    if opening is not None and table.startswith(opening):
                        header_at, header = offset + at, table[: table.find(b"\n") + 1 or len(table)]
                        found |= dict.fromkeys(self.checked_names(header, line_of_table, wanted))
                        table, at, line_of_table = table[len(header) :], at + len(header), line_of_table + 1
                    if table:
                        place = (header_at, len(header), offset + at, len(table), line_of_table)
                        yield place, sha256(header + table).hexdigest()[:16]
        missing = [column for column in wanted if column not in found]
        if missing:
            raise Unreadable(self._lacking(missing, list(found), header, path))

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        names_at: dict[int, list[str]] = {}
        with refusals(), opened(path, self.config.member) as file:
            for place in places:
                header_at, header_length, offset, length, line = place
                if header_at not in names_at:  # once: gzip goes back by beginning anew
                    file.seek(header_at)
                    names_at[header_at] = self.names(file.read(header_length), line - 1)
                names = names_at[header_at]
                file.seek(offset)
                yield place, self.frame(file.read(length), names, columns, line)

    @property
    def _quote(self) -> bytes | None:
        return None if self.config.csv.mark is None else self.config.csv.mark.encode()

    def columns(self, path: Path) -> list[str]:
        with refusals(), opened(path, self.config.member) as file:
            return self.names(self._head(file)[1], 1)

    def names(self, header: bytes, line: int) -> list[str]:
        """The names of the columns, of a header that stands in `line`."""
        dialect = self.config.csv
        if dialect.names:
            return list(dialect.names)
        if dialect.separator == BLANKS:
            header = _by_single_blanks(header)
        text = decoded(header, dialect.encoding, line)
        quoted = {"quotechar": dialect.mark} if dialect.mark else {"quoting": csv.QUOTE_NONE}
        rows = list(csv.reader([text], delimiter=dialect.delimiter, **quoted))
        return [name.strip() for name in rows[0]] if rows else []

    def _head(self, file: IO[bytes]) -> tuple[int, bytes, int, int]:
        """Where the header is, itself (empty where the YAML has the names), where the rows begin, and in which line."""
        dialect = self.config.csv
        at, line = _first_line(file)
        lines = [(at, line)]
        of_header = 0 if dialect.names else dialect.header
        comment = dialect.comment.encode(dialect.encoding) if dialect.comment and of_header == 1 else None
        while comment and lines[-1][1].startswith(comment):
            lines.append((file.tell(), file.readline(LONGEST_LINE)))
            of_header = len(lines)
        last = max([of_header, *dialect.skip])
        while len(lines) < last:
            lines.append((file.tell(), file.readline(LONGEST_LINE)))
        if not last:
            return at, b"", at, 1
        if not lines[last - 1][1]:
            raise Unreadable(f"has no line {last}; correct csv.header and csv.skip, or the file")
        header_at, header = lines[of_header - 1] if of_header else (at, b"")
        begins = lines[last][0] if len(lines) > last else file.tell()
        return header_at, header, begins, last + 1

    def checked_names(self, header: bytes, line: int, wanted: list[str]) -> list[str]:
        """The same; raises Unreadable where they do not tell the `wanted` columns apart."""
        if b"\r" in header.rstrip(b"\r\n"):
            raise Unreadable(
                "its lines end in carriage returns alone, as those of old Macs; write them anew, for example: "
                "tr '\\r' '\\n' < old.csv > new.csv"
            )
        if b"\0" in header:
            raise Unreadable(f"line {line} holds bytes that are no text (NUL); put an intact copy in its place")
        names = self.names(header, line)
        twice = [name for name in wanted if names.count(name) > 1]
        if twice:
            raise Unreadable(f"line {line} has two columns {listed(twice)}; give one of them another name")
        if line > 1 and wanted[0] not in names:
            raise Unreadable(
                f"line {line}: the table that begins here has no column {wanted[0]!r} for its times; it has "
                f"{listed(names)}"
            )
        return names

    def _lacking(self, missing: list[str], found: list[str], header: bytes, path: Path) -> str:
        dialect = self.config.csv
        text = header.decode(dialect.encoding).rstrip("\r\n")
        others = [separator for separator in ";,\t|" if separator != dialect.separator and separator in text]
        place = "csv.names" if dialect.names else f"line {dialect.header}"
        told = f"{place} has no column {listed(missing)}"
        if len(found) == 1 and others:
            return (
                f"{told}: with separator {dialect.separator!r} it is the one column {text!r}; "
                f"right would probably be csv.separator: {others[0]!r}"
            )
        if set(missing) & {_as_utf8(name, dialect.encoding) for name in found}:
            return f"{told}: read as {dialect.encoding} it has {listed(found)}; right would be csv.encoding: utf-8"
        unplaced = {"lat", "lon"} & {*missing} if self.config.latitude is None else set()
        of_place = "; where all is of one place, state its latitude and longitude" if unplaced else ""
        line, below = self._names_below(path, missing)
        if below:
            skip = ", skip: [3, 4]" if found[:1] == ["TOA5"] else ""
            rest = [name for name in missing if name not in below and name not in unplaced]
            lacking = f", but not {listed(rest)}" if rest else ""
            right = f"the names stand in line {line}, which has {listed(below)}{lacking}"
            return f"{told}: {right}; right would be csv: {{header: {line}{skip}}}{of_place}"
        return f"{told}; it has {listed(found)}{near_names(missing, found)}; correct the YAML or the file{of_place}"

    def _names_below(self, path: Path, missing: list[str]) -> tuple[int, list[str]]:
        """The line below the header that has the most of the names that are missing there, and these."""
        best: tuple[int, list[str]] = 0, []
        if self.config.csv.names:
            return best
        with suppress(Unreadable), opened(path, self.config.member) as file:
            for number in range(1, MOST_ABOVE + 1):
                there = self.names(file.readline(LONGEST_LINE), number)
                has = [name for name in missing if name in there]
                if number > self.config.csv.header and len(has) > len(best[1]):
                    best = number, has
        return best

    def frame(self, body: bytes, names: list[str], columns: Sequence[str], line: int) -> pl.DataFrame:
        """The rows of `body`, which begins in `line`, as `read` gives them."""
        dialect = self.config.csv
        if not self.config.csv.encoding.lower().replace("_", "-").startswith("utf"):
            body = decoded(body, self.config.csv.encoding, line).encode()
        rows_at = None
        if dialect.comment:
            body, rows_at = _without_comments(body, dialect.comment.encode(dialect.encoding))
        if dialect.separator == BLANKS:
            body = _by_single_blanks(body)
        present = {column: str(names.index(column)) for column in columns if column in names}
        keys = [str(index) for index in range(len(names))]
        crooked: list[pa_csv.InvalidRow] = []

        def set_aside(row: pa_csv.InvalidRow) -> str:
            crooked.append(row)
            return "skip"

        try:
            table = pa_csv.read_csv(
                pa.BufferReader(body),
                # A single block, and no threads: only then does pyarrow number the rows that it cannot split.
                read_options=pa_csv.ReadOptions(column_names=keys, use_threads=False, block_size=len(body) + 1),
                parse_options=pa_csv.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char=dialect.mark or False,
                    ignore_empty_lines=False,
                    invalid_row_handler=set_aside,
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(present.values()), column_types=dict.fromkeys(keys, pa.string())
                ),
            )
        except pa.ArrowInvalid:
            decoded(body, "utf-8", line)
            raise
        rows = table.num_rows + len(crooked)
        lines_of_rows = (_lines_of_rows(body, rows, self._quote) if rows_at is None else rows_at[:rows]) + line
        places = [row.number - 1 for row in crooked]
        lines = np.delete(lines_of_rows, places)
        frame = pl.DataFrame({ROW: lines}).with_columns(
            *(pl.Series(column, table[key]) for column, key in present.items()),
            *(pl.lit(None, pl.String).alias(column) for column in columns if column not in present),
            pl.lit(None, pl.String).alias(PROBLEM),
        )
        if not crooked:
            return frame
        others = ragged_rows(crooked, lines_of_rows[places], dialect, len(names), present)
        return pl.concat([frame, others], how="diagonal").sort(ROW)


def _first_line(file: IO[bytes]) -> tuple[int, bytes]:
    """The header line and its offset, which a byte order mark moves."""
    line = file.readline(LONGEST_LINE)
    if not line:
        raise Unreadable(EMPTY)
    if len(line) == LONGEST_LINE:
        raise Unreadable("line 1 does not end within 1 MiB, so it is no CSV file; remove it, or set `format`")
    return (len(MARK), line[len(MARK) :]) if line.startswith(MARK) else (0, line)


def opening_of(header: bytes, dialect: CsvDialect) -> bytes:
    """What every header line begins with: the first column's name as it is written there, and what ends it; all of it
    where the first column has no name."""
    name, separator, _ = header.partition(dialect.delimiter.encode(dialect.encoding))
    return name + separator if name.strip(b" \t" + (dialect.mark or "").encode()) else header


def _without_comments(body: bytes, comment: bytes) -> tuple[bytes, np.ndarray]:
    """`body` without the lines that begin with `comment`, and which lines, from 0, are left."""
    characters = np.frombuffer(body, np.uint8)
    begins = np.concatenate([[0], np.flatnonzero(characters == ord("\n")) + 1])
    begins = begins[begins < len(body)]
    are = np.ones(len(begins), bool)
    for place, byte in enumerate(comment):
        within = np.minimum(begins + place, len(body) - 1)
        are &= characters[within] == byte
    left = re.sub(rb"(?m)^" + re.escape(comment) + rb"[^\n]*\n?", b"", body)
    return left, np.flatnonzero(~are)


def _by_single_blanks(data: bytes) -> bytes:
    """Lines whose columns are divided by one blank, without blanks at their ends."""
    return re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb"[ \t]+", b" ", data))


def _tables(block: bytes, opening: bytes | None) -> Iterator[tuple[int, bytes]]:
    """`block` cut before each line that begins as a header does, each piece with its offset."""
    start = 0
    while opening is not None and (end := block.find(b"\n" + opening, start)) >= 0:
        yield start, block[start : end + 1]
        start = end + 1
    yield start, block[start:]


def _lines_of_rows(body: bytes, rows: int, quote: bytes | None) -> np.ndarray:
    """The line, from 0, in which each row begins, also behind line breaks in quotes."""
    if quote and body.count(quote) and rows != body.count(b"\n") + (not body.endswith(b"\n")):
        breaks = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))
        begins = np.concatenate([[0], np.searchsorted(breaks, line_breaks(body, quote)) + 1])[:rows]
        if len(begins) == rows:
            return begins
    return np.arange(rows)


def _as_utf8(name: str, encoding: str) -> str:
    """What `name` would be, had it not been read as `encoding`."""
    return name.encode(encoding).decode("utf-8", errors="replace")
