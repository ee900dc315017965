"""What the footers of windows' files told, remembered while the files stay as they are.

Belongs here: the row count and the extent of a file, by which it is passed over without opening it. Does not belong
here: the footers themselves, which would take more memory than they save time, or rows.

What is remembered of a path holds for the one file that it was read from, told by `files.Version`; one that took its
place by renaming is looked at anew. It is shared by all collections, and outlives a change of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from ionbeam_dagster.edr.files import Version
from ionbeam_dagster.edr.regions import Bounds

MOST = 200_000  # files, at about 500 bytes each


class Footer(NamedTuple):
    """`rows` of a file and the box that they lie in, None where its statistics do not tell."""

    version: Version
    rows: int
    box: Bounds | None


_known: dict[str, Footer] = {}


def known(path: str, version: Version) -> Footer | None:
    """What is remembered of the file that is this version of `path`."""
    found = _known.get(path)
    return found if found is not None and found.version == version else None


def remembered(path: str, version: Version, metadata: pq.FileMetaData, boxes: Sequence[Bounds | None]) -> Footer:
    """What `metadata` and `boxes_of` it tell, from now on remembered of the file that they were read from."""
    told = [box for box in boxes if box is not None]
    whole = None
    if told and len(told) == len(boxes):
        west, south, east, north = zip(*told, strict=True)
        whole = min(west), min(south), max(east), max(north)
    if len(_known) >= MOST:
        _known.clear()
    _known[path] = footer = Footer(version, metadata.num_rows, whole)
    return footer


def boxes_of(metadata: pq.FileMetaData) -> list[Bounds | None]:
    """The box that the rows of each row group lie in, None where its statistics do not tell."""
    names = metadata.schema.names
    if "lon" not in names or "lat" not in names:
        return [None] * metadata.num_row_groups
    lon, lat = names.index("lon"), names.index("lat")
    boxes: list[Bounds | None] = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        east, north = group.column(lon).statistics, group.column(lat).statistics
        known = east is not None and east.has_min_max and north is not None and north.has_min_max
        boxes.append((east.min, north.min, east.max, north.max) if known else None)
    return boxes
