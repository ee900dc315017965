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
from operator import and_, or_
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
_PARQUET = ds.ParquetFileFormat(default_fragment_scan_options=_CHECKED)


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
        with self.place.opened(window) as file:
            fragment = _PARQUET.make_fragment(file)
            kept = self._kept(window)
            found = fragment if kept is None else fragment.subset(kept, schema=self.whole.schema)
            groups = found.row_groups
            while groups:
                part, rows = [groups.pop(0)], 0
                while groups and (rows := rows + part[-1].num_rows) + groups[0].num_rows <= ROWS_IN_PART:
                    part.append(groups.pop(0))
                chosen = fragment.subset(row_group_ids=[one.id for one in part])
                yield self._read(chosen, kept, names), bool(groups)

    def _read(self, fragment: Any, kept: pc.Expression | None, names: list[str]) -> pa.Table:
        masked = [one for one in self.columns.variables if one in names] if self.question.good_only else []
        flags = {one: self.columns.flag_of(one) for one in masked}
        needed = [*names, *(flag for flag in flags.values() if flag and flag not in names)]
        table = fragment.to_table(schema=self.whole.schema, columns=needed, filter=kept, use_threads=False)
        for name, flag in flags.items():
            is_good = pc.fill_null(pc.equal(table.column(flag), GOOD), False)
            values = pc.if_else(is_good, table.column(name), pa.scalar(None, table.schema.field(name).type))
            table = table.set_column(table.schema.get_field_index(name), name, values)
        return table.select(names).cast(pa.schema([self.schema.field(name) for name in names]))

    def _kept(self, window: Window) -> pc.Expression | None:
        """What has to be true of a row; None of all of them."""
        found = self.question.conditions(window.start, window.end)
        if len(self.columns.variables) < len(self.whole.variables) or self.question.good_only:
            found.append(reduce(or_, map(self._has, self.columns.variables), pc.scalar(False)))
        return reduce(and_, found) if found else None

    def _has(self, variable: str) -> pc.Expression:
        has: pc.Expression = pc.field(variable).is_valid()
        return has & (pc.field(self.columns.flag_of(variable)) == GOOD) if self.question.good_only else has


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
