"""What is inside a file that the platform wrote, for a person: the stores' own files, and every exporter's.

Belongs here: finding out whose file it is. Does not belong here: any format (stores/contents.py, exporters), or how it
looks in a terminal (cli).
"""

from __future__ import annotations

import logging
from pathlib import Path

from ionbeam_dagster.errors import UnknownFile
from ionbeam_dagster.exporters import installed_exporters, loaded
from ionbeam_dagster.stores import contents as of_stores
from ionbeam_dagster.stores.contents import Contents, begins_with

LOG = logging.getLogger(__name__)


def contents(path: Path) -> Contents:
    """Read what `path` holds; raises UnknownFile with the reason."""
    begins_with(path, b"")  # whether it can be read at all
    try:
        return _described(path)
    except UnknownFile as error:
        raise UnknownFile(
            f"{error}; `ionbeam doctor --files` names files that are damaged, and has them made again"
        ) from error


def _described(path: Path) -> Contents:
    known = ["Parquet"]
    for point in installed_exporters().values():
        try:
            exporter = loaded(point)
        except ImportError as error:
            LOG.warning("files of %s cannot be told: %s", point.name, error)
            continue
        if (found := exporter.describe(path)) is not None:
            return found
        known.append(exporter.format)
    if (found := of_stores.describe(path)) is not None:
        return found
    raise UnknownFile(f"{path}: no file of the platform; known are {', '.join(known)}")
