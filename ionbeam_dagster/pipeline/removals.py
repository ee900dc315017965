"""The removal of raw files that the ledger is to forget, so that a process that is killed leaves no file behind.

Belongs here: the order of the steps. Does not belong here: which files go (retention.py, ingest.py).

The intention is remembered first, then the ledger forgets, then the file goes: whatever process is killed in between,
the next one that looks finds the file in the ledger's removals, and no file is missed that was to go. The intention
says which file was meant: a collection puts another one in its place before it can tell the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ionbeam_dagster.domain.records import RawPartition
from ionbeam_dagster.pipeline.platform import Platform


def remove(platform: Platform, raws: Sequence[RawPartition], forget: Callable[[], object]) -> None:
    """Remove the files of raw partitions once `forget` has made the ledger forget them."""
    if raws:
        platform.ledger.removals.intend([(raw, _mark(platform, raw.path)) for raw in raws])
    forget()
    for raw in raws:
        remove_pending(platform, raw.path)


def remove_pending(platform: Platform, path: str) -> None:
    """Remove a file that is to go, unless a collection put a new one there meanwhile."""
    intended = platform.ledger.removals.intended(path)
    if intended is None:
        return
    if intended in ("", _mark(platform, path)):
        platform.files.delete(path)
    platform.ledger.removals.done([path])


def _mark(platform: Platform, path: str) -> str:
    """What tells a file from another one that takes its place."""
    found = platform.files.found(path)
    return f"{found.size} {found.modified.isoformat()}" if found is not None else "gone"
