"""Locks between the processes of one machine; the system frees them when their holder dies, however it does.

The library filelock looks every 50 ms where the system would wake us, and empties the file that it locks, which here
may be a journal; so these few lines stand instead. Belongs here: all use of ``flock``. Does not belong here: locks that
several machines share, which are the ledger's (ledger/holding.py).
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_SHOWN = 60  # characters of a command
Open = IO[str] | IO[bytes] | int
"""A file that is open, or its descriptor. Its lock is held until it is closed."""


def lock(file: Open) -> None:
    """Take the lock of an open file, waiting for whoever holds it."""
    fcntl.flock(file, fcntl.LOCK_EX)


def lock_if_free(file: Open) -> bool:
    """Take the lock of an open file unless another holds it; says whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class JobLock:
    """The lock of a job that one process of this machine at a time may do, in the file `path`, which is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    @property
    def is_ours(self) -> bool:
        return self._file is not None

    @property
    def left(self) -> float:
        """Seconds for which nobody else can take it: without end while it is ours."""
        return math.inf if self.is_ours else 0.0

    def acquire(self) -> bool:
        """Take the lock if it is free; True when it is ours."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a")
            if not lock_if_free(file):
                file.close()
                return False
            self._file = file
        return True

    def close(self) -> None:
        """Give the lock back, if it is ours."""
        if self._file is not None:
            self._file.close()
            self._file = None


def writers(*files: Path) -> list[str]:
    """The processes of this machine, by number and command, that keep others from writing `files`, as far as the
    system tells (Linux)."""
    try:
        inodes = {file.stat().st_ino for file in files if file.exists()}
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    held = [line.split() for line in lines if " WRITE " in line and "->" not in line]
    processes = {int(fields[4]) for fields in held if int(fields[5].rpartition(":")[2]) in inodes}
    return [f"process {process}{_command(process)}" for process in sorted(processes - {os.getpid()})]


def _command(process: int) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return f" ({' '.join(Path(word.partition(chr(10))[0]).name for word in words[:3])[:_SHOWN]})"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made; waits for other threads and processes of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        lock(file)
        yield


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that is there; waits for other threads and processes of this machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)
