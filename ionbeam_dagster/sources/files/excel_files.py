"""Excel: a sheet of cells under a header.

Belongs here: how a workbook becomes rows of texts, as those of a CSV are. Does not belong here: what becomes of rows
(rows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ionbeam_dagster.sources.files.readers import PROBLEM, ROW, Place, TableReader, Unreadable, listed, near_names
from ionbeam_dagster.stores.publish import file_hash

if TYPE_CHECKING:
    from fastexcel import ExcelReader as Workbook

NO_DAY = r"^1899-12-3\d "  # a clock alone is a time of Excel's day 0
NO_CLOCK = r"^(\d{4}-\d\d-\d\d) 00:00:00$"


class ExcelReader(TableReader):
    """Workbooks (xlsx, xlsm, xlsb, xls, ods); one sheet is one part, ``(0,)``, and ``x_row`` the sheet's row.

    All cells are texts, dates and times in the form of ISO 8601 with a blank.
    """

    def columns(self, path: Path) -> list[str]:
        return self._names(self._cells(path))

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        names = self.columns(path)
        wanted = self.wanted(path)
        twice = [name for name in wanted if names.count(name) > 1]
        if twice:
            raise Unreadable(f"has two columns {listed(twice)}; give one of them another name")
        missing = [name for name in wanted if name not in names]
        if missing:
            raise Unreadable(
                f"row {self.config.csv.header} has no column {listed(missing)}; it has "
                f"{listed(names)}{near_names(missing, names)}; correct the YAML (csv.header is the row of the names), "
                "or the file"
            )
        yield (0,), file_hash(path)[:16]

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        dialect = self.config.csv
        for place in places:
            cells = self._cells(path)
            names = self._names(cells)
            header = 0 if dialect.names else dialect.header
            rows = cells.with_row_index(ROW, 1)[max([header, *dialect.skip]) :]
            rows = rows.filter(pl.any_horizontal(pl.all().exclude(ROW).is_not_null()))
            found = {name: pl.col(cells.columns[names.index(name)]) for name in columns if name in names}
            together = {
                name: cell.str.replace(NO_DAY, "").str.replace(NO_CLOCK, "$1")
                for name, cell in found.items()
                if name in self.config.time.columns
            }
            absent = {name: pl.lit(None, pl.String) for name in columns if name not in found}
            chosen = [cell.alias(name) for name, cell in (found | together | absent).items()]
            yield place, rows.select(*chosen, pl.col(ROW).cast(pl.Int64), pl.lit(None, pl.String).alias(PROBLEM))

    def _names(self, cells: pl.DataFrame) -> list[str]:
        if self.config.csv.names:
            return list(self.config.csv.names)
        if cells.height < self.config.csv.header:
            raise Unreadable(f"its sheet has no row {self.config.csv.header}; correct csv.header, or the file")
        return [str(name or "").strip() for name in cells.row(self.config.csv.header - 1)]

    def _cells(self, path: Path) -> pl.DataFrame:
        with workbook(path) as book:
            sheet = self.config.sheet or book.sheet_names[0]
            if sheet not in book.sheet_names:
                raise Unreadable(f"has no sheet {sheet!r}; it has {listed(book.sheet_names)}; correct `sheet`")
            if self.config.sheet is None and len(book.sheet_names) > 1:
                raise Unreadable(f"has the sheets {listed(book.sheet_names)}; name the right one under `sheet`")
            return cells_of(book, sheet)


@contextmanager
def workbook(path: Path) -> Iterator[Workbook]:
    """A workbook. Raises Unreadable."""
    try:
        import fastexcel
    except ImportError as error:
        raise Unreadable(
            "cannot be read without fastexcel; install it: pip install 'ionbeam-dagster[excel]'"
        ) from error
    try:
        yield fastexcel.read_excel(path)
    except fastexcel.FastExcelError as error:
        raise Unreadable(f"cannot be read ({error}); put an intact copy in its place") from error


def cells_of(book: Workbook, sheet: str, rows: int | None = None) -> pl.DataFrame:
    """The cells of a sheet as texts, of its first `rows` where so many are given."""
    return book.load_sheet(sheet, header_row=None, n_rows=rows, dtypes="string").to_polars()
