"""The windows of one dataset over `ionbeam serve`, of whose files only the parts that are needed travel.

Belongs here: a file that is read over HTTP. Does not belong here: requests and their repetition
(ionbeam_client/windows/places.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from ionbeam_client.opening.errors import OpenError, Replaced
from ionbeam_client.opening.window import Window, window_of
from ionbeam_client.windows.errors import WindowsError
from ionbeam_client.windows.places import Part, Service

TAIL = 1 << 18
"""Bytes that are asked for first: the footer, or all of a small window."""


def only_dataset(base: str) -> str:
    """The dataset of a service that has one. Raises OpenError."""
    try:
        names = Service(base).datasets()
    except WindowsError as error:
        raise _no_service(base, error) from error
    if len(names) == 1:
        return names[0]
    told = f"has the datasets {', '.join(names[:20])}: name one" if names else "has no dataset yet"
    raise OpenError(f"{base}: {told}, {base}/collections/<dataset>")


def _no_service(base: str, error: WindowsError) -> OpenError:
    return OpenError(
        f"{base}: is no `ionbeam serve`, or it is away ({error}); it prints its address where it is started"
    )


class ServiceWindows:
    """Those of a collection."""

    at_once = 8

    def __init__(self, base: str, dataset: str) -> None:
        self.dataset = dataset
        self._base = base
        self._service = Service(base)

    def listed(self) -> list[Window]:
        try:
            told = self._service.changes(self.dataset, None)
        except WindowsError as error:
            if error.status == 404:
                raise self._no_dataset(error) from error
            raise _no_service(self._base, error) from error
        windows = (window_of(one.window, one.window) for one in told)
        return sorted(one for one in windows if one is not None)

    def about(self) -> dict[str, Any]:
        """What the service says of the dataset."""
        try:
            return self._service.about(self.dataset)
        except WindowsError as error:
            raise _no_service(self._base, error) from error

    def _no_dataset(self, error: WindowsError) -> OpenError:
        try:
            names = ", ".join(self._service.datasets()) or "none"
        except WindowsError:
            return _no_service(self._base, error)
        return OpenError(f"{self._base}: there is no dataset {self.dataset!r}; there are {names}")

    @contextmanager
    def opened(self, window: Window) -> Iterator[pa.NativeFile]:
        with pa.PythonFile(_Remote(self._service, self.dataset, window.name), mode="r") as file:
            yield file


class _Remote(io.RawIOBase):
    """A window's file, of which what was read once is at hand while its end is looked at."""

    def __init__(self, service: Service, dataset: str, window: str) -> None:
        self._service, self._dataset, self._window = service, dataset, window
        self._tag: str | None = None
        self._at: int = 0
        if (tail := self._asked(f"-{TAIL}")) is None:
            raise FileNotFoundError(window)
        self._tag, self._size = tail.tag, tail.size
        self._held_from, self._held = tail.start, tail.data

    def read(self, size: int = -1) -> bytes:
        """`size` bytes from where it stands. Raises Replaced."""
        end = self._size if size < 0 else min(self._at + size, self._size)
        start, self._at = self._at, max(end, self._at)
        if end <= start:
            return b""
        if start < self._held_from:
            part = self._asked(f"{start}-{end - 1}")
            if part is None or part.size != self._size:
                raise Replaced
            if part.start != start or len(part.data) < end - start:
                raise OpenError(f"{self._dataset} {self._window}: the service gave another part than was asked for")
            return part.data[: end - start]
        return self._held[start - self._held_from : end - self._held_from]

    def _asked(self, span: str) -> Part | None:
        try:
            return self._service.part(self._dataset, self._window, span, self._tag)
        except WindowsError as error:
            raise OpenError(f"{self._dataset} {self._window}: cannot be read ({error})") from error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
