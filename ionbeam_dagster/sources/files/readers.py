"""What every format's reader gives: a file's layout, its parts and their rows; and the readers of CSV and Parquet.

Belongs here: how rows are got out of a file. Does not belong here: netCDF, which says more about itself
(netcdf_files.py), the logs of stations (json_lines.py, annotated_csv.py), and what becomes of rows (rows.py).
"""

from __future__ import annotations

import csv
import difflib
import gzip
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ionbeam_dagster.sources.files.config import BLANKS, CsvDialect, FilesConfig
from ionbeam_dagster.stores.publish import file_hash

ROW, PROBLEM = "x_row", "x_problem"
ROWS_AT_ONCE = 128 * 1024
CSV_PART = 2 << 20
SMALL_PIECES = 32  # that a part would have, of which only the last ones may still change
LONGEST_LINE = 1 << 20
EMPTY = "is empty; put an intact copy in its place, or remove it"
MARK = b"\xef\xbb\xbf"

Place = tuple[int, ...]


class Unreadable(Exception):
    """A file cannot be used; the message tells the place in it, the reason and what to do, but not the file's name."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a file says about one of its columns; None where it is silent. `level` is in metres.

    `flags` are the columns that hold the quality flags of this one.
    """

    standard_name: str | None = None
    unit: str | None = None
    level: float | None = None
    method: str | None = None
    period: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a file are which: those of the time (mostly one), those of ``lat`` and ``lon`` where they are
    not constant, those of the dataset's descriptive columns, and what the file says about its columns, where its format
    can say it. `heights` are the units of descriptive columns that are heights, where one is stated."""

    times: tuple[str, ...]
    place: dict[str, str]
    metadata: dict[str, str]
    described: dict[str, Described] = field(default_factory=dict)
    heights: dict[str, str] = field(default_factory=dict)


class Reader(ABC):
    """Reads the files of one format, part by part, so that memory does not grow with the file."""

    def __init__(self, config: FilesConfig) -> None:
        self.config = config

    @abstractmethod
    def layout(self, path: Path) -> Layout:
        """Which columns of the file are which. Raises Unreadable."""

    def grows_by_lines(self, path: Path) -> bool:
        """Whether the file can be read while it is being written, as far as its lines are whole."""
        return False

    def is_unchanged(self, path: Path, content: Mapping[Place, str]) -> bool:
        """Whether parts of a file that grows are still what they were. Raises Unreadable."""
        return False

    @abstractmethod
    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        """Where the parts of the file are, each with a hash of all that decides its rows.

        With `whole_lines`, of a file that grows by lines, without a last line that does not end. Raises Unreadable,
        also where a column is missing.
        """

    @abstractmethod
    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        """The rows of the parts at `places`, a part in one frame or several.

        Each frame has `columns` as they stand in the file (null where a part lacks one), ``x_row`` (the line of a CSV,
        the row of another file) and ``x_problem`` (null, or why the row is not whole). Raises Unreadable.
        """


@contextmanager
def refusals(*further: type[Exception]) -> Iterator[None]:
    """Turn what libraries raise for a file that they cannot read, `further` errors among it, into Unreadable."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException, *further) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
        denied = isinstance(error, PermissionError)
        remedy = "give the platform permission to read it" if denied else "put an intact copy in its place"
        raise Unreadable(f"cannot be read ({reason}); {remedy}") from error


class TableReader(Reader):
    """A format of plain columns, which the configuration alone tells apart."""

    def layout(self, path: Path) -> Layout:
        stated = {"lat": self.config.latitude, "lon": self.config.longitude}
        place = {name: column or name for name, column in stated.items() if not isinstance(column, float)}
        time = "datetime" if self.config.time.column is None else self.config.time.column
        heights = {name: one.unit for name, one in self.config.metadata.items() if one.unit}
        return Layout(self.config.time.columns or (time,), place, self.config.columns_of_metadata, heights=heights)

    def wanted(self, path: Path) -> list[str]:
        """The columns that a file must have, that of the time first."""
        layout = self.layout(path)
        variables = [variable.column for variable in self.config.variables if not variable.optional]
        if self.config.long is not None:
            variables = [self.config.long.variable, self.config.long.value]
        variables += [one.quality.column for one in self.config.variables if one.quality and not one.optional]
        return list(dict.fromkeys([*layout.times, *layout.place.values(), *variables, *layout.metadata.values()]))


class LineReader(TableReader):
    """A format whose rows are lines.

    A part is ``(offset of its header, length of the header, offset, length, number of its first line)``, in bytes; of a
    format without headers the first two are 0.
    """

    def grows_by_lines(self, path: Path) -> bool:
        return path.suffix != ".gz"

    def is_unchanged(self, path: Path, content: Mapping[Place, str]) -> bool:
        with refusals(), opened(path) as file:
            for (header_at, header_length, offset, length, _), known in content.items():
                digest = sha256()
                for at, size in ((header_at, header_length), (offset, length)):
                    file.seek(at)
                    digest.update(file.read(size))
                if digest.hexdigest()[:16] != known:
                    return False
        return True


