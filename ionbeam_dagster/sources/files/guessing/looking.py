"""Looking into one file: its head and its tail are enough to guess by, however large it is.

Belongs here: what is read of each format, and what the format itself says. Does not belong here: what the columns are
(times.py, stations.py, columns.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, cast
from zipfile import BadZipFile, ZipFile

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.sources.files.config import format_by_name
from ionbeam_dagster.sources.files.excel_files import NO_CLOCK, NO_DAY, cells_of, workbook
from ionbeam_dagster.sources.files.guessing.logs import annotated_sample, json_sample
from ionbeam_dagster.sources.files.guessing.sample import ROWS, Sample
from ionbeam_dagster.sources.files.guessing.statements import Line, Statement, below
from ionbeam_dagster.sources.files.guessing.text_shape import TextShape, shape_of, shape_of_cells
from ionbeam_dagster.sources.files.netcdf_files import attributes_of
from ionbeam_dagster.sources.files.readers import EMPTY, Unreadable, listed, refusals
from ionbeam_dagster.sources.files.text_lines import PACKED, opened, refuse_other_content
from ionbeam_dagster.sources.files.written import BLANKS

HEAD, TAIL = 256 << 10, 64 << 10
_ANNOTATED = re.compile(r'(?i)^"?#(?:group|datatype|default|constant)\b')


def sampled(path: Path) -> Sample:
    """Look into a file. Raises Unreadable with what to do where it is none that can be read."""
    if not path.stat().st_size:
        raise Unreadable(EMPTY)
    form = format_by_name(path.name)
    match form:
        case "parquet":
            return _parquet(path)
        case "excel":
            return _excel(path)
        case "netcdf":
            return Sample(path, "netcdf", pl.DataFrame(schema=dict.fromkeys(attributes_of(path), pl.String())))
        case _:
            return _text(path, form)


def _text(path: Path, form: str | None) -> Sample:
    member, packed = _member(path)
    with refusals(UnicodeDecodeError), opened(path, member) as file:
        head = file.read(HEAD)
        tail = b"" if path.suffix in PACKED or len(head) < HEAD else _tail(file, path.stat().st_size)
    text, encoding = _decoded(head)
    if "\0" in text:
        raise Unreadable("holds bytes that are no text, and has no ending by which its format is known")
    lines, last = _lines(text, whole=len(head) < HEAD), _lines(_decoded(tail)[0], whole=True)[1:]
    if form != "csv" and any(map(_is_json, lines[:5])):
        sample = json_sample(path, [*lines, *last])
        return _with_format(sample, "jsonl", form, packed)
    if path.suffix.lower() in (".json", ".geojson"):
        raise Unreadable(
            "is one JSON document; JSON is read with an object in each line: jq -c '.[]' old.json > new.jsonl"
        )
    if lines and _ANNOTATED.match(lines[0]):
        return _with_format(annotated_sample(path, lines), "influx_csv", None, packed)
    if "\r" in text.replace("\r\n", "\n"):
        raise Unreadable("its lines end in carriage returns alone, as those of old Macs; write them anew, for example: "
                         "tr '\\r' '\\n' < old.csv > new.csv")  # fmt: skip
    shape = shape_of(lines, last)
    if encoding != "utf-8":
        shape.statements.append(Statement("encoding", encoding, "likely", "its bytes are no UTF-8"))
    sample = _of_shape(path, "csv", shape)
    tables = _further_tables(lines, shape)
    if tables is not None:
        sample.rows = tables
    return _with_format(sample, "csv", form, packed)


def _of_shape(path: Path, form: str, shape: TextShape) -> Sample:
    rows = shape.rows if len(shape.rows) <= 2 * ROWS else [*shape.rows[:ROWS], *shape.rows[-ROWS:]]
    return Sample(path, form, _cells(rows, shape.names), below("csv", shape.statements), shape.units, shape.methods,
                  shape.around, shape.decimal, shape.names_are_invented)  # fmt: skip


def _cells(rows: list[list[str]], names: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")


def _with_format(sample: Sample, found: str, by_name: str | None, packed: Sequence[Line]) -> Sample:
    sample.format = found
    if by_name != found:
        sample.statements.insert(0, Statement("format", found, "sure", "by its content, for the name does not tell it"))
    sample.statements[1:1] = packed
    return sample


def _member(path: Path) -> tuple[str | None, list[Statement]]:
    """The member of a zip that has the rows, and how it is named."""
    if path.suffix != ".zip":
        return None, []
    try:
        with ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
    except BadZipFile as error:
        raise Unreadable(f"cannot be unpacked ({error}); put an intact copy in its place") from error
    if not members:
        raise Unreadable("has no member; remove it")
    produkt = [one for one in members if one.filename.startswith("produkt")]
    largest = max(produkt or members, key=lambda one: one.file_size).filename
    if len(members) == 1:
        return largest, []
    glob = re.sub(r"[*]+", "*", re.sub(r"[\d_-]*\d[\d_-]*", "_*", largest).replace("__", "_"))
    found = [one.filename for one in members if fnmatchcase(one.filename, glob)]
    name = glob if found == [largest] else largest
    return name, [Statement("member", name, "likely", f"the largest of {listed([one.filename for one in members])}")]


def _tail(file: IO[bytes], size: int) -> bytes:
    file.seek(max(HEAD, size - TAIL))
    return file.read(TAIL)


def _decoded(data: bytes) -> tuple[str, str]:
    refuse_other_content(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    for cut in range(4):  # the head may end within a character
        with suppress(UnicodeDecodeError):
            return data[: len(data) - cut].decode("utf-8"), "utf-8"
    with suppress(UnicodeDecodeError):
        return data.decode("cp1252"), "cp1252"
    return data.decode("latin-1"), "latin-1"


def _lines(text: str, whole: bool) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and (not whole or not lines[-1]):
        lines.pop()
    return lines


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _further_tables(lines: Sequence[str], shape: TextShape) -> pl.DataFrame | None:
    """The rows of tables below each other, each under a header that begins as the first does; None of one table."""
    if any(one.key in ("names", "header", "comment", "skip") for one in shape.statements) or shape.separator == BLANKS:
        return None
    opening = lines[0].split(shape.separator)[0] + shape.separator
    begins = [number for number, line in enumerate(lines) if line.startswith(opening)]
    if len(begins) < 2 or len(opening) < 3:
        return None
    tables = [shape_of(lines[start:end], []) for start, end in zip(begins, [*begins[1:], len(lines)], strict=True)]
    frames = [_cells(one.rows[:ROWS], one.names) for one in tables if len(set(one.names)) == len(one.names)]
    return pl.concat(frames, how="diagonal")


def _parquet(path: Path) -> Sample:
    with refusals(), pq.ParquetFile(path) as file:
        groups = file.num_row_groups
        batches = [next(file.iter_batches(ROWS, row_groups=[number]), None) for number in {0, groups - 1} if groups]
    frames = [cast(pl.DataFrame, pl.from_arrow(batch)) for batch in batches if batch is not None]
    if not frames:
        raise Unreadable("has no row; remove it")
    return Sample(path, "parquet", pl.concat(frames))


def _excel(path: Path) -> Sample:
    with workbook(path) as book:
        names = book.sheet_names
        sheets = [(cells_of(book, name, ROWS), name) for name in names]
    cells, name = max(sheets, key=lambda one: one[0].height * one[0].width)
    rows = {number: [cell or "" for cell in row] for number, row in enumerate(cells.iter_rows(), 1)}
    if not rows:
        raise Unreadable("its sheets are empty; remove it")
    shape = shape_of_cells(["x"] * len(rows), rows, [], cells.width, ",", None)
    sample = _of_shape(path, "excel", shape)
    if any(sample.rows[column].str.contains(NO_DAY).any() for column in sample.rows.columns):
        cells_alone = pl.col(pl.String).str.replace(NO_DAY, "").str.replace(NO_CLOCK, "$1")
        sample.rows = sample.rows.with_columns(cells_alone)
    if len(sheets) > 1:
        why = f"of the sheets {listed(names)} the one with the most cells"
        sample.statements.insert(0, Statement("sheet", name, "likely", why))
    return sample
