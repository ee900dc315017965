"""Where the windows of one dataset are: a folder of files, a prefix in S3, a service.

Belongs here: which windows there are, the newest revision of each, and opening one so that all that is read of it is of
one version. Does not belong here: what is in the files.

A folder may be that of the exports (``<output_path>/pygeoapi/<dataset>``), of the dataset's own files, which have a
number for each revision, or a copy of either: names end in ``<YYYYmmddTHHMMSS>_<span>`` and perhaps ``_r<revision>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as fs

from ionbeam_client.opening.errors import OpenError, Replaced
from ionbeam_client.opening.window import Window, Windows, window_of

_FILE = re.compile(r"(?:(?P<dataset>[^._].*)_)?(?P<window>\d{8}T\d{6}_P[0-9TWDHMS]+?)(?:_r(?P<revision>\d+))?\.parquet")
_URL = re.compile(r"(?P<base>https?://.+?)(?:/collections/(?P<dataset>[^/?#]+))?/?")


def windows_at(where: str) -> Windows:
    """The windows at an address or folder that is of one dataset, or has one alone. Raises OpenError."""
    if where.startswith(("http://", "https://")):
        from ionbeam_client.opening.service import ServiceWindows, only_dataset

        if (matched := _URL.fullmatch(where)) is None:
            raise OpenError(
                f"{where}: is no address of a service; right would be http://localhost:5000/collections/knmi"
            )
        return ServiceWindows(matched["base"], matched["dataset"] or only_dataset(matched["base"]))
    files, root = _file_system(where)
    return FileWindows(where, files, root)


def _file_system(where: str) -> tuple[fs.FileSystem, str]:
    if "://" not in where:
        return fs.LocalFileSystem(), str(Path(where).expanduser().absolute())
    try:
        files, root = fs.FileSystem.from_uri(where)
    except (pa.ArrowException, OSError) as error:
        raise OpenError(f"{where}: cannot be opened ({error}); {_RIGHT}") from error
    return files, root.rstrip("/")


_RIGHT = "right would be a folder, s3://bucket/prefix/pygeoapi/knmi, or http://localhost:5000/collections/knmi"


class FileWindows:
    """Those in a folder, or at a prefix in S3."""

    def __init__(self, where: str, files: fs.FileSystem, root: str) -> None:
        self._where, self._files, self._root = where, files, root
        self._local = isinstance(files, fs.LocalFileSystem)
        self.at_once = 4 if self._local else 8
        self.dataset = ""
        """Known once the windows are listed."""

    def about(self) -> dict[str, Any]:
        return {}

    def listed(self) -> list[Window]:
        newest: dict[str, tuple[int, str]] = {}
        datasets: dict[str, None] = {}
        found = self._look(self._root)
        for one in found:
            named = _FILE.fullmatch(one.base_name) if one.type == fs.FileType.File else None
            if named is None:
                continue
            datasets[named["dataset"] or ""] = None
            revision = int(named["revision"] or 0)
            if revision >= newest.get(named["window"], (0, ""))[0]:
                newest[named["window"]] = (revision, one.path)
        if not newest:
            self._descend([one for one in found if one.type == fs.FileType.Directory and one.base_name[0] not in "._"])
            return self.listed()
        if len(datasets) > 1:
            told = ", ".join(sorted(datasets))
            raise OpenError(f"{self._where}: has windows of several datasets, {told}: give each a folder")
        self.dataset = next(iter(datasets)) or self._root.rpartition("/")[2]
        windows = (window_of(name, path) for name, (_, path) in newest.items())
        return sorted(one for one in windows if one is not None)

    def _descend(self, folders: list[fs.FileInfo]) -> None:
        """Into the only folder that there is, as that of a platform with one dataset."""
        if not folders:
            raise OpenError(
                f"{self._where}: has no windows, which are called <dataset>_20260621T060000_PT1H.parquet; {_RIGHT}"
            )
        if len(folders) > 1:
            names = sorted(one.base_name for one in folders)
            told = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
            raise OpenError(f"{self._where}: has folders and no windows itself; name the one of a dataset: {told}")
        self._root = folders[0].path

    def _look(self, root: str) -> list[fs.FileInfo]:
        try:
            found: list[fs.FileInfo] = self._files.get_file_info(fs.FileSelector(root))
        except FileNotFoundError:
            raise OpenError(f"{self._where}: there is no such folder; {_RIGHT}") from None
        except OSError as error:
            raise OpenError(f"{self._where}: cannot be listed ({error})") from error
        return found

    @contextmanager
    def opened(self, window: Window) -> Iterator[pa.NativeFile]:
        """An open file on this machine keeps its bytes; of S3 it is looked whether it is the same at the end."""
        if self._local:
            with self._files.open_input_file(window.file) as file:
                yield file
            return
        before = self._version(window)
        try:
            with self._files.open_input_file(window.file) as file:
                yield file
        finally:
            if self._version(window) != before:
                raise Replaced

    def _version(self, window: Window) -> tuple[int | None, int | None]:
        try:
            found = self._files.get_file_info(window.file)
        except OSError as error:
            raise OpenError(f"{self._where}: {window.name} cannot be read ({error})") from error
        return found.mtime_ns, found.size
