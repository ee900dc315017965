"""What the files of a dataset hold together, told by their footers and remembered.

Belongs here: extents in space and time, parameters, and what the newest window says of its sources. Only files that are
new or replaced are opened: a look costs a listing of the folders that changed, and one small file is written for all
datasets. Does not belong here: the YAML that is made of it (configuration.py).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.edr.about import NOBODY_SAID, About, about_of
from ionbeam_dagster.edr.files import LocalFiles, window_of_name
from ionbeam_dagster.edr.parameters import layout_of
from ionbeam_dagster.stores.publish import published

LOG = logging.getLogger(__name__)
TOLD_EVERY = 5.0  # s
_SHARED = 5  # parts that are remembered of all windows of a dataset together


@dataclass(slots=True)
class Extent:
    """What the files of a dataset hold together; `bbox` and `times` (microseconds) are None without rows."""

    files: int = 0
    rows: int = 0
    bbox: list[float] | None = None
    times: tuple[int, int] | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    about: About = NOBODY_SAID
    """What its sources say of themselves, by the newest window."""


_SIDES = ("west", "south", "east", "north", "first", "last")
_KEPT = pa.schema(
    [("name", pa.string()), ("version", pa.int64()), ("rows", pa.int64())]
    + [(side, pa.float64()) for side in _SIDES[:4]]
    + [(moment, pa.int64()) for moment in _SIDES[4:]]
)


@dataclass(slots=True)
class _Known:
    """What is remembered of a dataset: a row a window, and of all of them what they share."""

    windows: pa.RecordBatch = field(default_factory=lambda: pa.RecordBatch.from_pylist([], _KEPT))
    listed_at: int | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    about: dict[str, Any] | None = None  # as the newest window has it
    definitions: dict[str, str] = field(default_factory=dict)


def extents_of(folders: Mapping[str, Path], memory: Path, tell: Callable[[str], None]) -> dict[str, Extent]:
    """The extent of each dataset. What is known is taken from the file `memory`, and kept there."""
    before = _remembered(memory)
    now: dict[str, _Known] = {}
    for name, folder in folders.items():
        known, files = before.get(name, _Known()), LocalFiles(folder)
        listed_at = files.listed_at()
        same = listed_at is not None and listed_at == known.listed_at and known.about is not None
        now[name] = known if same else _renewed(files, known, listed_at, name, tell)
    if now != before:
        _remember(memory, now)
    return {name: _extent(known) for name, known in now.items()}


def _extent(known: _Known) -> Extent:
    columns = {name: known.windows.column(name).to_numpy() for name in ("rows", *_SIDES)}
    some = columns["rows"] > 0
    extent = Extent(
        int(some.sum()),
        int(columns["rows"].sum()),
        parameters=known.parameters,
        definitions=known.definitions,
        unreadable=known.unreadable,
        about=about_of(known.about or {}),
    )
    if extent.rows:
        west, south, east, north, first, last = (columns[side][some] for side in _SIDES)
        extent.bbox = [float(west.min()), float(south.min()), float(east.max()), float(north.max())]
        extent.times = int(first.min()), int(last.max())
    return extent


def _remembered(memory: Path) -> dict[str, _Known]:
    try:
        with pa.memory_map(str(memory)) as file, pa.ipc.open_file(file) as stored:
            told = json.loads((stored.schema.metadata or {}).get(b"datasets", b"{}"))
            if stored.schema.equals(_KEPT) and all(len(about) == _SHARED for about in told.values()):
                return {name: _Known(stored.get_batch(at), *about) for at, (name, about) in enumerate(told.items())}
    except (OSError, pa.ArrowException, ValueError, TypeError):
        pass
    return {}


def _remember(memory: Path, known: dict[str, _Known]) -> None:
    told = {
        name: (one.listed_at, one.parameters, one.unreadable, one.about, one.definitions) for name, one in known.items()
    }
    described = _KEPT.with_metadata({b"datasets": json.dumps(told).encode()})
    with published(memory) as draft, pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, described) as writer:
        for one in known.values():
            writer.write_batch(one.windows.replace_schema_metadata(described.metadata))


def _renewed(
    files: LocalFiles, known: _Known, listed_at: int | None, dataset: str, tell: Callable[[str], None]
) -> _Known:
    """What is known after a look at what is new, replaced or gone."""
    names, versions = (known.windows.column(name).to_pylist() for name in ("name", "version"))
    before = dict(zip(names, versions, strict=True))
    now = files.versions(before)
    fresh = [name for name, version in now.items() if before.get(name) != version]
    stale = {name for name in names if now.get(name) != before[name]}
    parameters, definitions = dict(known.parameters), dict(known.definitions)
    unreadable = [name for name in known.unreadable if name in now and name not in stale]
    newest: dict[tuple[str, ...], pq.FileMetaData] = {}  # of windows of the same columns
    facts: list[tuple[Any, ...]] = []
    told_at = time.monotonic()
    for name in fresh:
        try:
            with files.open(name) as handle:
                metadata = pq.read_metadata(handle)
            columns = tuple(metadata.schema.names)
            newest.pop(columns, None)
            newest[columns] = metadata
            facts.append((name, now[name], *_facts(metadata)))
        except (OSError, pa.ArrowException, KeyError):
            facts.append((name, now[name], 0, *[np.nan] * 4, 0, 0))
            unreadable.append(name)
        if time.monotonic() - told_at > TOLD_EVERY:
            told_at = time.monotonic()
            tell(f"{dataset}: {len(facts):,} of {len(fresh):,} new windows are looked at")
    for metadata in newest.values():
        told = [column.parameter for column in layout_of(metadata.schema.to_arrow_schema()).columns]
        parameters |= {one.id: one.unit for one in told}
        definitions |= {one.id: one.definition for one in told if one.definition}
    kept = known.windows
    if stale:
        kept = kept.filter(pa.array([name not in stale for name in names], pa.bool_()))
    if facts:
        added = [pa.array(values, one.type) for values, one in zip(zip(*facts, strict=True), _KEPT, strict=True)]
        both = zip(kept.columns, added, strict=True)
        kept = pa.RecordBatch.from_arrays([pa.concat_arrays(pair) for pair in both], schema=_KEPT)
    about = _newest_about(files, [name for name in now if name not in unreadable])
    return _Known(kept, listed_at, parameters, unreadable, about, definitions)


def _newest_about(files: LocalFiles, names: Sequence[str]) -> dict[str, Any]:
    """What the sources of the newest window say of themselves, by source."""
    newest = max(names, key=lambda name: window_of_name(name) or (0, 0, ""), default=None)
    if newest is None:
        return {}
    try:
        with files.open(newest) as handle:
            footer = json.loads((pq.read_metadata(handle).metadata or {}).get(b"ionbeam", b"{}"))
    except (OSError, pa.ArrowException, ValueError):
        return {}
    return {source: one.get("dataset", {}) for source, one in (footer.get("metadata") or {}).items()}


def _facts(metadata: pq.FileMetaData) -> tuple[Any, ...]:
    """Rows, west, south, east, north, first and last moment of a file, from its footer."""
    place = {name: number for number, name in enumerate(metadata.schema.names) if name in ("lon", "lat", "datetime")}
    found = {
        name: [
            statistics
            for number in range(metadata.num_row_groups)
            if (statistics := metadata.row_group(number).column(place[name]).statistics) is not None
        ]
        for name in ("lon", "lat", "datetime")
    }
    if not metadata.num_rows or not all(found.values()):
        return 0, *[np.nan] * 4, 0, 0
    low = {name: min(one.min for one in statistics) for name, statistics in found.items()}
    high = {name: max(one.max for one in statistics) for name, statistics in found.items()}
    first, last = (int(one["datetime"].timestamp()) * 1_000_000 for one in (low, high))
    return metadata.num_rows, low["lon"], low["lat"], high["lon"], high["lat"], first, last
