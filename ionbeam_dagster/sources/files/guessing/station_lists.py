"""A list of the stations in another file.

Belongs here: finding it beside the data, and which of its columns are which. Does not belong here: stations in the data
themselves (stations.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.sources.files.config import FilesConfig, format_by_name
from ionbeam_dagster.sources.files.guessing.looking import sampled
from ionbeam_dagster.sources.files.guessing.sample import Sample
from ionbeam_dagster.sources.files.guessing.statements import Line, Statement, as_data, below
from ionbeam_dagster.sources.files.guessing.stations import stations_of
from ionbeam_dagster.sources.files.readers import Unreadable
from ionbeam_dagster.sources.files.rows import constants_of

_NAMED = ("station", "stazion", "site", "meta", "list", "inventory")
_MOST = 1 << 20


def list_beside(sample: Sample, ids: set[str], files: Sequence[Path]) -> list[Line] | None:
    """The lines of `stations`, of a file beside the data or in the folder above that has their ids and places."""
    for path in _candidates(sample.path, files):
        with suppress(Unreadable, OSError):
            found = _as_list(sampled(path), ids)
            if found is not None:
                return found
    return None


def ids_of(sample: Sample, identifier: str | None, place: Sequence[Line], files: Sequence[Path]) -> set[str]:
    """The ids of the stations: those in a column, or those that the files' names tell as the lines of `place` say."""
    if identifier is not None:
        return {*sample.rows[identifier].cast(pl.String).str.strip_chars().drop_nulls().unique().to_list()}
    told = {key: value for key, value in as_data(place).items() if key in ("name", "constants")}
    config = FilesConfig.model_validate({"path": sample.path.as_posix(), "variables": ["x"], **told})
    named = (constants_of(config, file.name, file.as_posix()).get(STATION) for file in files)
    return {name for name in named if name is not None}


def _candidates(data: Path, files: Sequence[Path]) -> Iterator[Path]:
    if len(files) <= 50:
        yield from (path for path in files if path != data)
    for folder in (data.parent, data.parent.parent):
        for path in sorted(folder.iterdir()):
            is_table = format_by_name(path.name) in ("csv", "parquet", "excel") or path.suffix == ".txt"
            if (
                is_table
                and path != data
                and any(word in path.name.lower() for word in _NAMED)
                and path.stat().st_size < _MOST
            ):
                yield path


def _as_list(listed: Sample, ids: set[str]) -> list[Line] | None:
    found = stations_of(listed, [], [listed.path], american=False)
    place = as_data(found.lines)
    if found.identifier is None or "latitude" not in place:
        return None
    theirs = {*listed.rows[found.identifier].cast(pl.String).str.strip_chars().drop_nulls().to_list()}
    as_numbers = len(ids & theirs) < len({*map(_number, ids)} & {*map(_number, theirs)})
    if not ({*map(_number, ids)} & {*map(_number, theirs)}):
        return None
    metadata = as_data(found.lines).get("metadata", {})
    said: list[Line] = [
        Statement("path", listed.path.as_posix(), "likely", "has the ids of the data, and places"),
        Statement("id", found.identifier, "sure", "its ids are those of the data"),
    ]
    if as_numbers:
        said.append(Statement("ids_are_numbers", True, "sure", "the ids are the same as numbers alone"))
    said += [Statement(key, place[key], "sure", "its name and its values") for key in ("latitude", "longitude")]
    said += below("metadata", [Statement(key, one, "likely", "its name") for key, one in metadata.items()
                               if key != "station_id"])  # fmt: skip
    said += [one for one in listed.statements if isinstance(one, Statement) and one.key == "csv"]
    return below("stations", said)


def _number(text: str) -> str:
    """A station's number without what is written before and behind it."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