class CsvReader(LineReader):
    """CSV: one table, or several below each other, each under a header line that begins as the first one does. Its
    columns are texts."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        wanted = self.wanted(path)
        found: dict[str, None] = {}
        with refusals(), opened(path) as file:
            if self.config.csv.is_plain:
                start, header = _first_line(file)
                opening, first = opening_of(header, self.config.csv), 1
                header_at = start
            else:
                header_at, header, start, first = self._head(file)
                opening = b"\n"  # which no line begins with: one table alone
                found |= dict.fromkeys(self.checked_names(header, 1, wanted))
            if whole_lines and header and not header.endswith(b"\n"):
                raise Unreadable(EMPTY)
            for offset, line, block in blocks(file, start, whole_lines, first):
                for at, table in _tables(block, opening):
                    line_of_table = line + block.count(b"\n", 0, at)
                    if table.startswith(opening):
                        header_at, header = offset + at, table[: table.find(b"\n") + 1 or len(table)]
                        found |= dict.fromkeys(self.checked_names(header, line_of_table, wanted))
                        table, at, line_of_table = table[len(header) :], at + len(header), line_of_table + 1
                    if table:
                        place = (header_at, len(header), offset + at, len(table), line_of_table)
                        yield place, sha256(header + table).hexdigest()[:16]
        missing = [column for column in wanted if column not in found]
        if missing:
            raise Unreadable(self._lacking(missing, list(found), header))

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        names_at: dict[int, list[str]] = {}
        with refusals(), opened(path) as file:
            for place in places:
                header_at, header_length, offset, length, line = place
                if header_at not in names_at:  # once: gzip goes back by beginning anew
                    file.seek(header_at)
                    names_at[header_at] = self.names(file.read(header_length), line - 1)
                names = names_at[header_at]
                file.seek(offset)
                yield place, self.frame(file.read(length), names, columns, line)

    def names(self, header: bytes, line: int) -> list[str]:
        """The names of the columns, of a header that stands in `line`."""
        dialect = self.config.csv
        if dialect.names:
            return list(dialect.names)
        if dialect.separator == BLANKS:
            header = _by_single_blanks(header)
        rows = list(csv.reader([decoded(header, dialect.encoding, line)], delimiter=dialect.delimiter))
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

    def _lacking(self, missing: list[str], found: list[str], header: bytes) -> str:
        dialect = self.config.csv
        text = header.decode(dialect.encoding).rstrip("\r\n")
        others = [separator for separator in ";,\t|" if separator != dialect.separator and separator in text]
        told = f"line 1 has no column {listed(missing)}"
        if len(found) == 1 and others:
            return (
                f"{told}: with separator {dialect.separator!r} it is the one column {text!r}; "
                f"right would probably be csv.separator: {others[0]!r}"
            )
        if set(missing) & {_as_utf8(name, dialect.encoding) for name in found}:
            return f"{told}: read as {dialect.encoding} it has {listed(found)}; right would be csv.encoding: utf-8"
        return f"{told}; it has {listed(found)}{near_names(missing, found)}; correct the YAML or the file"

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
                    delimiter=dialect.delimiter, ignore_empty_lines=False, invalid_row_handler=set_aside
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(present.values()), column_types=dict.fromkeys(keys, pa.string())
                ),
            )
        except pa.ArrowInvalid:
            decoded(body, "utf-8", line)
            raise
        rows = table.num_rows + len(crooked)
        lines_of_rows = _lines_of_rows(body, rows) if rows_at is None else rows_at[:rows]
        lines = np.delete(lines_of_rows, [row.number - 1 for row in crooked]) + line
        frame = pl.DataFrame({ROW: lines}).with_columns(
            *(pl.Series(column, table[key]) for column, key in present.items()),
            *(pl.lit(None, pl.String).alias(column) for column in columns if column not in present),
            pl.lit(None, pl.String).alias(PROBLEM),
        )
        return pl.concat([frame, _explained(crooked, line)], how="diagonal").sort(ROW) if crooked else frame


class ParquetReader(TableReader):
    """Parquet; a part is one row group, ``(its number, the number of its first row)``."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        with refusals():
            content = file_hash(path)[:16]
            with pq.ParquetFile(path) as file:
                found = file.schema_arrow.names
                missing = [column for column in self.wanted(path) if column not in found]
                if missing:
                    raise Unreadable(
                        f"has no column {listed(missing)}; it has {listed(found)}{near_names(missing, found)}; "
                        "correct the YAML or the file"
                    )
                row = 1
                for number in range(file.num_row_groups):
                    yield (number, row), content
                    row += file.metadata.row_group(number).num_rows

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        with refusals(), pq.ParquetFile(path) as file:
            for place in places:
                number, row = place
                there = [column for column in columns if column in file.schema_arrow.names]
                absent = [pl.lit(None, pl.String).alias(column) for column in columns if column not in there]
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[number], columns=there):
                    frame = cast(pl.DataFrame, pl.from_arrow(batch)).with_columns(*absent)
                    yield (
                        place,
                        frame.with_columns(
                            pl.int_range(row, row + frame.height, dtype=pl.Int64).alias(ROW),
                            pl.lit(None, pl.String).alias(PROBLEM),
                        ),
                    )
                    row += frame.height


