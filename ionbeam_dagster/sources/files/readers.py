"""What every format's reader gives: a file's layout, its parts and their rows.

Belongs here: how readers are asked, and what all have in common. Does not belong here: the formats (csv_files.py,
tables.py, netcdf_files.py, json_lines.py, annotated_csv.py), and what becomes of rows (rows.py).
"""

from __future__ import annotations

import difflib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import polars as pl
import pyarrow as pa

from ionbeam_dagster.sources.files.config import FilesConfig

ROW, PROBLEM = "x_row", "x_problem"
EMPTY = "is empty; put an intact copy in its place, or remove it"

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
    can say it. `heights` are the units of descriptive columns that are heights, where one is stated; `levels` the
    heights of a profile that the file tells, in m above the ground, by the column that they stand in."""

    times: tuple[str, ...]
    place: dict[str, str]
    metadata: dict[str, str]
    described: dict[str, Described] = field(default_factory=dict)
    heights: dict[str, str] = field(default_factory=dict)
    levels: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Reader(ABC):
    """Reads the files of one format, part by part, so that memory does not grow with the file."""

    def __init__(self, config: FilesConfig) -> None:
        self.config = config

    def columns(self, path: Path) -> list[str]:
        """The names of all columns of a file, where its format has columns that a pattern can find. Raises
        Unreadable."""
        raise Unreadable("is of a format in which no columns can be found by a pattern; leave `wide` out")

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
    except (OSError, EOFError, zlib.error, BadZipFile, pa.ArrowException, *further) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip()
        denied = isinstance(error, PermissionError)
        remedy = "give the platform permission to read it" if denied else "put an intact copy in its place"
        raise Unreadable(f"cannot be read ({reason}); {remedy}") from error


class TableReader(Reader):
    """A format of plain columns, which the configuration alone tells apart; or `wanted_columns` alone."""

    def __init__(self, config: FilesConfig, wanted_columns: Sequence[str] | None = None) -> None:
        super().__init__(config)
        self._wanted_columns = wanted_columns

    def layout(self, path: Path) -> Layout:
        stated = {"lat": self.config.latitude, "lon": self.config.longitude} if self.config.has_places else {}
        place = {name: column or name for name, column in stated.items() if not isinstance(column, float)}
        time = "datetime" if self.config.time.column is None else self.config.time.column
        heights = {name: one.unit for name, one in self.config.metadata.items() if one.unit}
        return Layout(self.config.time.columns or (time,), place, self.config.columns_of_metadata, heights=heights)

    def wanted(self, path: Path) -> list[str]:
        """The columns that a file must have, that of the time first."""
        if self._wanted_columns is not None:
            return [*self._wanted_columns]
        layout, long = self.layout(path), self.config.long
        variables = [variable.stands_in for variable in self.config.variables if not variable.optional]
        if long is not None:
            variables = [long.variable, long.value, *([long.unit] if long.unit else [])]
        if self.config.wide is not None:
            variables = []
        variables += [one.heights.column for one in self.config.variables if one.heights and not one.optional]
        variables += [one.unit_codes.column for one in self.config.variables if one.unit_codes and not one.optional]
        variables += [one.quality.column for one in self.config.variables if one.quality and not one.optional]
        return list(dict.fromkeys([*layout.times, *layout.place.values(), *variables, *layout.metadata.values()]))


def listed(names: Collection[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def near_names(missing: list[str], found: list[str]) -> str:
    near = [match for name in missing for match in difflib.get_close_matches(name, found, n=1)]
    return f" (near is {listed(near)})" if near else ""
