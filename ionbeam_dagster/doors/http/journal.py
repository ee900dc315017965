"""The journal of the HTTP door: what was brought is on disk here before its sender hears that it was taken.

Belongs here: files and frames, and what survives a crash of whom. Does not belong here: what a frame holds means
(mapping.py, reports.py), or what becomes of it (flush.py).

    <root>/<begun, ns since 1970>.journal

A file is frames: a line of JSON (`Frame` without its bytes, with their number and checksum), the bytes, a newline. The
first frame says since when the door listened, the last of a file that was closed in good order until when. A frame that
was cut off by a crash was never answered, and ends its file.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from ionbeam_client.state import ProcessLock
from ionbeam_dagster.errors import StoreError
from ionbeam_dagster.stores.publish import sync

_HEAD_BYTES = 4_096
_SET = 30_000_000_000
"""ns by which the clock differs from the time that passed, from which on it was set, or the machine slept: a file is of
one setting of the clock, so that nobody claims to have listened in between."""
_ROOM = 1 << 20  # bytes of the disk that are left to taking in, without which it would never be freed


@dataclass(frozen=True, slots=True)
class Frame:
    """What one request brought to `source` at `received` (ns since 1970): `lines` plain lines in `body`.

    `scale` is how many ns one step of their times has. Of a report, `body` begins with the 8-byte sequence number of
    each line, of `device` and `streamer`; where the device had begun to count anew, that is so for what is newer than
    `after` (ns). Of lines that were parked and come `again`, it begins with 8 bytes of when each came at first. A frame
    without a source is the beginning or end of its file.
    """

    source: str
    received: int
    lines: int = 0
    scale: int = 1
    device: int | None = None
    streamer: int = 0
    again: bool = False
    after: int | None = None
    body: bytes = b""


class _Open:
    """A file that is being written; `synced` bytes of it are on the disk."""

    def __init__(self, root: Path) -> None:
        now = time.time_ns()
        self.path = root / f"{now}.journal"
        self.file = FileIO(self.path, "xb")
        self._begun = now - time.monotonic_ns()
        self.failed = False
        self.lines = 0
        try:
            self.write(Frame("", now))
            os.fdatasync(self.file.fileno())
            sync(root)
        except OSError:
            self.file.close()
            self.path.unlink()
            raise
        self.synced = self.file.tell()

    def now(self) -> int:
        """The time (ns since 1970) by the clock as it was when the file was begun."""
        return self._begun + time.monotonic_ns()

    def write(self, frame: Frame) -> int:
        """Append a frame whole or not at all; returns where it ends."""
        begun = self.file.tell()
        left = memoryview(_framed(frame))
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError:
            self._cut(begun)
            raise
        self.lines += frame.lines
        return self.file.tell()

    def sync(self) -> None:
        """Sync what was written. After a failure nobody can know what of it is on the disk: it is cut off."""
        reached = self.file.tell()
        try:
            os.fdatasync(self.file.fileno())
        except OSError:
            self.failed = True
            self._cut(self.synced)
            raise
        self.synced = reached

    def _cut(self, size: int) -> None:
        os.ftruncate(self.file.fileno(), size)
        self.file.seek(size)


class Journal:
    """The journal in the folder `root`, which one process at a time writes. Safe across threads.

    Making a second one raises BlockingIOError.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._held = ProcessLock(root / "writer.lock")
        if not self._held.acquire():
            raise BlockingIOError(f"{root}: another process writes this journal")
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._open: _Open | None = _Open(root)
        self._released = False

    @property
    def lines(self) -> int:
        """Lines in the file that is being written."""
        return self._open.lines if self._open else 0

    def add(self, frame: Frame) -> None:
        """Make a frame durable. Raises OSError (a full disk, a door that closed): it is then not in the journal."""
        with self._writing:
            if self._released:
                raise OSError(f"{self._root}: the door is closed")
            self._leave_room(len(frame.body))
            if self._open is not None and abs(time.time_ns() - self._open.now()) > _SET:
                with self._syncing:
                    self._finish()
            if self._open is None or self._open.failed:
                self._open = _Open(self._root)
            mine = self._open
            end = mine.write(frame)
        with self._syncing:  # those that wait here are synced together
            if mine.synced >= end:
                return
            if mine.failed:
                raise OSError(f"{mine.path}: the disk failed")
            mine.sync()

    def _leave_room(self, size: int) -> None:
        disk = os.statvfs(self._root)
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < size + _ROOM:  # some file systems do not tell
            words = f"the disk is full but for {_ROOM >> 20} MiB, which taking in needs; make room there"
            raise OSError(errno.ENOSPC, words, str(self._root))

    def rotate(self) -> None:
        """Close the file, as it is durable, and begin the next: the door does not stop listening in between."""
        with self._writing, self._syncing:
            self._finish()
            self._open = _Open(self._root)

    def finish(self) -> None:
        """Close the file: the door listens no longer. No other process may write yet."""
        with self._writing, self._syncing:
            self._finish()

    def close(self) -> None:
        """Close the file, and leave the journal to other processes."""
        with self._writing, self._syncing:
            self._finish()
            self._released = True
        self._held.close()

    def _finish(self) -> None:
        if (mine := self._open) is None:
            return
        self._open = None
        with mine.file:
            if not mine.failed:
                mine.sync()  # requests may wait for it, and the disk may have no room for the end
                mine.write(Frame("", mine.now()))
                mine.sync()

    def closed(self) -> list[Path]:
        """The files that nobody writes, oldest first."""
        with self._writing:
            current = self._open.path if self._open else None
        found = sorted(self._root.glob("*.journal"), key=lambda path: int(path.stem))
        return [path for path in found if path != current]


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a file, one in memory at a time. Raises StoreError for one that is damaged within."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while head := file.readline(_HEAD_BYTES):
            begun = file.tell()
            try:
                said = json.loads(head)
                length, checksum = said.pop("bytes"), said.pop("crc")
                frame = _headed(said, length)
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                if begun == size:
                    return
                raise StoreError(f"{path}: is damaged at byte {begun - len(head)} ({error})") from error
            body = file.read(length + 1)
            if len(body) <= length:
                return
            if zlib.crc32(body[:-1]) != checksum:
                if file.tell() == size:
                    return
                raise StoreError(f"{path}: is damaged at byte {begun}: its checksum is another one")
            yield replace(frame, body=body[:-1])


def _headed(said: dict[str, Any], length: int) -> Frame:
    """The frame of a head, without its bytes. Raises TypeError or ValueError for what no head says."""
    frame = Frame(**said)
    whole = (frame.received, frame.lines, frame.scale, frame.streamer, frame.after or 0, length)
    if not isinstance(frame.source, str) or not all(isinstance(one, int) for one in (*whole, frame.device or 0)):
        raise TypeError("its head is none")
    if frame.lines < 0 or length < (8 * frame.lines if frame.again or frame.device is not None else 0):
        raise ValueError("its head does not fit its bytes")
    return frame


def _framed(frame: Frame) -> bytes:
    head = {key: value for key, value in asdict(frame).items() if key != "body"}
    head |= {"bytes": len(frame.body), "crc": zlib.crc32(frame.body)}
    return b"%s\n%s\n" % (json.dumps(head).encode(), frame.body)
