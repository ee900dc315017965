"""Small CSV files, many at a time: thousands of them cost what their bytes cost, and not a parse each.

Belongs here: which files can be read together, how they are, and where their rows wait so that each is read once for
all windows of a collection. Does not belong here: files that have to be read by themselves (csv_files.py), what is
known of files (index.py), and what becomes of rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.sources.files import text_lines
from ionbeam_dagster.sources.files.config import FilesConfig
from ionbeam_dagster.sources.files.csv_files import CsvReader, opening_of
from ionbeam_dagster.sources.files.readers import ROW, Unreadable, refusals
from ionbeam_dagster.sources.files.text_lines import MARK, PACKED
from ionbeam_dagster.sources.files.times import FILED
from ionbeam_dagster.sources.files.waiting import Piece

TOGETHER = 8 << 20
"""Bytes of text that are parsed at once."""
MOST_KEPT = 1 << 30
"""Bytes of text whose rows wait on disk; what is more is read again for each window."""
NUMBER = "x_number"


class SmallTable(NamedTuple):
    """A small file that is one table: its header, where that begins, and its rows."""

    name: str
    path: Path
    header_at: int
    header: bytes
    body: bytes


def may_be_together(config: FilesConfig) -> bool:
    """Whether rows of several files can be read as if they were of one."""
    return config.csv.is_plain and config.wide is None and config.time.ambiguous == "refuse"


def is_small(size: int) -> bool:
    """Whether a file of so many bytes is one part."""
    return size <= text_lines.CSV_PART // text_lines.SMALL_PIECES


def small_tables(reader: CsvReader, paths: Mapping[str, Path]) -> Iterator[list[SmallTable]]:
    """Those of `paths` that are small tables without quotes, in groups that have one header; others are left out."""
    usable: dict[bytes, bool] = {}
    groups: dict[bytes, list[SmallTable]] = {}
    held = 0
    for name, path in paths.items():
        table = _small_table(reader, name, path)
        if table is None:
            continue
        if table.header not in usable:
            usable[table.header] = _is_usable(reader, path, table.header)
        if not usable[table.header]:
            continue
        groups.setdefault(table.header, []).append(table)
        held += len(table.body)
        if held > TOGETHER:
            yield from groups.values()
            groups, held = {}, 0
    yield from groups.values()


def _small_table(reader: CsvReader, name: str, path: Path) -> SmallTable | None:
    if path.suffix in PACKED:
        return None
    try:
        data = path.read_bytes()
    except OSError:
        return None  # reading it by itself tells
    mark = (reader.config.csv.mark or '"').encode()
    start = len(MARK) if data.startswith(MARK) else 0
    end = data.find(b"\n", start) + 1
    header, body = data[start:end], data[end:]
    if not (header and body.endswith(b"\n")) or not is_small(len(data) - start) or mark in data:
        return None
    opening = opening_of(header, reader.config.csv)
    if body.startswith(opening) or b"\n" + opening in body:
        return None
    return SmallTable(name, path, start, header, body)


def _is_usable(reader: CsvReader, path: Path, header: bytes) -> bool:
    try:
        names = reader.checked_names(header, 1, wanted := reader.wanted(path))
    except Unreadable:
        return False
    return set(wanted) <= set(names)


def rows_of(reader: CsvReader, tables: Sequence[SmallTable], columns: Sequence[str]) -> pl.DataFrame:
    """The rows of `tables` as the reader gives them, with ``x_number``, the place of each one's table.

    Raises Unreadable.
    """
    header = tables[0].header
    with refusals():
        frame = reader.frame(b"".join(table.body for table in tables), reader.names(header, 1), columns, 0)
    ends = np.cumsum([table.body.count(b"\n") for table in tables])
    if frame.height != ends[-1]:
        raise Unreadable("has rows over several lines")
    lines = frame[ROW].to_numpy()
    number = np.searchsorted(ends, lines, side="right")
    begins = np.concatenate([[0], ends])
    return frame.with_columns(pl.Series(ROW, lines - begins[number] + 2, pl.Int64), pl.Series(NUMBER, number, pl.Int32))


class Spool:
    """The rows of small files on disk, in the order of time, until the process ends.

    `shaped` makes a source's rows, with ``x_filed`` and ``x_number``, of the rows of some tables.
    """

    def __init__(self, reader: CsvReader, shaped: Callable[[Sequence[SmallTable]], pl.DataFrame]) -> None:
        self._reader = reader
        self._shaped = shaped
        self.taken: list[str] = []
        """The names of the files that `take` read the last time."""
        self._known: dict[str, tuple[tuple[int, int], int]] = {}
        self._groups: list[Piece] = []
        self._next = 0
        self._bytes = 0

    def take(self, states: Mapping[str, tuple[Path, tuple[int, int]]]) -> set[str]:
        """Have the rows of files, by their name with what tells that they changed; gives the names of those it has."""
        if self._bytes > MOST_KEPT:
            self._clear()
        new = {
            name: path
            for name, (path, state) in states.items()
            if name not in self._known or self._known[name][0] != state
        }
        self.taken = []
        for name in new:
            self._known.pop(name, None)
        for tables in small_tables(self._reader, new):
            if self._bytes > MOST_KEPT:
                break
            self._keep(tables, states)
        return states.keys() & self._known.keys()

    def rows(self, names: Sequence[str], window: Window) -> pl.DataFrame:
        """The rows of files that are filed in `window`, in the order of `names` and of their rows."""
        place = np.full(self._next, -1, np.int64)
        place[[self._known[name][1] for name in names]] = np.arange(len(names))
        found = []
        for group in self._groups:
            some = group.within(window)
            at = pl.Series(NUMBER, place[some[NUMBER].to_numpy()])
            found.append(some.with_columns(at).filter(pl.col(NUMBER) >= 0))
        return pl.concat(found).sort(NUMBER, ROW, maintain_order=True).drop(NUMBER, FILED)

    def _keep(self, tables: Sequence[SmallTable], states: Mapping[str, tuple[Path, tuple[int, int]]]) -> None:
        try:
            frame = self._shaped(tables)
        except Unreadable:
            return  # reading each by itself tells of which
        self._groups.append(Piece(frame.with_columns(pl.col(NUMBER) + self._next)))
        for number, table in enumerate(tables, self._next):
            self._known[table.name] = states[table.name][1], number
            self._bytes += len(table.body)
            self.taken.append(table.name)
        self._next += len(tables)

    def _clear(self) -> None:
        self._known, self._groups, self._next, self._bytes = {}, [], 0, 0
