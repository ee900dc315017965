"""The block of a `files` source for files that nobody described yet.

Belongs here: putting together what the modules beside this one find. Does not belong here: finding it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from ionbeam_client.text import visible
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources.files.config import FilesConfig
from ionbeam_dagster.sources.files.guessing.cf_variables import cf_lines
from ionbeam_dagster.sources.files.guessing.columns import long_columns, measured, wide_columns
from ionbeam_dagster.sources.files.guessing.sample import ROWS, Sample
from ionbeam_dagster.sources.files.guessing.shapes import Group, files_at, glob_of, grouped, told_of
from ionbeam_dagster.sources.files.guessing.statements import Line, Question, Statement, as_data, as_yaml, in_yaml
from ionbeam_dagster.sources.files.guessing.station_lists import ids_of, list_beside
from ionbeam_dagster.sources.files.guessing.stations import stations_of
from ionbeam_dagster.sources.files.guessing.times import step_of, times_of
from ionbeam_dagster.sources.files.readers import Unreadable

_MERGED = 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """The YAML of a configuration with one source, the block as data, and what is to be said besides."""

    text: str
    block: dict[str, object]
    notes: list[str]


def propose(path: str) -> Proposal:
    """Look into the files at a path, folder or glob, and say how they may be read.

    Raises SourceError where there is none that can be.
    """
    try:
        files = files_at(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be listed ({error.strerror}); give it read permission") from error
    if not files:
        raise SourceError(f"{path}: no file is there; name a file, a folder or a glob such as 'loggers/*.csv'")
    found = grouped(files)
    if not found.groups:
        raise SourceError("\n".join(f"{file}: {why}" for file, why in list(found.unreadable.items())[:10]))
    data = [group for group in found.groups if not _is_list(group, found.groups)] or found.groups
    chosen = data[0]
    try:
        lines = [Statement("type", "files"), _path(path, chosen, files), *_lines_of(chosen, files)]
    except Unreadable as error:
        raise SourceError(f"{chosen.samples[0].path}: {error}") from error
    others = [group for group in found.groups if group is not chosen]
    notes = [*told_of(others, found.unreadable)]
    if sum(len(group.samples) for group in found.groups) + len(found.unreadable) < found.files:
        looked = sum(len(group.samples) for group in found.groups) + len(found.unreadable)
        notes.append(f"{looked:,} of {found.files:,} files were looked into, evenly among them")
    block = as_data(lines)
    notes += _faults(block)
    return Proposal(_text(path, chosen, lines), block, notes)


def _text(path: str, chosen: Group, lines: Sequence[Line]) -> str:
    many = "1 file" if len(chosen.files) == 1 else f"{len(chosen.files):,} files"
    asked = sum(1 for line in _all(lines) if isinstance(line, Question))
    return "\n".join([
        f"# Guessed from {many} by `ionbeam source guess {visible(path)}`. {asked} lines ask something (TODO).",
        "# Then: ionbeam --config THIS_FILE config check",
        "sources:",
        f"  {_name(path)}:",
        *as_yaml(lines, 4),
        "",
    ])  # fmt: skip


def _all(lines: Sequence[Line]) -> Iterator[Line]:
    for line in lines:
        yield line
        if isinstance(line, Statement):
            yield from _all(line.inner)


def _name(path: str) -> str:
    """A name for the source, by its folder or file."""
    steps = [step for step in Path(path).parts if not set(step) & set("*?[")]
    name = Path(steps[-1]).name.split(".")[0] if steps else ""
    name = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    name = re.sub(r"_?\d{4}_?\d\d.*$", "", name) or name
    return name if re.match("[a-z]", name) else f"files_{name}".rstrip("_")


def _path(path: str, chosen: Group, files: Sequence[Path]) -> Statement:
    if len(chosen.files) == len(files) and (len(files) == 1 or not Path(path).is_dir()):
        return Statement("path", path, "sure", "as you named it")
    many = "1 file" if len(chosen.files) == 1 else f"{len(chosen.files):,} files"
    glob = glob_of([one.path for one in chosen.samples], files)
    return Statement("path", glob, "sure", f"{many} of one shape")


def _lines_of(chosen: Group, files: Sequence[Path]) -> list[Line]:
    if chosen.samples[0].format == "netcdf":
        return cf_lines(chosen.samples[0].path)
    sample = _merged(chosen.samples)
    times = times_of(sample)
    long = long_columns(sample, times.columns)
    taken = [*times.columns, *(long or {}).values()]
    free = stations_of(sample, taken, chosen.files, times.american)
    wide = wide_columns(sample, [*taken, *free.columns]) if long is None and free.identifier is None else None
    stations = stations_of(sample, taken, chosen.files, times.american, by_columns=True) if wide else free
    place = stations.lines
    asked = wide is None and any(isinstance(line, Question) for line in place)
    ids = ids_of(sample, stations.identifier, place, chosen.files) if asked else set()
    beside = list_beside(sample, ids, files) if ids else None
    if beside is not None:
        place = [*(line for line in place if not isinstance(line, Question)), *beside]
    of = sample.rows[stations.identifier].cast(pl.String) if stations.identifier else None
    step = step_of(times.found, of)
    found = measured(sample, [*taken, *stations.columns], times.american, step, wide, long)
    return [*sample.statements, *times.lines, *place, *found]


def _merged(samples: Sequence[Sample]) -> Sample:
    """One sample of several files of one shape."""
    some = samples[:: max(1, -(-len(samples) // _MERGED))]
    try:
        rows = pl.concat([one.rows.head(ROWS // 4) for one in some], how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        return some[0]
    moments = some[0].moments if len(some) == 1 else None
    lacking = {name for name in rows.columns if any(name not in one.rows.columns for one in samples)}
    return replace(some[0], rows=rows if len(some) > 1 else some[0].rows, moments=moments, lacking=frozenset(lacking))


def _is_list(group: Group, groups: Sequence[Group]) -> bool:
    """Whether a file is a list of stations rather than one of data, which has times."""
    if len(groups) == 1 or group.samples[0].format == "netcdf" or group.samples[0].knows_times:
        return False
    return not times_of(group.samples[0]).columns


def _faults(block: dict[str, object]) -> Iterator[str]:
    """What the configuration refuses of the block, apart from what is asked for."""
    place = {} if "stations" in block else {"latitude": 0.0, "longitude": 0.0}
    try:
        FilesConfig.model_validate({"variables": ["x"], **place, **block})
    except ValidationError as error:
        for one in error.errors():
            where = ".".join(map(str, one["loc"]))
            yield f"{where}: {one['msg']}: this guess is wrong, correct it ({in_yaml(one['input'])})"
