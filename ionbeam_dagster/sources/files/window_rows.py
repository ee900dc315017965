"""The rows of a window out of the files that hold some of it: which wait for other windows, and which are read now.

Belongs here: reading parts of files into rows of the source, each once where its rows can wait. Does not belong here:
which files a window is of, and what is told of them (source.py), or how cells become rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path

import polars as pl
import pyarrow as pa

from ionbeam_client.models import CanonicalVariable
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.windows import DAY, Window, window_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files.config import FilesConfig, FileVariable
from ionbeam_dagster.sources.files.csv_files import CsvReader
from ionbeam_dagster.sources.files.describing import completed, factors, flags, is_text, reason
from ionbeam_dagster.sources.files.index import FileIndex
from ionbeam_dagster.sources.files.known import File, Part, is_as_it_was
from ionbeam_dagster.sources.files.levels import Heights
from ionbeam_dagster.sources.files.readers import Described, Layout, Place, Unreadable, listed
from ionbeam_dagster.sources.files.rows import (
    FILE,
    VARIABLE,
    Reach,
    Shaping,
    constants_of,
    filed,
    filed_by,
    filed_in,
    of_window,
)
from ionbeam_dagster.sources.files.small_files import NUMBER, SmallTable, Spool, is_small, may_be_together, rows_of
from ionbeam_dagster.sources.files.stations import Stations
from ionbeam_dagster.sources.files.times import FILED, timed
from ionbeam_dagster.sources.files.wide_parts import MANY, KeptParts


@dataclass(frozen=True, slots=True)
class Columns:
    """What the rows of all files have: the variables by column, the layout that they were completed from, what the
    block states of each (of a profile's, one a height), and where those that are one of several heights have theirs."""

    variables: Mapping[str, CanonicalVariable]
    reference: Layout
    stated: tuple[FileVariable, ...]
    heights: Mapping[str, Heights]


class WindowRows:
    """Reads rows of one window after the other, and keeps some for those that follow."""

    def __init__(self, config: FilesConfig, index: FileIndex, stations: Stations | None) -> None:
        self._config = config
        self._index = index
        self._stations = stations
        self._spool: Spool | None = None
        self._kept = KeptParts()
        self._without_value: dict[object, int] = {}
        self._joined_with = ""

    @property
    def without_value(self) -> int:
        """How many rows of what was read have no value of any variable."""
        return sum(self._without_value.values())

    def of_files(self, files: dict[str, File], window: Window, columns: Columns) -> Iterator[tuple[pa.Table, str]]:
        """The rows of `files` in `window`, in their order, each table with the path of a file that it is of."""
        spooled = self._spooled(files, columns)
        for together, names in groupby(files, spooled.__contains__):
            yield from self._tables(together, list(names), files, window, columns)

    def join_anew(self) -> None:
        """Let go of rows that wait with what a list said of stations before it changed. Raises SourceError."""
        if self._stations is not None and self._joined_with != self._stations.content:
            self._spool, self._kept, self._joined_with = None, KeptParts(), self._stations.content

    def _tell(self, of: object, without_value: int) -> None:
        """Remember how many rows of what was read have no value; long and wide tables have such by their form."""
        if self._config.long is None and self._config.wide is None:
            self._without_value[of] = without_value

    def _reach(self) -> Reach:
        """The times of the windows that are collected, now or within `future_tolerance`."""
        begins = self._config.start if "start" in self._config.model_fields_set else self._index.first()
        start = None if begins is None else window_of(begins, DAY).start
        return Reach(start, self._config.end, datetime.now(UTC) + self._config.future_tolerance)

    def _spooled(self, files: dict[str, File], columns: Columns) -> Collection[str]:
        """The names of small files whose rows wait on disk, so that each is read once for all windows."""
        if not may_be_together(self._config):
            return ()
        small = {
            name: (Path(file.path), (file.size, file.modified))
            for name, file in files.items()
            if len(file.parts) == 1 and is_small(file.size) and not file.grows and self._index.format_of(name) == "csv"
        }
        if not small:
            return ()
        if self._spool is None:
            reader = CsvReader(self._config)
            layout = reader.layout(Path(self._config.path))
            try:
                shaping = self._shaping(layout, columns)
            except Unreadable as error:
                raise SourceError(f"{next(iter(small.values()))[0]}: {error}") from error
            self._spool = Spool(reader, partial(_shaped_tables, reader, shaping, self._config, self._reach, self._tell))
        read = self._spool.take(small)
        changed = next((files[name] for name in self._spool.taken if not is_as_it_was(files[name])), None)
        if changed is not None:
            raise SourceError(f"{changed.path}: was changed while it was read; collect the window again")
        return read

    def _tables(
        self,
        together: bool,
        names: list[str],
        files: dict[str, File],
        window: Window,
        columns: Columns,
    ) -> Iterator[tuple[pa.Table, str]]:
        """The rows of files in `window`, each table with the path of a file that it is of."""
        if together and self._spool is not None:
            rows = self._spool.rows(names, window)
            if rows.height:
                yield rows.to_arrow(), files[names[0]].path
            return
        for name in names:
            for table in self._rows(name, files[name], window, columns):
                yield table, files[name].path

    def _rows(self, name: str, file: File, window: Window, columns: Columns) -> Iterator[pa.Table]:
        parts = file.overlapping(window)
        if not self._keep(name, file, window, parts, columns):
            for _, frame in self._read(name, file, window, parts, columns, filed_in(window)):
                yield of_window(frame, window).to_arrow()
            return
        rows = self._kept.rows(name, (file.size, file.modified), [part.place for part in parts], window)
        if rows is not None:
            yield rows.to_arrow()

    def _keep(
        self,
        name: str,
        file: File,
        window: Window,
        parts: Sequence[Part],
        columns: Columns,
    ) -> bool:
        """Have all rows of parts wait for other windows, where they reach over many; False where they do not wait."""
        state, longest = (file.size, file.modified), MANY * window.span // timedelta.resolution
        wide = any(part.last - part.first > longest for part in parts) or self._kept.has_any(name, state)
        if file.grows or not wide or not self._kept.has_room(name, state):
            return False
        missing = self._kept.missing(name, state, [part.place for part in parts])
        unread = [part for part in parts if part.place in missing]
        read = self._read(name, file, window, unread, columns, pl.lit(True))
        return self._kept.keep(name, state, missing, read)

    def _read(
        self,
        name: str,
        file: File,
        window: Window,
        parts: Sequence[Part],
        columns: Columns,
        wanted: pl.Expr,
    ) -> Iterator[tuple[Place, pl.DataFrame]]:
        """The source's rows of parts of a file, with ``x_filed``; refused where the file changed while it was read."""
        if not parts:
            return
        before, reach = {part.place: part.before for part in parts}, self._reach()
        without_value = 0
        try:
            shaping = self._shaping(self._index.layout(file), columns, file)
            reader, station = self._index.reader(file.path), shaping.layout.metadata.get(STATION)
            of_file = _of_file(self._config, name, file.path)
            for place, frame in reader.read(Path(file.path), list(before), shaping.columns()):
                frame = timed(frame, shaping.layout.times, self._config.time, station)
                frame = filed(frame, before[place], reach)
                before[place] = frame[FILED].to_physical()[-1] if frame.height else before[place]
                frame = frame.filter(wanted)
                shaped = shaping.shape(frame, of_file, keep=(FILED,))
                without_value += frame.height - shaped.height
                if shaped.height:
                    yield place, shaped
            if self._index.format_of(name) != "netcdf":  # grids have such rows by their form
                self._tell((name, window), without_value)
        except Unreadable as error:
            if is_as_it_was(file):
                raise SourceError(f"{file.path}: {error}") from error
        if not (self._grew(file, window) if file.grows else is_as_it_was(file)):
            raise SourceError(f"{file.path}: was changed while it was read; collect {window} again")

    def _grew(self, file: File, window: Window) -> bool:
        """Whether a file that was being written has only got longer since, as far as a window is concerned."""
        reader = self._index.reader(file.path)
        try:
            content = {part.place: part.content for part in file.overlapping(window)}
            return reader.is_unchanged(Path(file.path), content)
        except Unreadable:
            return False

    def _shaping(self, layout: Layout, columns: Columns, file: File | None = None) -> Shaping:
        """How a file becomes rows of the source. Raises Unreadable where it does not fit the other files."""
        variables, reference = columns.variables, columns.reference
        if layout.metadata.keys() != reference.metadata.keys():
            raise Unreadable(
                f"holds {', '.join(layout.metadata) or 'no descriptive column'}, where other files hold "
                f"{', '.join(reference.metadata) or 'none'}; state `metadata`, or make a source of its own for the file"
            )
        conversions = {}
        self._refuse_other_heights(layout, reference)
        for stated in columns.stated:
            column, wanted = stated.column, variables[stated.column]
            try:
                variable, unit = completed(stated, layout.described.get(stated.stands_in, Described()))
                if variable.model_copy(update={"cf_unit": wanted.cf_unit}) != wanted:
                    raise ValueError(
                        f"is {variable.to_canonical_name()} here and {wanted.to_canonical_name()} in other files; "
                        "state in the YAML what is right, or make a source of its own for the file"
                    )
                scale, offset = (1.0, 0.0) if is_text(variable) else factors(unit, wanted)
                conversions[column] = scale * stated.scale, offset
            except ValueError as error:
                raise Unreadable(f"variable {column!r}: {reason(error)}") from error
        texts = frozenset(column for column, variable in variables.items() if is_text(variable))
        return Shaping(
            self._config,
            layout,
            conversions,
            texts,
            flags(reference),
            columns.stated,
            columns.heights,
            wide=self._wide(file, layout) if file else {},
            factors=lambda column, unit: factors(unit, variables[column]),
            joined=self._stations.joined if self._stations else None,
        )

    def _refuse_other_heights(self, layout: Layout, reference: Layout) -> None:
        for where in [one.heights for one in self._config.variables if one.heights and not one.heights.heights]:
            here, there = layout.levels.get(where.column, ()), reference.levels.get(where.column, ())
            if not {*here} <= {*there}:
                raise Unreadable(
                    f"has other heights in {where.column!r} ({_in_metres(here)}) than other files "
                    f"({_in_metres(there)}); state which are read: level: {{column: {where.column}, heights: [...]}}"
                )

    def _wide(self, file: File, layout: Layout) -> dict[str, dict[str, str]]:
        """The columns of a file that are one station's each, with what their names say. Raises Unreadable.

        Those of the time, the place and the metadata are no station's, whatever the pattern finds.
        """
        if self._config.wide is None:
            return {}
        apart = {*layout.times, *layout.place.values(), *layout.metadata.values()}
        names = [name for name in self._index.reader(file.path).columns(Path(file.path)) if name not in apart]
        found = {name: told.groupdict() for name in names if (told := self._config.wide.fullmatch(name))}
        wanted = {variable.column for variable in self._config.variables}
        found = {name: groups for name, groups in found.items() if groups.get(VARIABLE) in {None, *wanted}}
        if not found:
            raise Unreadable(f"has no column that `wide` finds; it has {listed(names)}; correct the YAML or the file")
        return found


def _in_metres(heights: Sequence[float]) -> str:
    return ", ".join(f"{height:g}" for height in heights) + " m"


def _of_file(config: FilesConfig, name: str, path: str) -> dict[str, pl.Expr]:
    """The columns of a file's rows that follow from its name."""
    constants = {column: pl.lit(text, pl.String) for column, text in constants_of(config, name, path).items()}
    return constants | {FILE: pl.lit(name)}


def _shaped_tables(
    reader: CsvReader,
    shaping: Shaping,
    config: FilesConfig,
    reach: Callable[[], Reach],
    tell: Callable[[object, int], None],
    tables: Sequence[SmallTable],
) -> pl.DataFrame:
    """The source's rows of small tables, with ``x_filed`` and ``x_number``. Raises Unreadable."""
    times = shaping.layout.times
    frame = timed(rows_of(reader, tables, shaping.columns()), times, config.time)
    before = frame.group_by(NUMBER).agg(pl.col(FILED).drop_nulls().first().to_physical()).sort(NUMBER)
    first = pl.Series([None] * len(tables), dtype=pl.Int64).scatter(before[NUMBER], before[FILED])
    frame = filed_by(frame, NUMBER, first, reach())
    constants = [constants_of(config, table.name, table.path.as_posix()) | {FILE: table.name} for table in tables]
    told = pl.DataFrame(constants, schema=dict.fromkeys(constants[0], pl.String))
    of_row = {name: pl.lit(told[name].gather(frame[NUMBER])) for name in told.columns}
    shaped = shaping.shape(frame, of_row, keep=(FILED, NUMBER))
    tell(tuple(table.name for table in tables), frame.height - shaped.height)
    return shaped
