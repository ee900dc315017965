"""What is known of the files that a source reads: their times, their content, what is wrong with them.

Belongs here: finding files, telling that one changed, is damaged or still being written, and keeping this over the end
of the process. Does not belong here: what is known of one (known.py), the rows (rows.py), and what follows for a window
(source.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import polars as pl

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files.annotated_csv import AnnotatedCsvReader
from ionbeam_dagster.sources.files.config import FORMATS, FilesConfig, format_by_name, in_order, is_beside_log
from ionbeam_dagster.sources.files.csv_files import CsvReader
from ionbeam_dagster.sources.files.excel_files import ExcelReader
from ionbeam_dagster.sources.files.json_lines import JsonLinesReader
from ionbeam_dagster.sources.files.known import EPOCH, MICROSECOND, File, Part, is_as_it_was, state_of
from ionbeam_dagster.sources.files.netcdf_files import NetcdfReader
from ionbeam_dagster.sources.files.readers import EMPTY, PROBLEM, Layout, Place, Reader, Unreadable
from ionbeam_dagster.sources.files.rows import constants_of
from ionbeam_dagster.sources.files.small_files import (
    NUMBER,
    SmallTable,
    is_small,
    may_be_together,
    rows_of,
    small_tables,
)
from ionbeam_dagster.sources.files.stretches import HOLE, Stretch, beginning, joined, stretches_of
from ionbeam_dagster.sources.files.tables import ParquetReader
from ionbeam_dagster.sources.files.times import FILED, timed
from ionbeam_dagster.stores.publish import file_hash, published

STATIONS_KEPT = 1000
NEVER = -1

READERS: dict[str, type[Reader]] = {
    "csv": CsvReader,
    "parquet": ParquetReader,
    "netcdf": NetcdfReader,
    "jsonl": JsonLinesReader,
    "influx_csv": AnnotatedCsvReader,
    "excel": ExcelReader,
}


class FileIndex:
    """The files of a source. Looking again costs one `stat` per file, and reading those that changed.

    What was learnt is kept in a JSON file at `memory`, so that the times of a file that is damaged now are known, and a
    new process need not read everything again.
    """

    def __init__(self, config: FilesConfig, memory: Path) -> None:
        self._config = config
        self._memory = memory
        self._lock = Lock()
        self._files: dict[str, File] | None = None
        self._remembered: dict[str, File] = {}
        self._first: int | None = None
        self._layouts: dict[str, tuple[tuple[int, int], Layout]] = {}
        self._looked = -float("inf")

    def look(self) -> dict[str, File]:
        """All files by name, as they are now (a look that is younger than `settle` will do), sorted by name.

        Raises SourceError when the folder cannot be listed, or the files are of several formats.
        """
        with self._lock:
            if self._files is None or time.monotonic() - self._looked > self._config.settle.total_seconds():
                self._files = self._looked_over()
                self._looked = time.monotonic()
            return self._files

    def first(self) -> datetime | None:
        """The first time of the series that all files are, as far back as they ever reached; files are looked at where
        none is known. Raises SourceError."""
        if self._first is None:
            self._recalled()
        if self._first is None:
            self.look()
        return None if self._first is None else EPOCH + self._first * MICROSECOND

    def last(self) -> datetime | None:
        """The end of all files, but for the times of clocks that are ahead. Raises SourceError."""
        known = joined(one for file in self.look().values() for part in file.parts for one in part.times)
        believed = [stretch for stretch in known if stretch[0] <= self._latest()] or known
        return EPOCH + (believed[-1][1] + 1) * MICROSECOND if believed else None

    def reader(self, file: str) -> Reader:
        """What reads `file`. Raises Unreadable when its name does not tell its format."""
        form = self.format_of(file)
        if form is None:
            endings = ", ".join(ending for known in FORMATS.values() for ending in known)
            raise Unreadable(
                f"its name does not tell its format (known are {endings}); state `format`, or narrow `path`"
            )
        return READERS[form](self._config)

    def layout(self, file: File) -> Layout:
        """The layout of a file, read once while it stays as it is. Raises Unreadable."""
        state = (file.size, file.modified)
        known, layout = self._layouts.get(file.path, (None, None))
        if layout is None or known != state:
            layout = self.reader(file.path).layout(Path(file.path))
            self._layouts[file.path] = (state, layout)
        return layout

    def format_of(self, file: str) -> str | None:
        return self._config.format or format_by_name(file)

    def _looked_over(self) -> dict[str, File]:
        before, alike = self._recalled() if self._files is None else (self._files, True)
        known = before if alike else {}
        if self._files is None:
            self._files = self._remembered = known
        found: dict[str, File] = {}
        paths = dict(self._listed())
        formats = {form for path in paths.values() if (form := self.format_of(path.name))}
        if len(formats) > 1:
            raise SourceError(
                f"{self._config.path}: matches files of several formats ({', '.join(sorted(formats))}); "
                "narrow `path`, and make a source of each"
            )
        paths = dict(sorted(paths.items(), key=lambda entry: in_order(entry[0])))
        together = self._read_together({name: path for name, path in paths.items() if self._is_new(name, path)})
        for name, path in paths.items():
            with suppress(FileNotFoundError):
                found[name] = together.get(name) or self._looked_at(path, known.get(name))
        if self._config.when_removed == "keep":
            missed = {name: file for name, file in before.items() if name not in found and file.parts}
            now, left = (datetime.now(UTC) - EPOCH) // MICROSECOND, bool(found)
            found |= {name: file.missed(now, left) for name, file in missed.items()}
            found = dict(sorted(found.items(), key=lambda entry: in_order(entry[0])))
        self._remember(found)
        return found

    def _listed(self) -> Iterator[tuple[str, Path]]:
        given = Path(self._config.path)
        fixed = next((n for n, step in enumerate(given.parts) if set(step) & set("*?[")), len(given.parts))
        root, pattern = Path(*given.parts[:fixed]), "/".join(given.parts[fixed:])
        listed = Path(self._config.stations.path).absolute() if self._config.stations else None
        try:
            if not root.exists():
                raise SourceError(f"{root}: there is no such file or folder; correct `path`, or mount the folder")
            paths = root.glob(pattern) if pattern else root.iterdir() if root.is_dir() else [root]
            for path in paths:
                hidden = path.name.startswith(".") or is_beside_log(path.name) or (listed and listed == path.absolute())
                if not hidden and path.is_file() and (pattern or path == root or self.format_of(path.name)):
                    yield path.relative_to(root).as_posix() if path != root else path.name, path
        except OSError as error:
            raise SourceError(f"{root}: cannot be listed ({error.strerror}); give it read permission") from error

    def _is_new(self, name: str, path: Path) -> bool:
        """Whether a small CSV file is not known as it is now, and is not being written."""
        if not may_be_together(self._config) or self.format_of(path.name) != "csv":
            return False
        known = (self._files or {}).get(name)
        try:
            size, modified = state = state_of(path)
        except OSError:
            return False
        if not is_small(size) or (known and not known.unsettled and (known.size, known.modified) == state):
            return False
        return abs(time.time_ns() - modified) >= self._config.settle / MICROSECOND * 1000

    def _read_together(self, paths: dict[str, Path]) -> dict[str, File]:
        """Of small files that are not known as they are, those that can be read together."""
        if not paths:
            return {}
        reader = CsvReader(self._config)
        states: dict[str, tuple[int, int]] = {}
        for name, path in paths.items():
            with suppress(FileNotFoundError):
                states[name] = state_of(path)
        found: dict[str, File] = {}
        for tables in small_tables(reader, {name: paths[name] for name in states}):
            with suppress(Unreadable):
                for table, part, stations in _read_tables(reader, tables, self._config):
                    file = File(table.path.as_posix(), *states[table.name], parts=(part,), stations=stations)
                    if is_as_it_was(file):
                        found[table.name] = file
        return found

    def _looked_at(self, path: Path, known: File | None) -> File:
        now = File(path.as_posix(), *state_of(path))
        if known and not known.unsettled and (known.size, known.modified) == (now.size, now.modified):
            return known.there() if known.gone else known
        if abs(time.time_ns() - now.modified) < self._config.settle / timedelta(microseconds=1) * 1000:
            return self._growing(path, now, known)
        read = self._read(path, now, known)
        return read if is_as_it_was(read) else self._growing(path, now, known)

    def _growing(self, path: Path, now: File, known: File | None) -> File:
        """A file that is being written, with the whole lines that it has so far, where its format has lines."""
        as_before = replace((known or now).there(), unsettled=True)
        if not self.reader(path.name).grows_by_lines(path):
            return as_before
        try:
            parts, stations = self._contents(path, known, whole_lines=True)
        except (Unreadable, FileNotFoundError):
            return as_before
        return replace(now, parts=parts, stations=stations, unsettled=True, grows=True)

    def _read(self, path: Path, now: File, known: File | None) -> File:
        try:
            parts, stations = self._contents(path, known)
        except Unreadable as error:
            content = f"{now.size} {now.modified}"
            with suppress(OSError):
                content = file_hash(path)[:16]
            before = known or now
            return replace(now, content=content, parts=before.parts, stations=before.stations, error=str(error))
        return replace(now, parts=parts, stations=stations)

    def _contents(
        self, path: Path, known: File | None, whole_lines: bool = False
    ) -> tuple[tuple[Part, ...], tuple[str, ...] | None]:
        """The parts of a file and its stations. Parts that are as they were known are not read again."""
        reader = self.reader(path.name)
        if not path.stat().st_size:
            raise Unreadable(EMPTY)
        layout = reader.layout(path)
        identifier = layout.metadata.get(STATION)
        columns = [*layout.times, *([identifier] if identifier else [])]
        content = dict(reader.parts(path, whole_lines))
        stations_before = known.stations if known else None
        unchanged = _unchanged(known.parts, content) if known and stations_before is not None else {}
        spans = {place: unchanged.get(place) or _Span() for place in content}
        stations = {*(stations_before or ())} if unchanged else set()
        problem, remedy = "holds no row", "correct or remove the file"
        for place, frame in reader.read(path, [place for place in content if place not in unchanged], columns):
            frame = timed(frame, layout.times, self._config.time, identifier)
            spans[place].add(frame[FILED])
            if (first := frame[PROBLEM].drop_nulls().first()) is not None:
                problem, remedy = str(first), "say how times are written (time.format, time.unit), or correct the file"
            if identifier and len(stations) <= STATIONS_KEPT:
                stations |= set(frame[identifier].drop_nulls().cast(pl.String).unique())
        parts = tuple(_parts(spans, content))
        if not parts:
            raise Unreadable(f"has no row with a time ({problem}); {remedy}")
        station = constants_of(self._config, path.name, path.as_posix()).get(STATION)
        stations |= {station} if station is not None else set()
        return parts, tuple(sorted(stations)) if 0 < len(stations) <= STATIONS_KEPT else None

    def _recalled(self) -> tuple[dict[str, File], bool]:
        """What an earlier process learnt, and whether files are still read in the same way: those that are there are
        read anew otherwise, and of those that are gone nothing newer is to be had."""
        try:
            written = json.loads(self._memory.read_text(encoding="utf-8"))
            files = {name: _file(entry) for name, entry in written["files"].items()}
            alike = written["reading"] == self._config.reading
            self._first = written.get("first") if alike else None
        except (OSError, ValueError, KeyError, TypeError):
            return {}, True
        return files, alike

    def _latest(self) -> int:
        return (datetime.now(UTC) + self._config.future_tolerance - EPOCH) // MICROSECOND

    def _remember(self, files: dict[str, File]) -> None:
        settled = {name: _as_remembered(file) for name, file in files.items() if file.parts or file.error}
        parts = [part for file in files.values() for part in file.parts]
        stretches = joined(one for part in parts for one in part.times)
        firsts = [first for first in (beginning(stretches, self._latest()), self._first) if first is not None]
        self._first = min(firsts, default=None)
        if settled == self._remembered:
            return
        entries = {name: asdict(file) for name, file in settled.items()}
        written = {"reading": self._config.reading, "first": self._first, "files": entries}
        try:
            with published(self._memory) as draft:
                draft.write_text(json.dumps(written), encoding="utf-8")
        except OSError as error:
            raise SourceError(
                f"{self._memory}: cannot be written ({error.strerror}); free space there, or change `data_path`"
            ) from error
        self._remembered = settled


def _read_tables(
    reader: CsvReader, tables: Sequence[SmallTable], config: FilesConfig
) -> Iterator[tuple[SmallTable, Part, tuple[str, ...] | None]]:
    """Small tables with the part that each is, and its stations; those that have no time are left out."""
    layout = reader.layout(tables[0].path)
    identifier = layout.metadata.get(STATION)
    frame = rows_of(reader, tables, [*layout.times, *([identifier] if identifier else [])])
    frame = timed(frame, layout.times, config.time, identifier)
    times = pl.col(FILED).to_physical()
    stations = pl.col(identifier).drop_nulls().unique() if identifier else pl.lit([], pl.List(pl.String))
    spans = frame.group_by(NUMBER).agg(
        times.min().alias("first"), times.max().alias("last"), times.drop_nulls().first().alias("before"),
        stations.alias("stations"),
    )  # fmt: skip
    for number, first, last, before, named in spans.drop_nulls("first").iter_rows():
        table = tables[number]
        place = (table.header_at, len(table.header), table.header_at + len(table.header), len(table.body), 2)
        found = (
            stretches_of(frame.filter(pl.col(NUMBER) == number)[FILED].drop_nulls(), HOLE)
            if last - first > HOLE
            else ()
        )
        stretches = tuple(found) if len(found) > 1 else ()
        part = Part(place, sha256(table.header + table.body).hexdigest()[:16], first, last, before, stretches)
        constant = constants_of(config, table.path.name, table.path.as_posix()).get(STATION)
        of = {*(named or ()), *([] if constant is None else [constant])}
        yield table, part, tuple(sorted(of)) if 0 < len(of) <= STATIONS_KEPT else None


@dataclass(slots=True)
class _Span:
    """The times of a part's rows, in microseconds since 1970: the first and the last row's that have one, the extremes,
    whether the rows begin with one that has none, and the stretches of time."""

    initial: int | None = None
    final: int | None = None
    lowest: int | None = None
    highest: int | None = None
    begins_without: bool = False
    stretches: list[Stretch] = field(default_factory=list)

    def add(self, times: pl.Series) -> None:
        """Take in the times of further rows, null where a row has none."""
        if self.initial is None and len(times):
            self.begins_without |= times[0] is None
        known = times.drop_nulls().to_physical()
        if known.is_empty():
            return
        lowest, highest = known.min(), known.max()
        assert isinstance(lowest, int)
        assert isinstance(highest, int)
        self.initial = known[0] if self.initial is None else self.initial
        self.final = known[-1]
        self.lowest = lowest if self.lowest is None else min(self.lowest, lowest)
        self.highest = highest if self.highest is None else max(self.highest, highest)
        found = stretches_of(known, HOLE) if highest - lowest > HOLE else [(lowest, highest)]
        self.stretches = joined([*self.stretches, *found], HOLE)


def _unchanged(parts: Sequence[Part], content: Mapping[Place, str]) -> dict[Place, _Span]:
    """What is known of the parts of a file that are as they were, up to the first that is not: of each but the last
    also the time of its last row, which is that under which the next part begins."""
    found: dict[Place, _Span] = {}
    for part, following in pairwise(parts):
        if content.get(part.place) != part.content or content.get(following.place) != following.content:
            break
        stretches = [*part.stretches] or [(part.first, part.last)]
        found[part.place] = _Span(part.before, following.before, part.first, part.last, stretches=stretches)
    return found


def _as_remembered(file: File) -> File:
    """What the next process is told: of what grew until now it reads the rest, which may be no whole line yet."""
    return replace(file, unsettled=False, grows=False, size=NEVER if file.grows else file.size)


def _parts(spans: dict[Place, _Span], content: dict[Place, str]) -> Iterator[Part]:
    """The parts of a file in their order; none when no row has a time."""
    before = next((span.initial for span in spans.values() if span.initial is not None), None)
    if before is None:
        return
    for place, span in spans.items():
        low = before if span.lowest is None else min(span.lowest, before) if span.begins_without else span.lowest
        high = before if span.highest is None else max(span.highest, before) if span.begins_without else span.highest
        yield Part(place, content[place], low, high, before, tuple(span.stretches) if len(span.stretches) > 1 else ())
        before = before if span.final is None else span.final


def _file(entry: dict[str, Any]) -> File:
    parts = tuple(
        Part(**{**part, "place": tuple(part["place"]), "stretches": tuple(map(tuple, part.get("stretches", ())))})
        for part in entry["parts"]
    )
    stations = None if entry["stations"] is None else tuple(entry["stations"])
    # What could not be read is tried anew by each process: not all that is wrong with a file changes the file.
    size = NEVER if entry["error"] else entry["size"]
    return File(**{**entry, "size": size, "parts": parts, "stations": stations})
