"""Where windows are had from: the web service of a platform (`ionbeam serve`), or the folder of its exports.

Belongs here: the four things that both can do. Does not belong here: what is done with them.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq
import tenacity

from ionbeam_client.windows import feed
from ionbeam_client.windows.errors import WindowsError, writing
from ionbeam_client.windows.feed import Change

LOG = logging.getLogger("ionbeam_client.windows")
T = TypeVar("T")

ATTEMPTS = 5
FIRST_PAUSE = 0.5  # s
LONGEST_PAUSE = 30.0
TIMEOUT = 60.0
SETTLED = timedelta(seconds=3)
"""S3 tells times in seconds: what was written just now may be replaced without another version."""


_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file from `start` on, the `size` of all of it, and the entity tag of its version, if it has one."""

    data: bytes
    start: int
    size: int
    tag: str | None


class Place(Protocol):
    """All methods raise WindowsError."""

    def datasets(self) -> list[str]:
        """The datasets that there are, by name."""
        ...

    def changes(self, dataset: str, client: str | None) -> list[Change]:
        """What a client lacks, in order of time; without one all windows."""
        ...

    def fetch(self, dataset: str, window: str, target: Path) -> bool:
        """The file of a window as it is now, and whole; False where there is none any longer."""
        ...

    def confirm(self, dataset: str, client: str, windows: Mapping[str, str | None]) -> None:
        """Remember what a client has."""
        ...


def place_of(address: str) -> Place:
    """A service for an http address, else a folder, or s3://bucket/prefix."""
    return Service(address) if address.startswith(("http://", "https://")) else Folder(address)


class Folder:
    """The exports themselves: ``<output_path>/pygeoapi`` of the platform, local or ``s3://bucket/prefix``.

    S3 is reached as pyarrow does: by the variables AWS_*, or by parameters of the address (``?endpoint_override=...``).
    """

    def __init__(self, address: str) -> None:
        self._address = address

    @cached_property
    def _found(self) -> tuple[fs.FileSystem, str]:
        if "://" in self._address:
            try:
                files, root = fs.FileSystem.from_uri(self._address)
            except (pa.ArrowException, OSError) as error:
                raise WindowsError(f"{self._address}: there is no such folder ({error})") from error
            return files, root.rstrip("/")
        return fs.LocalFileSystem(), str(Path(self._address).absolute())

    def datasets(self) -> list[str]:
        files, root = self._found
        try:
            found = files.get_file_info(fs.FileSelector(root))
        except OSError as error:
            raise WindowsError(f"{self._address}: there is no such folder ({error})") from error
        names = (one.base_name for one in found if one.type == fs.FileType.Directory)
        return sorted(name for name in names if not name.startswith("."))

    def changes(self, dataset: str, client: str | None) -> list[Change]:
        files, root = self._found
        there = feed.versions_in(files, root, dataset)
        has = feed.confirmed_by(files, root, dataset, client).versions if client else {}
        found = list(feed.changes(there, has))
        if isinstance(files, fs.LocalFileSystem):
            return found
        before = (datetime.now(UTC) - SETTLED).timestamp() * 1e9
        return [one for one in found if one.version is None or int(one.version.partition("-")[0]) < before]

    def fetch(self, dataset: str, window: str, target: Path) -> bool:
        files, root = self._found
        path = f"{root}/{dataset}/{feed.file_of(dataset, window)}"
        try:
            with files.open_input_stream(path) as source:
                _write(target, iter(partial(source.read, 1 << 20), b""))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise WindowsError(f"{dataset} {window}: cannot be read ({error})", may_pass=True) from error
        _check_whole(target, path, None)
        return True

    def confirm(self, dataset: str, client: str, windows: Mapping[str, str | None]) -> None:
        files, root = self._found
        feed.confirm(files, root, dataset, client, windows, datetime.now(UTC))


