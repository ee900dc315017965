"""Logs of stations and other lines of JSON, as columns.

Belongs here: the names and values in the first rows of such files. Does not belong here: reading them in earnest
(sources/files/json_lines.py, annotated_csv.py).
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from ionbeam_dagster.sources.files.guessing.sample import ROWS, Sample
from ionbeam_dagster.sources.files.readers import Unreadable

Row = dict[str, Any]


def json_sample(path: Path, lines: Iterable[str]) -> Sample:
    """A sample of JSON lines; those of a station's logger say themselves what is a time, a tag and a field."""
    rows: list[Row] = []
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
        if len(rows) == ROWS:
            break
    if all(isinstance(row.get("fields"), dict) and "timestamp" in row for row in rows):
        parts = [(str(row.get("measurement", "")), row.get("tags") or {}, row["fields"]) for row in rows]
        times = [row["timestamp"] for row in rows]
        return _of_points(path, "jsonl", parts, times)
    flat = [{name: value for name, value in row.items() if not isinstance(value, dict | list)} for row in rows]
    return Sample(path, "jsonl", _texts(flat))


def annotated_sample(path: Path, lines: Iterable[str]) -> Sample:
    """A sample of annotated CSV."""
    kinds: list[str] = []
    names: list[str] | None = None
    parts: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    for cells in csv.reader(lines):
        if cells and cells[0].startswith("#"):
            first, _, rest = cells[0].partition(" ")
            if first == "#datatype":
                kinds, names = [*([rest] if rest else [""]), *cells[1:]], None
        elif cells and names is None:
            names = cells
        elif names is not None and len(cells) == len(names):
            parts.append(_point(kinds, names, cells))
        if len(parts) == ROWS:
            break
    return _of_points(path, "influx_csv", parts, None)


def _point(kinds: list[str], names: list[str], cells: list[str]) -> tuple[str, Row, Row]:
    row = list(zip(kinds, names, cells, strict=False))
    measurement = next((cell for kind, name, cell in row if kind == "measurement" or name == "_measurement"), "")
    numbers = ("double", "long", "unsignedLong", "duration", "field")
    tags = {name: cell for kind, name, cell in row if kind == "tag" or (kind == "string" and not name.startswith("_"))}
    fields = {name: cell for kind, name, cell in row if kind.split(":")[0] in numbers and not name.startswith("_")}
    fields |= {cells[names.index("_field")]: cells[names.index("_value")]} if {"_field", "_value"} <= {*names} else {}
    return measurement, {name: cell for name, cell in tags.items() if name not in ("result", "table")}, fields


def _of_points(
    path: Path, form: str, parts: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]], times: list[Any] | None
) -> Sample:
    kept = [*parts]
    if not kept:
        raise Unreadable("has no row that can be read; put an intact file in its place")
    having: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for measurement, _, fields in kept:
        for name in fields:
            having[name][measurement] = None
    tags = dict.fromkeys(name for _, of, _ in kept for name in of)
    rows = [dict(_row(measurement, of, fields, having)) for measurement, of, fields in kept]
    moments = None if times is None else pl.Series(times, dtype=pl.Int64, strict=False).cast(pl.Datetime("ns"))
    return Sample(path, form, _texts(rows, [*tags]), knows_times=True, moments=moments, tags=tuple(tags))


def _row(
    measurement: str, tags: Mapping[str, Any], fields: Mapping[str, Any], having: Mapping[str, Mapping[str, None]]
) -> Iterator[tuple[str, Any]]:
    yield from tags.items()
    for name, value in fields.items():
        yield (name if len(having[name]) == 1 else f"{measurement}.{name}"), value


def _texts(rows: list[Row], first: list[str] | None = None) -> pl.DataFrame:
    names = [*dict.fromkeys([*(first or ()), *(name for row in rows for name in row)])]
    return pl.DataFrame(
        {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in names},
        schema=dict.fromkeys(names, pl.String()),
    )
