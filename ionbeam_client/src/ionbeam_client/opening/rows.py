"""The rows of windows that answer a question, a table after the other, in the order of time.

Belongs here: which row groups of a file are read, of which columns, and what of them is kept. Does not belong here:
what libraries make of the tables (forms.py).

Each window is opened anew whenever it is read, so that its rows are those of its newest revision and all of one. Memory
holds the windows that are read side by side; of a large one, parts of `ROWS_IN_PART` rows, one after the other.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from ionbeam_client.opening.columns import Columns
from ionbeam_client.opening.errors import OpenError, OpenWarning, Replaced
from ionbeam_client.opening.question import GOOD, Question
from ionbeam_client.opening.window import Window, Windows

T = TypeVar("T")

ROWS_IN_PART = 500_000
ATTEMPTS = 5
"""At a window that is replaced while it is read."""
DELAY = 2.0
"""Seconds before a terminal is shown how far it is."""
_CHECKED = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
_CODED = pa.dictionary(pa.int32(), pa.string())
"""Texts of stations are the same in many rows: files have each once, and so they are read, in half of the time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be read: `columns` are all that is asked for, `whole` those that the windows have."""

    place: Windows
    windows: Sequence[Window]
    question: Question
    whole: Columns
    columns: Columns

    @property
    def schema(self) -> pa.Schema:
        return self.columns.schema

    def tables(self, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of one window, or part of one, after the other, with the columns `names` (None: all), which are
        given in the order of `schema`. Raises OpenError."""
        given = [name for name in self.schema.names if names is None or name in names]
        workers = ThreadPoolExecutor(self.place.at_once, "ionbeam-open")
        ahead: deque[tuple[Window, Future[tuple[pa.Table | None, Iterator[pa.Table]]]]] = deque()
        waiting = iter(self.windows)
        try:
            with _progress(len(self.windows), self.place.dataset) as told:
                while True:
                    while len(ahead) < 2 * self.place.at_once and (window := next(waiting, None)) is not None:
                        ahead.append((window, workers.submit(self._begun, window, given)))
                    if not ahead:
                        return
                    window, future = ahead.popleft()
                    first, rest = future.result()
                    if first is not None and first.num_rows:
                        yield first
                    yield from rest
                    told.update(1)
        finally:
            workers.shutdown(wait=False, cancel_futures=True)

    def _begun(self, window: Window, names: list[str]) -> tuple[pa.Table | None, Iterator[pa.Table]]:
        """The first part of a window, and its further ones, if it has any."""

        def begin() -> tuple[pa.Table | None, Iterator[pa.Table]]:
            parts = self._parts(window, names)
            first, more = next(parts, (None, False))
            if more:
                return first, self._rest(window, parts)
            next(parts, None)  # closes the file, and looks whether it is the same still
            return first, iter(())

        return tried(self.place, window, begin) or (None, iter(()))

    def _rest(self, window: Window, parts: Iterator[tuple[pa.Table, bool]]) -> Iterator[pa.Table]:
        try:
            for table, _ in parts:
                yield table
        except (Replaced, OSError, pa.ArrowException) as error:
            why = "was replaced while it was read" if isinstance(error, Replaced) else f"is damaged ({error})"
            raise OpenError(f"{self.place.dataset} {window.name}: {why}; read the dataset again") from error

    def _parts(self, window: Window, names: list[str]) -> Iterator[tuple[pa.Table, bool]]:
        """Rows, and whether more of them may follow."""
        conditions = self.question.conditions(window.start, window.end)
        kept = reduce(and_, conditions) if conditions else None
        with self.place.opened(window) as file:
            plain = ds.ParquetFileFormat().make_fragment(file)  # its statistics of texts tell row groups apart
            found = plain if kept is None else plain.subset(kept, schema=self.whole.schema)
            groups = found.row_groups
            fragment, schema = _coded(file, self.whole.schema)
            while groups:
                part, rows = [groups.pop(0)], 0
                while groups and (rows := rows + part[-1].num_rows) + groups[0].num_rows <= ROWS_IN_PART:
                    part.append(groups.pop(0))
                chosen = fragment.subset(row_group_ids=[one.id for one in part])
                yield self._read(chosen, schema, kept, names), bool(groups)

    def _read(self, fragment: Any, schema: pa.Schema, kept: pc.Expression | None, names: list[str]) -> pa.Table:
        has_value = self._valued()
        needed = list(dict.fromkeys([*names, *has_value, *filter(None, has_value.values())]))
        table = fragment.to_table(schema=schema, columns=needed, filter=kept, use_threads=False)
        if has_value:
            masks = {one: _has(table, one, flag) for one, flag in has_value.items()}
            table = table.filter(reduce(pc.or_, masks.values()))
        for name, flag in has_value.items():
            if flag is not None and name in names:
                good = _has(table, name, flag)
                values = pc.if_else(good, table.column(name), pa.scalar(None, table.schema.field(name).type))
                table = table.set_column(table.schema.get_field_index(name), name, values)
        return table.select(names).cast(pa.schema([self.schema.field(name) for name in names]))

    def _valued(self) -> dict[str, str | None]:
        """The variables of which a row needs one with a value, and the flags that have to be good; none, where all
        variables are asked for as they are."""
        if self.question.good_only:
            return {one: self.columns.flag_of(one) for one in self.columns.variables}
        some = len(self.columns.variables) < len(self.whole.variables)
        return dict.fromkeys(self.columns.variables) if some else {}


def _coded(file: pa.NativeFile, schema: pa.Schema) -> tuple[Any, pa.Schema]:
    """A file whose texts are read as `_CODED`, and the schema that says so."""
    texts = [one.name for one in schema if pa.types.is_string(one.type)]
    read = ds.ParquetReadOptions(dictionary_columns=texts)
    layout = ds.ParquetFileFormat(read_options=read, default_fragment_scan_options=_CHECKED)
    coded = pa.schema([one.with_type(_CODED) if one.name in texts else one for one in schema])
    return layout.make_fragment(file), coded


def _has(table: pa.Table, variable: str, flag: str | None) -> pa.ChunkedArray:
    valid = pc.is_valid(table.column(variable))
    return valid if flag is None else pc.and_(valid, pc.fill_null(pc.equal(table.column(flag), GOOD), False))


def tried(place: Windows, window: Window, do: Callable[[], T]) -> T | None:
    """What `do` gives, which reads one version of a window; None of one that is gone, or damaged, which is told.

    Raises OpenError where it cannot be known.
    """
    for _ in range(ATTEMPTS):
        try:
            return do()
        except Replaced:
            continue
        except FileNotFoundError:
            why = "is gone since the dataset was opened"
        except (OSError, pa.ArrowException) as error:
            if getattr(error, "errno", None):  # of the system, not of what is in the file
                raise OpenError(f"{place.dataset} {window.name}: cannot be read ({error})") from error
            why = f"is damaged where it lies ({error})"
        told = f"{place.dataset}: the window {window.name} {why}, and is left out"
        warnings.warn(told, OpenWarning, stacklevel=2)
        return None
    raise OpenError(f"{place.dataset} {window.name}: is replaced all the time; read it later")


def _progress(windows: int, dataset: str) -> Any:
    """A bar on a terminal, for what takes long; nothing in a script, or where tqdm is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _Untold()
    return tqdm(total=windows, desc=dataset, unit=" windows", delay=DELAY, disable=None, leave=False)


class _Untold:
    def __enter__(self) -> _Untold:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, windows: int) -> None:
        pass