def opened(path: Path) -> IO[bytes]:
    """The file, unpacked."""
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


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
    return name + separator if name.strip(b'" \t') else header


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


def blocks(
    file: IO[bytes], start: int, whole_lines: bool, first_line: int, quotes: bool = True
) -> Iterator[tuple[int, int, bytes]]:
    """The file from `start` on in pieces of whole rows, each with its offset and the number of its first line.

    With `quotes` a line break within quotes ends no row.

    The last piece is cut into smaller ones, always at the same places: a file that grows changes only what is behind
    them.
    """
    file.seek(start)
    offset, line, rest = start, first_line, b""
    while data := file.read(CSV_PART):
        block, rest = _whole_rows(rest + data, quotes)
        if len(rest) > LONGEST_LINE and b"\n" not in rest:
            endless = line + block.count(b"\n")
            raise Unreadable(f"line {endless} does not end within 1 MiB; correct or remove the file")
        if len(rest) > LONGEST_LINE:  # a quote that opens and never closes
            more, _, rest = rest.rpartition(b"\n")
            block += more + b"\n"
        for piece in [block] if len(data) == CSV_PART else _small_pieces(block, quotes):
            yield offset, line, piece
            offset, line = offset + len(piece), line + piece.count(b"\n")
    if rest and not whole_lines:
        yield offset, line, rest


def _whole_rows(data: bytes, quotes: bool) -> tuple[bytes, bytes]:
    """`data` up to its last line break that no quotes enclose, and the rest."""
    end = data.rfind(b"\n") + 1
    if quotes and end and data.count(b'"', 0, end) % 2:
        outside = line_breaks(data)
        end = int(outside[-1]) + 1 if len(outside) else 0
    return data[:end], data[end:]


def line_breaks(data: bytes) -> np.ndarray:
    """Where the line breaks of `data` are that no quotes enclose; `data` begins outside of quotes."""
    characters = np.frombuffer(data, np.uint8)
    breaks = np.flatnonzero(characters == ord("\n"))
    quotes = np.flatnonzero(characters == ord('"'))
    outside: np.ndarray = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    return outside


def _small_pieces(block: bytes, quotes: bool) -> Iterator[bytes]:
    start = 0
    breaks = line_breaks(block) if quotes and block.count(b'"') else None
    while start < len(block):
        at = start + CSV_PART // SMALL_PIECES
        if breaks is None:
            end = block.find(b"\n", at) + 1
        else:
            place = int(np.searchsorted(breaks, at))
            end = int(breaks[place]) + 1 if place < len(breaks) else 0
        end = end or len(block)
        yield block[start:end]
        start = end


def _tables(block: bytes, opening: bytes) -> Iterator[tuple[int, bytes]]:
    """`block` cut before each line that begins as a header does, each piece with its offset."""
    start = 0
    while (end := block.find(b"\n" + opening, start)) >= 0:
        yield start, block[start : end + 1]
        start = end + 1
    yield start, block[start:]


def _lines_of_rows(body: bytes, rows: int) -> np.ndarray:
    """The line, from 0, in which each row begins, also behind line breaks in quotes."""
    if body.count(b'"') and rows != body.count(b"\n") + (not body.endswith(b"\n")):
        breaks = np.flatnonzero(np.frombuffer(body, np.uint8) == ord("\n"))
        begins = np.concatenate([[0], np.searchsorted(breaks, line_breaks(body)) + 1])[:rows]
        if len(begins) == rows:
            return begins
    return np.arange(rows)


def decoded(data: bytes, encoding: str, line: int) -> str:
    """The text of lines from number `line` on. Raises Unreadable with the line that is none."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        place = line + data.count(b"\n", 0, error.start)
        raise Unreadable(
            f"line {place}: byte {data[error.start]:#04x} is not {encoding}; state the file's encoding, "
            "for example csv.encoding: latin-1, or correct the file"
        ) from error


def _as_utf8(name: str, encoding: str) -> str:
    """What `name` would be, had it not been read as `encoding`."""
    return name.encode(encoding).decode("utf-8", errors="replace")


def _explained(crooked: list[pa_csv.InvalidRow], line: int) -> pl.DataFrame:
    """A row for each one that could not be split into the header's columns, with the reason and its text."""

    def reason(row: pa_csv.InvalidRow) -> str:
        lines = row.text.count("\n") + 1
        if lines > 1:
            return f"a quote that opens in this line runs over {lines} lines: {row.text[:200]!r}"
        return f"{row.actual_columns} cells where the header has {row.expected_columns}: {row.text[:200]!r}"

    return pl.DataFrame({ROW: [row.number - 1 + line for row in crooked], PROBLEM: [reason(row) for row in crooked]})


def listed(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def near_names(missing: list[str], found: list[str]) -> str:
    near = [match for name in missing for match in difflib.get_close_matches(name, found, n=1)]
    return f" (near is {listed(near)})" if near else ""
