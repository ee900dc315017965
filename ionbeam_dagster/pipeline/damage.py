"""Stored files whose content turns out to be damaged while a step reads them.

Belongs here: how a step says so, and puts the file out of the way. Does not belong here: looking for damage that no
step met (contents.py, reconciliation.py), or the time-series store's own files (stores/timeseries/steady.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from ionbeam_dagster.config import SourceSettings
from ionbeam_dagster.domain.records import BuiltRevision, RawPartition
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_one_file, read_through, remedy_of
from ionbeam_dagster.stores.publish import file_hash


@contextmanager
def checked(platform: Platform, path: str, hash: str, damaged: Callable[[str], str]) -> Iterator[Path]:
    """A local path of a stored file that holds what was written: its SHA-256 is `hash`, where that was noted.

    Checked before a row of it is used: most damage can be read, and would go on into all that is made of it. Where no
    hash was noted, it is read through once whoever uses it fails. Raises PipelineError, with what `damaged` says of the
    fault; and where polars panics, which is no Exception, so that whoever does window after window would not catch it.
    """
    with platform.files.fetched(path) as local:
        if hash and _hash_of(path, local) != hash:
            raise PipelineError(damaged("it does not hold what was written: the disk, or somebody, changed it"))
        try:
            yield local
        except (Exception, pl.exceptions.PanicException) as error:
            if not hash and is_damaged(platform, path, hash):
                raise PipelineError(damaged(f"its content cannot be read ({error})")) from error
            if isinstance(error, pl.exceptions.PanicException):
                raise PipelineError(f"{path}: its content cannot be read ({error})") from error
            raise


@contextmanager
def readable(platform: Platform, built: BuiltRevision) -> Iterator[Path]:
    """A local path of a dataset file that nothing is made of; raises PipelineError where it is gone or damaged."""
    try:
        with platform.files.fetched(built.path) as local:
            yield local
    except UNREADABLE as error:
        if not is_of_one_file(error):
            raise
        if isinstance(error, PermissionError):
            raise _cannot_be_read(built.path, error) from error
        revision = built.revision
        again = f"`ionbeam rebuild {revision.dataset} {revision.window.as_options}` makes it again"
        raise PipelineError(f"{built.path} cannot be read ({error}); {again}") from error


def is_damaged(platform: Platform, path: str, hash: str) -> bool:
    """Whether a file that is there does not hold what was written: its SHA-256 is not `hash`, or, where none was noted,
    it cannot be read through. Not where the machine can read no file now.

    That it can be read says nothing: most of what a disk changes can be, and polars panics at some of the rest.
    """
    if not platform.files.exists(path):
        return False
    with platform.files.fetched(path) as local:
        if hash:
            return _hash_of(path, local) != hash
        try:
            read_through(local)
        except PermissionError as error:
            raise _cannot_be_read(path, error) from error
        except UNREADABLE as error:
            return is_of_one_file(error)
    return False


def is_newer(platform: Platform, raw: RawPartition) -> bool:
    """Whether the file of a raw partition is whole, and another one than was noted: its writer was killed before it
    could note it, or is about to. What a disk changes keeps its length, and what was cut cannot be read through.
    """
    if not raw.bytes or not platform.files.exists(raw.path):
        return False
    with platform.files.fetched(raw.path) as local:
        if local.stat().st_size == raw.bytes:
            return False
        try:
            read_through(local)
        except UNREADABLE:
            return False
    return True


def _hash_of(path: str, local: Path) -> str:
    try:
        return file_hash(local)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or not is_of_one_file(error):
            raise
        raise _cannot_be_read(path, error) from error


def _cannot_be_read(path: str, error: OSError) -> PipelineError:
    return PipelineError(f"{path}: it cannot be read ({error}); {remedy_of(error)}")


def set_aside(platform: Platform, path: str, fault: str, again: str) -> str:
    """What to say of a damaged file that the platform can make again; it is out of its place."""
    return f"{path}: {fault}; it is kept as {platform.files.set_aside(path)}; {again}"


def not_ours(source: SourceSettings, raw: RawPartition, fault: str) -> str:
    """What is to be said of a damaged or lost file that a client sent: nobody else can make it again."""
    again = f"`ionbeam reingest {source.name} {raw.window.as_options}` asks its client for it again"
    if source.kind == "door":
        start, end = (f"{moment:%Y-%m-%d %H:%M}" for moment in (raw.window.start, raw.window.end))
        again = f"let its clients send what they measured from {start} to {end} again"
    return f"{source.name} {raw.window}: {fault} ({raw.path}); {again}"