class Service:
    """`ionbeam serve` at an address."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(timeout=TIMEOUT)

    def datasets(self) -> list[str]:
        found = self._json("GET", "collections")
        try:
            return sorted(one["id"] for one in found["collections"])
        except (KeyError, TypeError) as error:
            raise self._is_no_service(found) from error

    def changes(self, dataset: str, client: str | None) -> list[Change]:
        params = {} if client is None else {"client": client}
        found = self._json("GET", f"collections/{quote(dataset, safe='')}/changes", params=params)
        try:
            told = [Change(one["window"], one["version"], one["kind"]) for one in found["changes"]]
        except (KeyError, TypeError) as error:
            raise self._is_no_service(found) from error
        return [one for one in told if self._is_window(dataset, one)]

    def _is_window(self, dataset: str, told: Change) -> bool:
        """Whether it can be fetched and confirmed; one that cannot be holds up no other."""
        try:
            feed.times_of(told.window)
        except (ValueError, TypeError) as error:
            LOG.error("%s: %s: a change is left out (%s)", self._address, dataset, error)
            return False
        return True

    def _is_no_service(self, found: object) -> WindowsError:
        return WindowsError(f"{self._address}: does not answer as `ionbeam serve` does: {str(found)[:200]!r}")

    def fetch(self, dataset: str, window: str, target: Path) -> bool:
        path = f"collections/{quote(dataset, safe='')}/windows/{quote(window, safe='')}"

        def once() -> bool:
            with self._http.stream("GET", f"{self._address}/{path}") as response:
                if response.is_error:
                    response.read()
                    if _says_that_there_is_none(response):
                        return False
                self._check(response)
                _write(target, response.iter_bytes())
            _check_whole(target, str(response.url), response.headers.get("Repr-Digest"))
            return True

        return self._tried(path, once)

    def about(self, dataset: str) -> dict[str, Any]:
        """What the service says of a dataset: the document of its collection."""
        found = self._json("GET", f"collections/{quote(dataset, safe='')}")
        if not isinstance(found, dict):
            raise self._is_no_service(found)
        return found

    def part(self, dataset: str, window: str, span: str, tag: str | None) -> Part | None:
        """Some bytes of a window's file, `span` as in RFC 9110 (``0-99``, ``-65536``: the last ones); of a service that
        gives no parts all of them. None where it is gone, or is no longer the file of the entity tag `tag`."""
        path = f"collections/{quote(dataset, safe='')}/windows/{quote(window, safe='')}"
        headers = {"Range": f"bytes={span}", "Accept-Encoding": "identity", **({"If-Match": tag} if tag else {})}

        def once() -> Part | None:
            response = self._http.get(f"{self._address}/{path}", headers=headers)
            if response.status_code == 412 or _says_that_there_is_none(response):
                return None
            self._check(response)
            size = start = 0
            if response.status_code == 206:
                told = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if told is None:
                    raise WindowsError(
                        f"{response.url}: a part that does not tell which (Content-Range)", may_pass=True
                    )
                start, size = int(told[1]), int(told[2])
            data = response.content
            return Part(data, start, size or len(data), response.headers.get("ETag"))

        return self._tried(path, once)

    def confirm(self, dataset: str, client: str, windows: Mapping[str, str | None]) -> None:
        body = {"client": client, "windows": dict(windows)}
        self._json("POST", f"collections/{quote(dataset, safe='')}/changes", json=body)

    def _json(self, method: str, path: str, **content: Any) -> Any:
        def once() -> Any:
            response = self._http.request(method, f"{self._address}/{path}", **content)
            self._check(response)
            try:
                return response.json()
            except ValueError:
                raise WindowsError(f"{response.url}: the answer is no JSON: {response.text[:200]!r}") from None

        return self._tried(path, once)

    def _tried(self, path: str, once: Callable[[], T]) -> T:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, WindowsError) and error.may_pass),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),
            reraise=True,
        ):
            with attempt:
                try:
                    return once()
                except httpx.HTTPError as error:
                    said = f"{type(error).__name__}: {error}"
                    raise WindowsError(f"{self._address}/{path}: {said}", may_pass=True) from error
        raise AssertionError("the last attempt raises")

    def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        status = response.status_code
        said = " ".join(response.text.split())[:200]
        of_a_proxy = status == 404 and not _says_that_there_is_none(response)  # while the service begins anew, say
        raise WindowsError(
            f"{response.request.method} {response.url}: {status}: {said}",
            status=status, may_pass=status >= 500 or status in (408, 429) or of_a_proxy,
        )  # fmt: skip


def _write(target: Path, pieces: Iterator[bytes]) -> None:
    with writing(target):
        out = target.open("wb", buffering=0)  # so that closing it has nothing left to write
    with out:
        for piece in pieces:
            rest = memoryview(piece)
            with writing(target):
                while rest:
                    rest = rest[out.write(rest) :]


def _says_that_there_is_none(response: httpx.Response) -> bool:
    """Whether the service itself says that there is no such dataset or window."""
    try:
        said = response.json()
    except ValueError:
        return False
    return response.status_code == 404 and isinstance(said, dict) and said.get("code") == "NotFound"


def _check_whole(file: Path, origin: str, digest: str | None) -> None:
    """Raise WindowsError unless a file is the window that was sent, and the one that was published.

    A status 200 may come of a proxy, or half-way: `digest` is what its service says of its bytes (RFC 9530,
    ``sha-256=:<base64>:``), if it does. What was damaged where it lies is found by the checksums of its pages.
    """
    if digest is not None and digest.startswith("sha-256=:"):
        with file.open("rb") as opened:
            found = base64.b64encode(hashlib.file_digest(opened, "sha256").digest()).decode()
        if digest != f"sha-256=:{found}:":
            raise WindowsError(f"{origin}: came other than it was sent: its SHA-256 differs", may_pass=True)
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as window:
            for _ in window.iter_batches():
                pass
    except (pa.ArrowException, OSError) as error:
        raise WindowsError(
            f"{origin}: damaged where it lies: {file.stat().st_size:,} bytes that are no whole Parquet file ({error}); "
            "it is told until the platform has exported it again"
        ) from error
