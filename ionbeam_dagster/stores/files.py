"""Files in a local folder or in S3, each named by its location.

A location is text: a path (``data/x.parquet``) or an address (``s3://bucket/prefix/x.parquet``, in which nothing is
escaped). It is the same in the YAML, in the ledger and in the UI, and says by itself where the file is.

Belongs here: making a file visible whole or not at all, reading, finding and removing it, in either place. Does not
belong here: what the files hold, or what is kept local in any case (segments, the ledger).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from shutil import copyfileobj, rmtree
from tempfile import TemporaryDirectory
from typing import IO, Annotated
from urllib.parse import urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.stores import locks
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file
from ionbeam_dagster.stores.publish import DAMAGED, published, remove, set_aside
from ionbeam_dagster.tls import TlsSettings

_SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PATIENCE = 30  # seconds that S3 may be silent before a request is made again
_ATTEMPTS = 3
_BLOCK = 8 << 20
_WHY = {
    "curlCode: 60": "the certificate of S3 at {server} is not trusted, has expired or is another host's; s3.ca_file "
    "names who signed it",
    "NETWORK_CONNECTION": "S3 at {server} does not answer; start it, or correct s3.endpoint",
    "NO_SUCH_BUCKET": "S3 at {server} has no such bucket; create it, or correct the path",
    "ACCESS_DENIED": "S3 at {server} refuses it; give the key permission on the bucket, or correct s3.access_key",
    "SIGNATURE_DOES_NOT_MATCH": "S3 at {server} refuses the credentials; correct s3.secret_key",
    "INVALID_ACCESS_KEY_ID": "S3 at {server} does not know s3.access_key; correct it",
    "UserNotFound": "S3 at {server} does not know s3.access_key; correct it",
}


class FilesError(StoreError):
    """S3 cannot be used; the message names the file, the reason and what to do."""


def is_address(location: str) -> bool:
    """Whether a location lies in S3."""
    return location.startswith(_SCHEME)


def checked_location(given: str | os.PathLike[str]) -> str:
    """`given` as a location; raises ValueError for an address that names no bucket, or no clean prefix in it."""
    text = os.fspath(given)
    if "://" not in text:
        return str(Path(text))
    bucket, *keys = text.removeprefix(_SCHEME).rstrip("/").split("/")
    strange = any(key in ("", ".", "..") or not key.isprintable() for key in keys)
    if not is_address(text) or not _BUCKET.fullmatch(bucket) or strange:
        raise ValueError(f"{text!r} is no place for files; right would be a folder, or s3://bucket/prefix")
    return text.rstrip("/")


Location = Annotated[str, BeforeValidator(checked_location)]
"""A location in the YAML."""


def within(root: str, *names: str) -> str:
    """The location of `names` below a folder or prefix."""
    return "/".join([root, *names]) if is_address(root) else str(Path(root, *names))


def folder_of(location: str) -> str:
    """The folder or prefix that a file lies in."""
    return location.rpartition("/")[0] if is_address(location) else str(Path(location).parent)


def name_of(location: str) -> str:
    """The last part of a location."""
    return location.rpartition("/")[2]


def uri_of(location: str) -> str:
    """A location as a URI that is good in any working directory."""
    return location if is_address(location) else Path(location).absolute().as_uri()


def absolute(location: str) -> str:
    """A location that is good in any working directory."""
    return location if is_address(location) else str(Path(location).absolute())


def _web_address(given: str) -> str:
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        raise ValueError(f"{given!r} is no address of a server; right would be, for example, http://127.0.0.1:9000")
    return given.rstrip("/")


class S3Settings(Settings):
    """Where S3 is, and who asks. What is not given comes from the environment (AWS_ACCESS_KEY_ID, ...), as usual."""

    endpoint: Annotated[str, AfterValidator(_web_address)] | None = Field(
        default=None, description="Address of the server; without it AWS.", examples=["https://s3.example:9000"]
    )
    region: str | None = Field(default=None, description="Region of the buckets.", examples=["eu-central-1"])
    access_key: SecretStr | None = Field(default=None, description="Who asks.", examples=["${S3_ACCESS_KEY}"])
    secret_key: SecretStr | None = Field(default=None, description="The key's secret.", examples=["${S3_SECRET_KEY}"])
    ca_file: Path | None = Field(
        default=None,
        description="Certificates of those who signed the server's (PEM); without it those that the system trusts.",
        examples=["/etc/ssl/authority.pem"],
    )

    @property
    def server(self) -> str:
        return self.endpoint or os.environ.get("AWS_ENDPOINT_URL") or "AWS"

    def connected(self) -> fs.S3FileSystem:
        """Nothing is sent before the first file is asked for. Raises ConfigError where `ca_file` cannot be used."""
        if self.ca_file is not None:
            TlsSettings(ca_file=self.ca_file).context("s3.")
        scheme, _, address = (self.endpoint or "https://").partition("://")
        return fs.S3FileSystem(
            access_key=self.access_key.get_secret_value() if self.access_key else None,
            secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
            region=self.region or ("us-east-1" if self.endpoint else None),
            scheme=scheme,
            endpoint_override=address or None,
            tls_ca_file_path=str(self.ca_file) if self.ca_file else None,
            background_writes=False,  # they would be queued without bound
            allow_delayed_open=True,  # a file of one part is one request
            request_timeout=_PATIENCE,
            connect_timeout=5,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a file without reading it: its size in bytes, and when it was published."""

    size: int
    modified: datetime


