"""Publishing a file: nobody ever sees a half-written one. And putting out of its place what is no good there."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from uuid import uuid4

_LOG = logging.getLogger(__name__)
DAMAGED = ".damaged"
"""The end of the name of a file that was set aside."""

_DRAFT = re.compile(r"^\..+\.[0-9a-f]{8}$")
_ROOM = ".room"


@contextmanager
def published(path: Path, draft_name: str | None = None) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, its file is made durable and takes `path`'s place.

    The temporary name starts with a dot, so that readers of the folder pass over it. When the block raises, or nothing
    was written, `path` is left as it was. Who holds a lock may name the draft: the next one then takes the place of
    what a process that was killed left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(draft_name or f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield draft
        if draft.exists():
            sync(draft)
            put_in_place(draft, path)
            sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def put_in_place(draft: Path, path: Path) -> None:
    """Move a file to its place, also where somebody put a folder there, which no step would ever get past."""
    try:
        draft.replace(path)
    except IsADirectoryError:
        _LOG.warning("%s: a folder stood where this file belongs; it is kept as %s", path, set_aside(path))
        draft.replace(path)


def set_aside(path: Path) -> Path:
    """Move what is no good out of its place, for a person to look at; returns where it is then.

    It is as old as its move, so that it is kept for as long as others, and takes the place of what was set aside there
    before.
    """
    kept = path.with_name(f"{path.name}{DAMAGED}")
    if path.is_dir() or kept.is_dir():  # neither takes the place of the other by itself
        remove(kept)
    path.replace(kept)
    os.utime(kept)
    return kept


@contextmanager
def room_beside(draft: Path) -> Iterator[Path]:
    """A folder on the disk of a draft, for what its making has to put aside; it is gone when the block ends."""
    room = draft.with_name(f"{draft.name}{_ROOM}")
    room.mkdir()
    try:
        yield room
    finally:
        rmtree(room)


def left_by_killed(path: Path) -> bool:
    """Whether a file is a draft, or in the room beside one: of a process that was killed, if it is old."""
    room = path.parent.name
    return bool(_DRAFT.match(path.name) or (room.endswith(_ROOM) and _DRAFT.match(room.removesuffix(_ROOM))))


def remove(path: Path) -> None:
    """Remove a file, or what was set aside, for good; what is gone is no error. Who has a file open goes on reading
    it."""
    if path.parent.exists():
        if path.name.endswith(DAMAGED) and path.is_dir():
            rmtree(path)
        path.unlink(missing_ok=True)
        sync(path.parent)


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal text."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Make what was written to a file, or the entries of a folder, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make `path` and what is missing above it, durably."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)
