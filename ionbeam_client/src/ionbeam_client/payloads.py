"""The payload store: the folder or bucket that client and platform may share, for rows too many to travel in messages.

Belongs here: which names in it are allowed, and reading and writing Parquet there. Does not belong here: messages.

A folder counts as shared only when the platform has marked it (`PayloadStore.mark`): a client on another machine may
well have a folder of the same name, and would write where nobody reads. A bucket's address is the same everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ionbeam_client.errors import MessageError, PayloadError
from ionbeam_client.wire import MAX_BYTES, MAX_ROWS

DRAFT = ".draft-"
MARK = ".ionbeam-payload-store"


class PayloadStore:
    """A folder, or a place in an object store such as ``s3://bucket/prefix?region=...``.

    `connected` is the object store, for who has it open already; else it is made from the address and the environment.
    """

    def __init__(self, location: str | Path, connected: fs.FileSystem | None = None) -> None:
        text = str(location)
        if connected is not None and "://" in text:
            self._files, root = connected, text.partition("://")[2].partition("?")[0].rstrip("/")
        else:
            self._files, root = fs.FileSystem.from_uri(text if "://" in text else Path(text).absolute().as_uri())
        self._root = str(root)
        self._folder = Path(self._root) if isinstance(self._files, fs.LocalFileSystem) else None

    def __str__(self) -> str:
        return self._root

    @property
    def shared(self) -> bool:
        """Whether the platform reads here too."""
        return self._folder is None or (self._folder / MARK).exists()

    def mark(self) -> None:
        """Say that the platform reads here; the platform calls it for its payload store."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / MARK).touch()

    def path_of(self, location: str | Path) -> str:
        """The path of a payload by the name that a message gives it: relative, or absolute and inside the store.

        Raises MessageError for any other name.
        """
        text = Path(location).as_posix()
        if self._folder is not None and PurePosixPath(text).is_absolute():
            text = os.path.relpath(Path(text).resolve(), self._folder.resolve()).replace(os.sep, "/")
        parts = PurePosixPath(text).parts
        strange = not text or any(c in text for c in "\\\0:") or not text.isprintable() or len(text) > 1000
        if strange or not parts or PurePosixPath(text).is_absolute() or any(part.startswith(".") for part in parts):
            raise MessageError(
                f"payload {str(location)!r} is refused: it must be a file in the payload store, by its name there"
            )
        path = f"{self._root}/{'/'.join(parts)}"
        if self._folder is not None and not Path(path).resolve().is_relative_to(self._folder.resolve()):
            raise MessageError(f"payload {str(location)!r} is refused: it leads out of the payload store")
        return path

    def writer(self, schema: pa.Schema) -> PayloadWriter:
        """Write rows that are seen by nobody until they are published."""
        return PayloadWriter(self, schema)

    def schema(self, location: str | Path) -> pa.Schema:
        """The columns of a Parquet payload; raises PayloadError when it is absent or broken."""
        with self._opened(location) as file:
            return file.schema_arrow

    def batches(
        self, location: str | Path, *, batch_size: int = 65_536, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a Parquet payload.

        Raises PayloadError when it is absent or broken, MessageError when it is larger than the bounds.
        """
        with self._opened(location) as file:
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            if file.metadata.num_rows > max_rows or sum(group.total_byte_size for group in groups) > max_bytes:
                raise MessageError(f"payload {str(location)!r} has more than {max_rows} rows or {max_bytes} bytes")
            try:
                yield from file.iter_batches(batch_size=batch_size)
            except (pa.ArrowException, OSError) as error:
                raise PayloadError(f"payload {location} in {self}: {error}") from error

    def size(self, location: str | Path) -> int:
        """Bytes of a payload; 0 when it is not there."""
        return int(self._files.get_file_info(self.path_of(location)).size or 0)

    def remove(self, location: str | Path) -> None:
        """Remove a payload, if it is there; nobody reads it any more."""
        with suppress(FileNotFoundError):
            self._files.delete_file(self.path_of(location))

    def drafts(self, before: datetime) -> list[tuple[str, int]]:
        """(name, bytes) of what writers left that wrote last before `before`."""
        found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
        drafts = [one for one in found if one.base_name.startswith(DRAFT) and one.mtime is not None]
        return [(str(one.base_name), int(one.size or 0)) for one in drafts if one.mtime < before]

    def remove_draft(self, name: str) -> None:
        """Remove one of `drafts`."""
        with suppress(FileNotFoundError):
            self._files.delete_file(f"{self._root}/{name}")

    def _opened(self, location: str | Path) -> pq.ParquetFile:
        path = self.path_of(location)
        try:
            return pq.ParquetFile(self._files.open_input_file(path), pre_buffer=False)
        except FileNotFoundError as error:
            raise PayloadError(
                f"there is no payload {location} in {self}; is arrow_store_path the platform's?"
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise PayloadError(f"payload {location} in {self} cannot be read: {error}") from error


class PayloadWriter:
    """A Parquet payload that is being written; `publish` gives it its name, `discard` removes it."""

    def __init__(self, store: PayloadStore, schema: pa.Schema) -> None:
        self._store = store
        self._files: Any = store._files
        self._draft = f"{store}/{DRAFT}{uuid4().hex}"
        if store._folder is not None:
            store._folder.mkdir(parents=True, exist_ok=True)
        self._out = self._files.open_output_stream(self._draft)
        self._writer = pq.ParquetWriter(self._out, schema, compression="zstd")

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            self._writer.write_batch(batch)

    def publish(self, name: str) -> int:
        """Make the payload durable under `name`, relative to the store; returns its size in bytes."""
        path = self._store.path_of(name)
        self._writer.close()
        self._out.close()
        folder = path.rpartition("/")[0]
        if self._store._folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            _sync(Path(self._draft))
            Path(self._draft).replace(path)
            _sync(Path(folder))
        else:
            self._files.move(self._draft, path)
        return int(self._files.get_file_info(path).size)

    def discard(self) -> None:
        self._writer.close()
        self._out.close()
        self._files.delete_file(self._draft)


def _sync(path: Path) -> None:
    if os.name == "nt":  # Windows gives no descriptor of a folder, and none for fsync of a file opened to read
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