class Files:
    """The files of the platform, wherever their locations say. `scratch` is a local folder for drafts and copies.

    Making one connects to nothing. Its `scratch()` gives a folder for as long as a block lasts; that of a process that
    was killed goes when the next one asks. Methods raise FileNotFoundError for a file that is not there, OSError when
    the local disk refuses, and FilesError when S3 does.
    """

    def __init__(self, scratch: Path, s3: S3Settings | None = None) -> None:
        self.scratch = _Scratch(scratch).folder
        self._settings = s3 or S3Settings()
        self._local = fs.LocalFileSystem(use_mmap=False)

    @contextmanager
    def published(self, location: str) -> Iterator[Path]:
        """Give a local path to write to; when the block ends well, its file is durable and takes `location`'s place.

        Readers see what was there before, or the whole new file. When the block raises, or nothing was written,
        `location` is left as it was.
        """
        if not is_address(location):
            with published(Path(location)) as draft:
                yield draft
            return
        with self.scratch() as folder:
            draft = folder / name_of(location)
            yield draft
            if draft.exists():
                # A stream that is left early, as by a signal, would be closed, and publish half a file. Signals go to
                # the main thread, which waits here until the whole is there.
                with self._named_errors(location), ThreadPoolExecutor(1) as uninterrupted:
                    uninterrupted.submit(self._upload, draft, location).result()

    def _upload(self, draft: Path, location: str) -> None:
        system, path = self._place(location)
        out = system.open_output_stream(path)
        size = draft.stat().st_size
        with draft.open("rb") as file:
            for start in range(0, size, _BLOCK):
                # A disk that fails kills who reads a map, rather than end the loop early.
                with mmap(file.fileno(), min(_BLOCK, size - start), access=ACCESS_READ, offset=start) as block:
                    out.write(block)
        out.close()

    @contextmanager
    def opened(self, location: str) -> Iterator[pa.NativeFile]:
        """The file, to be read in any order; of one in S3 only what is asked for is fetched."""
        system, path = self._place(location)
        with self._named_errors(location), system.open_input_file(path) as file:
            yield file

    @contextmanager
    def parquet(self, location: str) -> Iterator[pq.ParquetFile]:
        """A Parquet file to be read in row groups; raises pyarrow.ArrowInvalid when it is damaged."""
        # Buffering ahead keeps what was read until the file is closed: memory would grow with the file.
        with self.opened(location) as source:
            try:
                file = pq.ParquetFile(source, pre_buffer=False)
            except UNREADABLE as error:
                if not is_of_the_file(error):
                    raise
                raise pa.ArrowInvalid(f"{location} is damaged ({error})") from error
            with file:
                yield file

    @contextmanager
    def fetched(self, location: str) -> Iterator[Path]:
        """A local path of the file, for tools that need one: the file itself, or a copy while the block lasts."""
        if not is_address(location):
            yield Path(location)
            return
        with self.scratch() as folder:
            copy = folder / name_of(location)
            with self.opened(location) as file, copy.open("wb") as out:
                copyfileobj(file, out, _BLOCK)
            yield copy

    def found(self, location: str) -> Found | None:
        """The file's size and time, or None when there is no such file."""
        system, path = self._place(location)
        with self._named_errors(location):
            info = system.get_file_info(path)
        if info.type != fs.FileType.File:
            return None
        return Found(info.size, info.mtime.astimezone(UTC))

    def exists(self, location: str) -> bool:
        return self.found(location) is not None

    def size(self, location: str) -> int:
        """The bytes of a file, 0 where there is none."""
        found = self.found(location)
        return found.size if found else 0

    def written_at(self, location: str) -> datetime:
        """When a file was published; raises FileNotFoundError when it is not there."""
        found = self.found(location)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", location)
        return found.modified

    def delete(self, location: str) -> None:
        """Remove a file for good; one that is not there is no error."""
        if not is_address(location):
            remove(Path(location))
            return
        system, path = self._place(location)
        try:
            with self._named_errors(location):
                system.delete_file(path)
        except FileNotFoundError:
            return

    def set_aside(self, location: str) -> str:
        """Move a file that is damaged out of its place, for a person to look at; returns where it is then.

        It is as old as its move, so that it is kept for as long as others.
        """
        if not is_address(location):
            return str(set_aside(Path(location)))
        kept = f"{location}{DAMAGED}"
        system, path = self._place(location)
        with self._named_errors(location):
            system.move(path, self._place(kept)[1])
        return kept

    def under(self, root: str) -> list[str]:
        """The locations of all files below a folder or prefix, in order, without drafts; none when it is absent."""
        return sorted(self.listed(root))

    def listed(self, root: str) -> dict[str, Found]:
        """All files below a folder or prefix, as `under`, and what is known of each."""
        return {location: found for location, found, is_file in self._all(root) if is_file}

    def folders(self, root: str) -> list[str]:
        """The names of the folders, or prefixes, right below one, in order; none when it is absent."""
        found = self._within(root, recursive=False)
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def aside(self, root: str) -> dict[str, Found]:
        """What was set aside below a folder or prefix: files, and folders that stood where a file belongs."""
        return {location: found for location, found, _ in self._all(root) if location.endswith(DAMAGED)}

    def _all(self, root: str) -> Iterator[tuple[str, Found, bool]]:
        """Files, which is told of each, and folders; without drafts, and without what a folder set aside holds."""
        _, path = self._place(root)
        for info in self._within(root, recursive=True):
            is_told = info.mtime is not None  # a prefix of S3 is no folder
            below = info.path.removeprefix(path)
            if is_told and not info.base_name.startswith(".") and f"{DAMAGED}/" not in below:
                location = f"{_SCHEME}{info.path}" if is_address(root) else str(Path(info.path))
                found = Found(info.size or 0, info.mtime.astimezone(UTC))
                yield location, found, info.type == fs.FileType.File

    def _within(self, root: str, recursive: bool) -> list[fs.FileInfo]:
        """What a folder or prefix holds; nothing, where it is absent, or a file stands in its place: whoever writes
        there tells of that."""
        system, path = self._place(root)
        try:
            with self._named_errors(root):
                found: list[fs.FileInfo] = system.get_file_info(
                    fs.FileSelector(path, recursive=recursive, allow_not_found=True)
                )
        except NotADirectoryError:
            return []
        return found

    def object_store(self, location: str) -> fs.FileSystem | None:
        """S3 as it is configured, for an address that says nothing itself of where it is; None for any other place."""
        return self._s3 if is_address(location) and "?" not in location else None

    def _place(self, location: str) -> tuple[fs.FileSystem, str]:
        if is_address(location):
            return self._s3, location.removeprefix(_SCHEME)
        return self._local, location

    @cached_property
    def _s3(self) -> fs.S3FileSystem:
        return self._settings.connected()

    @contextmanager
    def _named_errors(self, location: str) -> Iterator[None]:
        """Say what S3's errors mean, and of which file."""
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", location) from error
        except OSError as error:
            if "AWS Error" not in str(error):
                raise
            why = next((told for code, told in _WHY.items() if code in str(error)), "S3 at {server} cannot do it")
            said = str(error).partition("AWS Error ")[2]
            raise FilesError(f"{location}: {why.format(server=self._settings.server)} ({said})") from error


class _Scratch:
    """Temporary folders of one process, in a folder that many share; what killed processes left there is removed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own: IO[str] | None = None
        self._process = 0

    @contextmanager
    def folder(self) -> Iterator[Path]:
        with TemporaryDirectory(dir=self._home()) as folder:
            yield Path(folder)

    def _home(self) -> Path:
        if self._own is None or self._process != os.getpid():  # a fork has its parent's lock, not its folder
            self._own, self._process = self._claimed(), os.getpid()
        return Path(self._own.name).parent

    def _claimed(self) -> IO[str]:
        """The lock of a new folder; the system gives it back when the process ends, however it does."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as all_of_them:
            locks.lock(all_of_them)
            for left in self._root.glob("*/.lock"):
                _remove_if_left(left)
            home = self._root / uuid4().hex
            home.mkdir()
            lock = (home / ".lock").open("w")
            locks.lock(lock)
            return lock


def _remove_if_left(lock: Path) -> None:
    with lock.open("w") as file:
        if not locks.lock_if_free(file):
            return
        rmtree(lock.parent)
