"""The list of the stations, where they are described in a file of its own.

Belongs here: reading it, telling that it changed, and what it says of each row's station. Does not belong here: what is
done with cells, of whatever file they are (rows.py).
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import polars as pl

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files.config import DescribedColumn, FilesConfig, StationList, format_by_name
from ionbeam_dagster.sources.files.csv_files import CsvReader
from ionbeam_dagster.sources.files.excel_files import ExcelReader
from ionbeam_dagster.sources.files.readers import PROBLEM, TableReader, Unreadable
from ionbeam_dagster.sources.files.rows import Shaping
from ionbeam_dagster.sources.files.tables import ParquetReader
from ionbeam_dagster.sources.files.written import TimeColumn

_READERS: dict[str | None, type[TableReader]] = {"parquet": ParquetReader, "excel": ExcelReader}
_KEY, _FAULT = "x_key", "x_fault"
_SHOWN = 10


class Stations:
    """What a list says of stations. It is read again when it changes."""

    def __init__(self, config: FilesConfig, stated: StationList) -> None:
        self._stated = stated
        described = {STATION: DescribedColumn(column=stated.id), **stated.metadata}
        of_list = {"csv": stated.csv, "latitude": stated.latitude, "longitude": stated.longitude, "metadata": described}
        of_data = {"time": TimeColumn(), "constants": {}, "stations": None, "sheet": None, "member": None}
        self._config = config.model_copy(update=of_list | of_data)
        self._state: tuple[int, int] | None = None
        self._table = pl.DataFrame()
        self._content = ""
        self._unlisted: set[str] = set()

    @property
    def content(self) -> str:
        """A hash of what the list says. Raises SourceError."""
        self._read()
        return self._content

    def joined(self, shaped: pl.DataFrame) -> pl.DataFrame:
        """Rows with what the list says of their stations. Rows of one that it does not have, or has at several places,
        have no time, and say so. Raises SourceError."""
        self._read()
        rows = shaped.with_columns(self._key(pl.col(STATION)).alias(_KEY)).rename({STATION: "x_id"})
        rows = rows.join(self._table, on=_KEY, how="left", maintain_order="left")
        unlisted = pl.format(
            f"{STATION}: {{}} is not in the list {self._stated.path}; add it there",
            pl.col("x_id").fill_null("a row without a station"),
        )
        fault = pl.coalesce(PROBLEM, _FAULT, pl.when(pl.col(STATION).is_null()).then(unlisted))
        self._unlisted |= set(rows.filter(pl.col(STATION).is_null())["x_id"].drop_nulls().unique())
        return rows.with_columns(
            pl.when(fault.is_null()).then(pl.col("datetime")),
            fault.alias(PROBLEM),
            pl.coalesce(STATION, "x_id").alias(STATION),
        ).drop(_KEY, _FAULT, "x_id")

    def problems(self) -> list[str]:
        """A line where the list cannot be read, or lacks stations of rows that were read."""
        try:
            self._read()
        except SourceError as error:
            return [str(error)]
        if not self._unlisted:
            return []
        names = sorted(self._unlisted)
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        return [f"{self._stated.path}: has no station {', '.join(names[:_SHOWN])}{more}, whose rows are set aside"]

    def _read(self) -> None:
        path = Path(self._stated.path)
        try:
            stat = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: the list of stations cannot be read ({error.strerror})") from error
        if self._state == (state := (stat.st_size, stat.st_mtime_ns)):
            return
        try:
            self._table = self._listed(path)
        except Unreadable as error:
            raise SourceError(f"{path}: the list of stations {error}") from error
        self._content = sha256(self._table.write_csv().encode()).hexdigest()[:16]
        self._state, self._unlisted = state, set()

    def _listed(self, path: Path) -> pl.DataFrame:
        """A row for each station, with ``x_fault`` where it is not at one place. Raises Unreadable."""
        of = _READERS.get(format_by_name(path.name), CsvReader)
        layout = of(self._config).layout(path)
        place = {} if self._stated.latitude is None else layout.place
        columns = list(dict.fromkeys([*place.values(), *layout.metadata.values()]))
        reader = of(self._config, columns)
        frames = [frame for _, frame in reader.read(path, [place for place, _ in reader.parts(path)], columns)]
        frame = pl.concat(frames).filter(pl.col(PROBLEM).is_null())
        shaping = Shaping(self._config, replace(layout, place=place), {}, frozenset(), (), (), {})
        rows = frame.select(shaping.descriptions(frame)).drop_nulls(STATION)
        rows = rows.with_columns(self._key(pl.col(STATION)).alias(_KEY)).unique(maintain_order=True)
        rows = rows.with_columns(pl.col(name).cast(pl.Float64, strict=False) for name in place)
        several = pl.len().over(_KEY) > 1
        nowhere = pl.any_horizontal(pl.col(*place).is_null()) if place else pl.lit(False)
        told = f"{STATION}: {{}} {{}} the list {path}; correct it there"
        fault = (
            pl.when(several)
            .then(pl.format(told, STATION, pl.lit("stands more than once, each time otherwise, in")))
            .when(nowhere)
            .then(pl.format(told, STATION, pl.lit("has no place in")))
        )
        return rows.with_columns(fault.alias(_FAULT)).unique(_KEY, keep="first", maintain_order=True)

    def _key(self, station: pl.Expr) -> pl.Expr:
        text = station.str.strip_chars()
        return text.str.replace(r"^0*(\d+?)(?:\.0*)?$", "$1") if self._stated.ids_are_numbers else text
