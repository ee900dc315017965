"""The source `files`: what a weather service that has files, not an API, starts with.

Belongs here: how the YAML and what files say of themselves become ingestion metadata, which files a window is made of,
and what is told of them. Does not belong here: the rows of a window (window_rows.py), formats (readers.py and what it
names), and what is known of files (index.py, known.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    MetadataVariable,
)
from ionbeam_dagster.domain.windows import DAY, HOUR, Window, window_of
from ionbeam_dagster.errors import NoLongerThere, SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.files.config import FilesConfig, FileVariable
from ionbeam_dagster.sources.files.describing import completed, flags, raised, reason, twice
from ionbeam_dagster.sources.files.index import FileIndex
from ionbeam_dagster.sources.files.known import (
    EPOCH,
    MICROSECOND,
    File,
    changed_ranges,
    shared_times,
)
from ionbeam_dagster.sources.files.levels import Heights
from ionbeam_dagster.sources.files.readers import Described, Layout, Unreadable
from ionbeam_dagster.sources.files.stations import Stations
from ionbeam_dagster.sources.files.stretches import HOLE, joined
from ionbeam_dagster.sources.files.tables import ROWS_AT_ONCE
from ionbeam_dagster.sources.files.window_rows import Columns, WindowRows

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
        self._stations = Stations(config, config.stations) if config.stations else None
        self._rows = WindowRows(config, self._index, self._stations)

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
        columns = self._columns()
        layout = columns.reference
        self._refuse_where_nothing_can_be_read()
        described = [*layout.metadata, *flags(layout), *self._config.constants, *self._config.named]
        described += self._config.stations.metadata if self._config.stations else []
        return IngestionMetadata(
            dataset=self.described(""),
            ingestion_map=DataIngestionMap(
                canonical_variables=list(columns.variables.values()),
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
        self._rows.join_anew()
        columns = self._columns()
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
        for table, path in self._rows.of_files(files, window, columns):
            schema = schema or table.schema
            waiting += _fitted(table, schema, path).to_batches()
            if sum(batch.num_rows for batch in waiting) >= ROWS_AT_ONCE:
                yield from _joined(waiting)
                waiting = []
        yield from _joined(waiting)

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
                raise NoLongerThere(
                    f"{file.path}: is no longer among the files of {self._config.path}, and held observations of "
                    f"{window}; what was collected of it stays. Put the file back to collect it again, or let it go: "
                    f"`ionbeam reingest {self.name} {window.as_options} --replace`"
                )
            if file.is_unknown and file.error:
                raise SourceError(f"{file.path}: {file.error} (it may hold observations of {window})")
            if file.unsettled and (file.is_unknown or not file.reaches(window)):
                raise SourceError(_unfinished(file, window))

    def _nothing_there(self) -> str:
        gone = [file for file in self._index.look().values() if file.gone]
        if not gone:
            return f"{self._config.path}: no file matches; correct `path`, or put files there"
        files = "1 file was" if len(gone) == 1 else f"{len(gone):,} files were"
        return (
            f"{self._config.path}: no file matches any longer, where {files} before ({_missed_since(gone)}); what was "
            "collected stays. Mount the folder, or put files there"
        )

    def gone(self) -> list[str]:
        try:
            files = self._index.look().values()
        except SourceError as error:
            return [str(error)]
        gone = [file for file in files if file.gone]
        if len(gone) == len(files):
            return [self._nothing_there()]
        if not gone:
            return []
        one = len(gone) == 1
        many = f"{gone[0].path} is" if one else f"{len(gone):,} files, the first of them {gone[0].path}, are"
        return [
            f"{many} no longer among the files of {self._config.path}; what was collected of {'it' if one else 'them'} "
            f"stays ({_missed_since(gone)}; `when_removed: withdraw` is for those who mirror a folder)"
        ]

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
        """The time before the first row of all files, the holes of a week or longer between rows, and that behind the
        last one where it is a week old; none while a file may still have rows there."""
        try:
            files = self._index.look().values()
        except SourceError:
            return []  # collecting it tells
        if any(file.is_unknown or (file.unsettled and not file.grows) for file in files):
            return []
        rows = joined((one for file in files for part in file.parts for one in part.times_of_rows), HOLE)
        if not rows:
            return []
        now, last = (datetime.now(UTC) - EPOCH) // MICROSECOND, rows[-1][1]
        behind = min((range.end + DAY - EPOCH) // MICROSECOND, now) if now - last > HOLE else last
        begins = [(range.start - DAY - EPOCH) // MICROSECOND, *(last + 1 for _, last in rows)]
        ends = [*(first for first, _ in rows), behind]
        holes = (
            Window(EPOCH + begin * MICROSECOND, EPOCH + end * MICROSECOND)
            for begin, end in zip(begins, ends, strict=True)
            if begin < end
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
        there = {name: file for name, file in files.items() if not file.gone}
        lines += self.gone()
        if left := self._rows.without_value:
            rows, are = ("1 row", "is") if left == 1 else (f"{left:,} rows", "are")
            lines.append(f"{self._config.path}: {rows} without a value of any variable {are} left out")
        return lines + (self._stations.problems() if self._stations else []) + shared_times(there)

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The ranges whose content differs from what it was when `cursor` was given out, and a new cursor.

        Without a cursor these are the ranges of all files. They are not aligned to anything. A file that was changed
        or damaged counts with its old and its new times.
        """
        return changed_ranges(self._index.look(), self._reading, cursor)

    def _columns(self) -> Columns:
        layout, missing = self._reference()
        variables: dict[str, CanonicalVariable] = {}
        faults: list[str] = []
        stated: list[FileVariable] = []
        heights: dict[str, Heights] = {}
        for variable in self._config.variables:
            try:
                described = layout.described.get(variable.column, Described())
                each = raised(variable, layout.levels)
                variables |= {one.column: completed(one, described)[0] for one in each}
                stated += each
                heights |= {one.column: variable.heights for one in each if variable.heights}
            except ValueError as error:
                faults.append(f"sources.{self.name}.variables: {variable.column!r}: {reason(error)}")
        faults += twice(variables, f"sources.{self.name}.variables")
        if faults:
            raise SourceError("\n".join(missing or faults))  # what no file can tell is no fault of the YAML
        return Columns(variables, layout, tuple(stated), heights)

    def _reference(self) -> tuple[Layout, list[str]]:
        """The layout of the first file that can be read, and why there is none, if so."""
        if self._index.format_of(self._config.path) in ("csv", "parquet", "excel"):
            return self._index.reader(self._config.path).layout(Path(self._config.path)), []
        for file in self._index.look().values():
            if not (file.error or file.gone or (file.unsettled and not file.grows)):
                with suppress(Unreadable):
                    return self._index.layout(file), []
        return Layout((), {}, self._config.columns_of_metadata), self.problems()


def _memory(name: str, config: FilesConfig) -> Path:
    return config.cache_path / f"{name}.files.json"


def _missed_since(gone: Sequence[File]) -> str:
    since = min((file.gone_at for file in gone if file.gone_at is not None), default=None)
    return "missed before" if since is None else f"missed since {EPOCH + since * MICROSECOND:%Y-%m-%d %H:%M}"


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
