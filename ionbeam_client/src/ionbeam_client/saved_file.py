"""Items in a file, JSON or CSV, that is seen whole or not at all.

Belongs here: the two formats, and how a file takes its place. Does not belong here: where items come from.

A JSON file is one array, an item a line. A CSV file has a column for every field that any item has, in the order in
which they first came; its first line names them. A value that is missing is empty, and so is None.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TextIO

import orjson

Item = dict[str, Any]


class Format(Protocol):
    """Writes what it is given into a file that is not there yet."""

    def __init__(self, place: Path) -> None: ...
    def write(self, items: list[Any]) -> None: ...
    def close(self) -> None:
        """All is in the file, and on the disk."""


class SavedFile:
    """A file that is written beside `path`, and takes its place when it is complete.

    `formats` are by the endings of names. Raises at once, before anything is written: ValueError for another ending,
    FileExistsError.
    """

    def __init__(
        self, path: str | os.PathLike[str], overwrite: bool, formats: Mapping[str, type[Format]] | None = None
    ) -> None:
        formats = formats or FORMATS
        self._path = Path(path).resolve()  # a link stays, and its file is replaced
        self.ending = self._path.suffix.lower()
        if self.ending not in formats:
            raise ValueError(f"{path}: the name of the file should end in {' or '.join(formats)}")
        if self._path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        self._overwrite = overwrite
        self._check_free()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._beside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.part")
        self._format = formats[self.ending](self._beside)

    def write(self, items: list[Any]) -> None:
        self._format.write(items)

    def finish(self) -> None:
        """Complete the file and put it in its place; both are on the disk then."""
        self._format.close()
        self._take_place()
        with suppress(PermissionError):  # of Windows, where a folder cannot be opened
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _take_place(self) -> None:
        if self._overwrite:
            with suppress(FileNotFoundError):
                shutil.copymode(self._path, self._beside)
            self._beside.replace(self._path)
            return
        try:
            self._path.hardlink_to(self._beside)  # never over a file that has come meanwhile
            self._beside.unlink()
        except FileExistsError:
            self._check_free()
            raise
        except OSError:  # a file system without links
            self._check_free()
            self._beside.rename(self._path)

    def discard(self) -> None:
        """Leave everything as it was; does nothing after `finish`."""
        with suppress(OSError):
            self._format.close()
        self._beside.unlink(missing_ok=True)

    def _check_free(self) -> None:
        if not self._overwrite and self._path.exists():
            raise FileExistsError(f"{self._path} exists; overwrite=True replaces it")


class _Json:
    def __init__(self, place: Path) -> None:
        self._file = place.open("xb")
        self._before = b"["

    def write(self, items: list[Item]) -> None:
        self._file.write(self._before)
        self._file.write(b",\n".join(map(_as_json, items)))
        self._before = b",\n"

    def close(self) -> None:
        if self._file.closed:
            return
        with self._file:
            self._file.write(b"[]" if self._before == b"[" else b"]")
            self._file.flush()
            os.fsync(self._file.fileno())


def _as_json(item: Item) -> bytes:
    try:
        return orjson.dumps(item)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(item).encode()


class _Csv:
    def __init__(self, place: Path) -> None:
        self._place = place
        self._file = self._opened(place)
        self._writer = _writer(self._file)
        self._columns: dict[str, None] = {}
        self._first_columns = 0
        """How many there were when the first line was written."""

    def write(self, items: list[Item]) -> None:
        if not self._columns:
            self._columns = dict.fromkeys(items[0])
            self._first_columns = len(self._columns)
            self._writer.writerow(self._columns)
        self._writer.writerows(self._quick_rows(items) or self._rows(items))

    def close(self) -> None:
        if self._file.closed:
            return
        self._sync(self._file)
        if len(self._columns) > self._first_columns:
            self._write_again()

    def _quick_rows(self, items: list[Item]) -> list[Any] | None:
        """Of items that have exactly the columns."""
        if len(self._columns) < 2 or set(map(len, items)) != {len(self._columns)}:
            return None
        try:
            return list(map(itemgetter(*self._columns), items))
        except KeyError:
            return None

    def _rows(self, items: list[Item]) -> list[list[Any]]:
        for item in items:
            self._columns.update(dict.fromkeys(item))
        return [[item.get(column) for column in self._columns] for item in items]

    def _write_again(self) -> None:
        """With all the columns in the first line, and every line as long as it is."""
        wider = self._place.with_name(self._place.name + "2")
        try:
            with self._place.open(newline="", encoding="utf-8") as narrow, self._opened(wider) as file:
                lines = csv.reader(narrow)
                next(lines)
                writer = _writer(file)
                writer.writerow(self._columns)
                width = len(self._columns)
                writer.writerows(line + [""] * (width - len(line)) for line in lines)
                self._sync(file)
            wider.replace(self._place)
        finally:
            wider.unlink(missing_ok=True)

    @staticmethod
    def _opened(place: Path) -> TextIO:
        return place.open("x", newline="", encoding="utf-8")

    @staticmethod
    def _sync(file: TextIO) -> None:
        with file:
            file.flush()
            os.fsync(file.fileno())


def _writer(file: TextIO) -> Any:
    return csv.writer(file, lineterminator="\n")


FORMATS: dict[str, type[Format]] = {".json": _Json, ".csv": _Csv}
