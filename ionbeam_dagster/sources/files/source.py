"""The source `files`: what a weather service that has files, not an API, starts with.

Belongs here: how the YAML and what files say of themselves become ingestion metadata, and the files' rows a window's
observations. Does not belong here: formats (readers.py and what it names), and what is known of files (index.py,
known.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.windows import DAY, HOUR, Window, window_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.files.config import FilesConfig
from ionbeam_dagster.sources.files.csv_files import CsvReader
from ionbeam_dagster.sources.files.describing import completed, factors, flags, is_text, reason, twice
from ionbeam_dagster.sources.files.index import FileIndex
from ionbeam_dagster.sources.files.known import (
    EPOCH,
    MICROSECOND,
    File,
    Part,
    changed_ranges,
    is_as_it_was,
    shared_times,
)
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
from ionbeam_dagster.sources.files.stretches import HOLE, joined
from ionbeam_dagster.sources.files.tables import ROWS_AT_ONCE
from ionbeam_dagster.sources.files.times import FILED, timed
from ionbeam_dagster.sources.files.wide_parts import MANY, KeptParts

FAULTS_TOLD = 5


class Files(Source):
    """A folder, a file or a glob of CSV, Parquet or CF netCDF files.

    A file that is added or changed changes the signature of the windows whose rows it holds; one that cannot be read
    fails those windows, as far as its times are known, and no others. One that is gone withdraws nothing, unless the
    YAML says so. A CSV that grows is read as far as its lines are whole. Of files with the same rows the last by name
    wins.
    """

    Config = FilesConfig
    tells_changes = True
    default_deadline = HOUR

    def __init__(self, name: str, config: FilesConfig) -> None:
        super().__init__(name, config)
        self._config = config
        self._index = FileIndex(config, _memory(name, config))
        self._spool: Spool | None = None
        self._kept = KeptParts()
        self._without_value: dict[object, int] = {}
        self._stations = Stations(config, config.stations) if config.stations else None
        self._joined_with = ""

    @classmethod
    def first_time(cls, name: str, config: SourceConfig) -> datetime | None:
        """The day of the files' first time, as far as it is known; files are only looked at where none was known.

        Rows that stand alone a year before all others, of a clock that was not set, are no first time.
        """
        assert isinstance(config, FilesConfig)
        try:
            first = FileIndex(config, _memory(name, config)).first()
        except SourceError:
            return None  # collecting them tells
        return None if first is None else window_of(first, DAY).start

    @property
    def metadata(self) -> IngestionMetadata:
        """The YAML's variables, completed by what the files declare of them.

        Raises SourceError with every fault: what neither says, names and units that CF or UDUNITS do not know, and
        units that do not fit; also where there are files, and none of them can be read.
        """
        variables, layout = self._variables()
        self._refuse_where_nothing_can_be_read()
        described = [*layout.metadata, *flags(layout), *self._config.constants, *self._config.named]
        described += self._config.stations.metadata if self._config.stations else []
        return IngestionMetadata(
            dataset=self.described(""),
            ingestion_map=DataIngestionMap(
                canonical_variables=list(variables.values()),
                metadata_variables=[MetadataVariable(column=column) for column in described],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The rows of all files that lie in `window`, in the order of the files' names and of their rows.

        Beside the declared columns there are ``x_file``, ``x_row`` (the line of a CSV, the row of a Parquet file) and
        ``x_problem`` (what is wrong with a row that could not be split or has no time), for whoever looks into the
        quarantine. Rows without any value are left out; `problems` has how many they were.
        """
        there = {name: file for name, file in self._index.look().items() if not file.gone}
        if not there:
            raise SourceError(self._nothing_there())
        self._join_anew()
        variables, reference = self._variables()
        files = {name: file for name, file in there.items() if file.overlapping(window)}
        if not files:
            self._refuse_not_known(window)
        for file in files.values():
            if file.error:
                raise SourceError(f"{file.path}: {file.error} (it holds observations of {window})")
            if not file.reaches(window):
                raise SourceError(_unfinished(file, window))
        schema: pa.Schema | None = None
        waiting: list[pa.RecordBatch] = []
        spooled = self._spooled(files, variables, reference)
        for together, names in groupby(files, spooled.__contains__):
            for table, path in self._tables(together, list(names), files, window, variables, reference):
                schema = schema or table.schema
                waiting += _fitted(table, schema, path).to_batches()
                if sum(batch.num_rows for batch in waiting) >= ROWS_AT_ONCE:
                    yield from _joined(waiting)
                    waiting = []
        yield from _joined(waiting)

    def _join_anew(self) -> None:
        """Let go of rows that wait with what a list said of stations before it changed. Raises SourceError."""
        if self._stations is not None and self._joined_with != self._stations.content:
            self._spool, self._kept, self._joined_with = None, KeptParts(), self._stations.content

    @property
    def _reading(self) -> str:
        """A hash of all that decides what is read from given files. Raises SourceError."""
        return self._config.reading + (f" {self._stations.content}" if self._stations else "")

    def _refuse_where_nothing_can_be_read(self) -> None:
        try:
            files = [file for file in self._index.look().values() if not file.gone]
        except SourceError:
            return  # collecting it tells
        if files and all(file.error and not file.parts for file in files):
            raise SourceError("\n".join(f"{file.path}: {file.error}" for file in files[:FAULTS_TOLD]))

    def _refuse_not_known(self, window: Window) -> None:
        """Refuse to say that a window is empty, where no file is known to hold observations of it, but one may."""
        for file in self._index.look().values():
            if file.gone and file.overlapping(window):
                raise SourceError(
                    f"{file.path}: is gone, and held observations of {window}; what was collected of it stays. Put the "
                    "file back to collect it again"
                )
            if file.is_unknown and file.error:
                raise SourceError(f"{file.path}: {file.error} (it may hold observations of {window})")
            if file.unsettled and (file.is_unknown or not file.reaches(window)):
                raise SourceError(_unfinished(file, window))

    def _nothing_there(self) -> str:
        gone = sum(file.gone for file in self._index.look().values())
        if not gone:
            return f"{self._config.path}: no file matches; correct `path`, or put files there"
        files = "1 file was" if gone == 1 else f"{gone:,} files were"
        return (
            f"{self._config.path}: no file matches any longer, where {files} before; what was collected stays. Mount "
            "the folder, or put files there"
        )

    def answers_whole(self, window: Window) -> bool:
        return self._config.when_removed == "withdraw"

    def signature(self, window: Window) -> str:
        """A hash of how files are read, and of the names and contents of all parts of files that overlap `window`."""
        marks = sorted(
            f"{name} {mark.content} {mark.first} {mark.last}"
            for name, file in self._index.look().items()
            for mark in file.marks
            if mark.range.overlaps(window)
        )
        return hashlib.sha256("\n".join([self._reading, *marks]).encode()).hexdigest()

    def extent(self) -> Window | None:
        """From the first to the last time of all files, with those of a damaged file as far as they are known."""
        extents = [extent for file in self._index.look().values() if (extent := file.extent)]
        return Window(min(e.start for e in extents), max(e.end for e in extents)) if extents else None

    def last_time(self) -> datetime | None:
        return self._index.last()

    def nothing_in(self, range: Window) -> list[Window]:
        """The holes of a week or longer between the rows of all files; none while a file may still have rows there."""
        try:
            files = self._index.look().values()
        except SourceError:
            return []  # collecting it tells
        if any(file.is_unknown or (file.unsettled and not file.grows) for file in files):
            return []
        rows = joined((one for file in files for part in file.parts for one in part.times_of_rows), HOLE)
        holes = (
            Window(EPOCH + (last + 1) * MICROSECOND, EPOCH + first * MICROSECOND)
            for (_, last), (first, _) in pairwise(rows)
        )
        return [hole for hole in holes if hole.overlaps(range)]

    def problems(self) -> list[str]:
        """A line for each file that cannot be read or is still being written, for files with the same rows, and for the
        rows without any value among those that were fetched."""
        try:
            files = self._index.look()
        except SourceError as error:
            return [str(error)]
        lines = [f"{file.path}: {file.error}" for file in files.values() if file.error]
        if len(lines) > 1:
            lines.insert(0, f"{len(lines):,} of {len(files):,} files cannot be read:")
        lines += [_unfinished(file) for file in files.values() if file.unsettled]
        gone = [file.path for file in files.values() if file.gone]
        there = {name: file for name, file in files.items() if not file.gone}
        if not there:
            lines.append(self._nothing_there())
        elif gone:
            many = gone[0] if len(gone) == 1 else f"{len(gone):,} files, the first of them {gone[0]},"
            lines.append(
                f"{many} {'is' if len(gone) == 1 else 'are'} gone; what was collected of it stays (`when_removed: "
                "withdraw` is for those who mirror a folder)"
            )
        if left := sum(self._without_value.values()):
            rows, are = ("1 row", "is") if left == 1 else (f"{left:,} rows", "are")
            lines.append(f"{self._config.path}: {rows} without a value of any variable {are} left out")
        return lines + (self._stations.problems() if self._stations else []) + shared_times(there)

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The ranges whose content differs from what it was when `cursor` was given out, and a new cursor.

        Without a cursor these are the ranges of all files. They are not aligned to anything. A file that was changed
        or damaged counts with its old and its new times.
        """
        return changed_ranges(self._index.look(), self._reading, cursor)

    def _tell(self, of: object, without_value: int) -> None:
        """Remember how many rows of what was read have no value; long and wide tables have such by their form."""
        if self._config.long is None and self._config.wide is None:
            self._without_value[of] = without_value

    def _reach(self) -> Reach:
        """The times of the windows that are collected, now or within `future_tolerance`."""
        begins = self._config.start if "start" in self._config.model_fields_set else self._index.first()
        start = None if begins is None else window_of(begins, DAY).start
        return Reach(start, self._config.end, datetime.now(UTC) + self._config.future_tolerance)

    def _variables(self) -> tuple[dict[str, CanonicalVariable], Layout]:
        """The variables by column, and the layout of the file that they were completed from."""
        layout, missing = self._reference()
        variables: dict[str, CanonicalVariable] = {}
        faults: list[str] = []
        for stated in self._config.variables:
            try:
                variables[stated.column], _ = completed(stated, layout.described.get(stated.column, Described()))
            except ValueError as error:
                faults.append(f"sources.{self.name}.variables: {stated.column!r}: {reason(error)}")
        faults += twice(variables, f"sources.{self.name}.variables")
        if faults:
            raise SourceError("\n".join(missing or faults))  # what no file can tell is no fault of the YAML
        return variables, layout

    def _reference(self) -> tuple[Layout, list[str]]:
        """The layout of the first file that can be read, and why there is none, if so."""
        if self._index.format_of(self._config.path) in ("csv", "parquet", "excel"):
            return self._index.reader(self._config.path).layout(Path(self._config.path)), []
        for file in self._index.look().values():
            if not (file.error or file.gone or (file.unsettled and not file.grows)):
                with suppress(Unreadable):
                    return self._index.layout(file), []
        return Layout((), {}, self._config.columns_of_metadata), self.problems()

    def _spooled(
        self, files: dict[str, File], variables: dict[str, CanonicalVariable], reference: Layout
    ) -> Collection[str]:
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
                shaping = self._shaping(layout, variables, reference)
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
        variables: dict[str, CanonicalVariable],
        reference: Layout,
    ) -> Iterator[tuple[pa.Table, str]]:
        """The rows of files in `window`, each table with the path of a file that it is of."""
        if together and self._spool is not None:
            rows = self._spool.rows(names, window)
            if rows.height:
                yield rows.to_arrow(), files[names[0]].path
            return
        for name in names:
            for table in self._rows(name, files[name], window, variables, reference):
                yield table, files[name].path

    def _rows(
        self, name: str, file: File, window: Window, variables: dict[str, CanonicalVariable], reference: Layout
    ) -> Iterator[pa.Table]:
        parts = file.overlapping(window)
        if not self._keep(name, file, window, parts, variables, reference):
            for _, frame in self._read(name, file, window, parts, variables, reference, filed_in(window)):
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
        variables: dict[str, CanonicalVariable],
        reference: Layout,
    ) -> bool:
        """Have all rows of parts wait for other windows, where they reach over many; False where they do not wait."""
        state, longest = (file.size, file.modified), MANY * window.span // timedelta.resolution
        wide = any(part.last - part.first > longest for part in parts) or self._kept.has_any(name, state)
        if file.grows or not wide or not self._kept.has_room(name, state):
            return False
        missing = self._kept.missing(name, state, [part.place for part in parts])
        unread = [part for part in parts if part.place in missing]
        read = self._read(name, file, window, unread, variables, reference, pl.lit(True))
        return self._kept.keep(name, state, missing, read)

    def _read(
        self,
        name: str,
        file: File,
        window: Window,
        parts: Sequence[Part],
        variables: dict[str, CanonicalVariable],
        reference: Layout,
        wanted: pl.Expr,
    ) -> Iterator[tuple[Place, pl.DataFrame]]:
        """The source's rows of parts of a file, with ``x_filed``; refused where the file changed while it was read."""
        if not parts:
            return
        before, reach = {part.place: part.before for part in parts}, self._reach()
        without_value = 0
        try:
            shaping = self._shaping(self._index.layout(file), variables, reference, file)
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

    def _shaping(
        self, layout: Layout, variables: dict[str, CanonicalVariable], reference: Layout, file: File | None = None
    ) -> Shaping:
        """How a file becomes rows of the source. Raises Unreadable where it does not fit the other files."""
        if layout.metadata.keys() != reference.metadata.keys():
            raise Unreadable(
                f"holds {', '.join(layout.metadata) or 'no descriptive column'}, where other files hold "
                f"{', '.join(reference.metadata) or 'none'}; state `metadata`, or make a source of its own for the file"
            )
        conversions = {}
        for stated in self._config.variables:
            column, wanted = stated.column, variables[stated.column]
            try:
                variable, unit = completed(stated, layout.described.get(column, Described()))
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
            wide=self._wide(file) if file else {},
            factors=lambda column, unit: factors(unit, variables[column]),
            joined=self._stations.joined if self._stations else None,
        )

    def _wide(self, file: File) -> dict[str, dict[str, str]]:
        """The columns of a file that are one station's each, with what their names say. Raises Unreadable."""
        if self._config.wide is None:
            return {}
        names = self._index.reader(file.path).columns(Path(file.path))
        found = {name: told.groupdict() for name in names if (told := self._config.wide.fullmatch(name))}
        wanted = {variable.column for variable in self._config.variables}
        found = {name: groups for name, groups in found.items() if groups.get(VARIABLE) in {None, *wanted}}
        if not found:
            raise Unreadable(f"has no column that `wide` finds; it has {listed(names)}; correct the YAML or the file")
        return found


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


def _memory(name: str, config: FilesConfig) -> Path:
    return config.cache_path / f"{name}.files.json"


def _unfinished(file: File, window: Window | None = None) -> str:
    again = f"; collect {window} again later" if window else ""
    if file.grows and (extent := file.extent) is not None:
        return f"{file.path}: is still being written, and its rows go as far as {extent.end:%Y-%m-%d %H:%M:%S}{again}"
    return f"{file.path}: is still being written{again}"


def _fitted(table: pa.Table, schema: pa.Schema | None, path: str) -> pa.Table:
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"{path}: its columns are of other types than those of files before it ({error}); write all files "
            "with the same types"
        ) from error


def _joined(batches: Iterable[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """`batches` as one, so that many small files do not make many small pieces."""
    found = list(batches)
    return pa.Table.from_batches(found).combine_chunks().to_batches() if found else []
