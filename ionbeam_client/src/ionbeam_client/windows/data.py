"""Rows of windows that are fetched when somebody looks at them: one by one, in batches, or into a file.

Belongs here: the two faces of one generator, a blocking one and one for asyncio. Does not belong here: which windows.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.saved_file import FORMATS, Item, SavedFile
from ionbeam_client.windows.errors import WindowsError, writing
from ionbeam_client.windows.places import Place

Steps = Generator[Callable[[], Any] | list[Any], Any, None]
"""What is to be done, which may wait for a disk or a network, and lists that are ready: of rows, or of files."""

_ROWS = 4096


@contextmanager
def _folder() -> Iterator[str]:
    with writing("the folder for temporary files"):
        made = tempfile.TemporaryDirectory(prefix="ionbeam-windows-")
    with made as folder:
        yield folder


def _rows(place: Place, dataset: str, windows: Sequence[str]) -> Steps:
    """The rows of windows in order; of one that is gone meanwhile there are none."""
    with _folder() as folder:
        for window in windows:
            file = Path(folder, "window.parquet")
            there = yield partial(place.fetch, dataset, window, file)
            if not there:
                continue
            try:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(_ROWS, columns=_columns(opened.schema_arrow)):
                        if batch.num_rows:
                            yield batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise WindowsError(f"{dataset} {window}: cannot be read ({error})", may_pass=True) from error


def _columns(schema: pa.Schema) -> list[str]:
    """Those that can be written as text: a geometry stands in lon and lat, too."""
    return [field.name for field in schema if not pa.types.is_binary(field.type)]


def _save(place: Place, dataset: str, windows: Sequence[str], path: Path, overwrite: bool) -> Steps:
    with writing(path):
        file = SavedFile(path, overwrite, FORMATS | {".parquet": _Parquet})
    steps = _files(place, dataset, windows) if file.ending == ".parquet" else _rows(place, dataset, windows)
    done, any_there = None, False
    try:
        with closing(steps):
            while (step := _next(steps, done)) is not None:
                done = None
                if isinstance(step, list):
                    yield partial(_written, path, file.write, step)
                else:
                    done = yield step
                    any_there |= done
        if not any_there:
            _raise_where_windows_are_gone(dataset, windows, file.ending)
        yield partial(_written, path, file.finish)
    finally:
        file.discard()


def _raise_where_windows_are_gone(dataset: str, windows: Sequence[str], ending: str) -> None:
    """Where there never was a window, no rows are the truth, and take the place of what was saved before."""
    if windows:
        what = f"{windows[0]} is" if len(windows) == 1 else f"all {len(windows)} windows are"
        raise WindowsError(f"{dataset}: {what} gone, so that there is nothing to save; ask what changed")
    if ending == ".parquet":
        raise WindowsError(f"{dataset}: there is no window whose columns a Parquet file could have; ask for more time")


def _written(path: Path, do: Callable[..., None], *given: list[Any]) -> None:
    with writing(path):
        do(*given)


def _files(place: Place, dataset: str, windows: Sequence[str]) -> Steps:
    """The files of those windows that are there, at once: what columns they have together, all of them tell."""
    with _folder() as folder:
        fetched: list[Any] = []
        for window in windows:
            target = Path(folder, f"{window}.parquet")
            if (yield partial(place.fetch, dataset, window, target)):
                fetched.append(target)
        if fetched:
            yield fetched


def _next(steps: Steps, done: Any) -> Callable[[], Any] | list[Item] | None:
    try:
        return steps.send(done)
    except StopIteration:
        return None


class _Parquet:
    """Of the windows whose files it is given: one is copied as it is, several get the columns of all of them."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def write(self, files: list[Path]) -> None:
        if len(files) == 1:
            shutil.copyfile(files[0], self._place)
            return
        schema = _of_all([pq.read_schema(file).remove_metadata() for file in files])
        with pq.ParquetWriter(self._place, schema, compression="zstd") as writer:
            for file in files:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches():
                        writer.write_table(_with_columns(pa.Table.from_batches([batch]), schema))

    def close(self) -> None:
        if self._place.exists():
            with self._place.open("rb") as file:
                os.fsync(file.fileno())


def _of_all(schemas: list[pa.Schema]) -> pa.Schema:
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise WindowsError(f"the windows do not fit together ({error}); save the windows one by one") from error


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    absent = [field for field in schema if field.name not in table.column_names]
    for field in absent:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


class _Windows:
    """Windows of a dataset at a place, of which nothing is asked for yet."""

    def __init__(self, place: Place, dataset: str, windows: Sequence[str]) -> None:
        self._place = place
        self._dataset = dataset
        self.windows = tuple(windows)
        """Their names, in order of time."""


class Data(_Windows):
    """Rows of windows, not yet asked for. They can be read or saved as often as one likes."""

    @property
    def data_fetcher(self) -> Generator[Item, None, None]:
        """The rows, each a dict, window by window as these are fetched; the newest that there is of each.

        Raises WindowsError while it is read.
        """
        return self._items()

    def _items(self) -> Generator[Item, None, None]:
        with closing(_run(_rows(self._place, self._dataset, self.windows))) as batches:
            for items in batches:
                yield from items

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Fetch into a file, .json, .csv or .parquet, which appears when it is complete; its folders are made.

        A single window as .parquet is the platform's file, byte for byte. If it fails, a file that was there stays.

        Raises ValueError for another ending, FileExistsError without `overwrite`, and WindowsError, also where none of
        the windows is there any longer.
        """
        for _ in _run(_save(self._place, self._dataset, self.windows, Path(path), overwrite)):
            pass


class DataAsync(_Windows):
    """`Data` for asyncio."""

    @property
    def data_fetcher(self) -> AsyncGenerator[Item, None]:
        """`Data.data_fetcher`."""
        return self._items()

    async def _items(self) -> AsyncGenerator[Item, None]:
        async with aclosing(_arun(_rows(self._place, self._dataset, self.windows))) as batches:
            async for items in batches:
                for item in items:
                    yield item

    async def asave(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """`Data.save`."""
        async for _ in _arun(_save(self._place, self._dataset, self.windows, Path(path), overwrite)):
            pass


def _run(steps: Steps) -> Generator[list[Item], None, None]:
    done: Any = None
    with closing(steps):
        while (step := _next(steps, done)) is not None:
            done = None
            if isinstance(step, list):
                yield step
            else:
                done = step()


async def _arun(steps: Steps) -> AsyncGenerator[list[Item], None]:
    done: Any = None
    with closing(steps):
        while (step := _next(steps, done)) is not None:
            done = None
            if isinstance(step, list):
                yield step
            else:
                done = await asyncio.to_thread(step)
