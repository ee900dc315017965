"""A block for what is parked: which of its fields are variables that weather stations usually have.

Belongs here: guesses by the names that Telegraf, weewx, ESPHome and others give to fields. Does not belong here: what
names mean (domain/usual_names.py), changing the YAML (config/editing.py). A guess is shown to a person, and never made
in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ionbeam_dagster.domain.usual_names import told_by
from ionbeam_dagster.doors.http.lines import shown
from ionbeam_dagster.doors.http.parked import read_parked
from ionbeam_dagster.sources.door import DoorConfig

_STATION_TAGS = ("station", "station_id", "host", "device", "name", "entity_id", "source")
_PLACES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon", "lng")}


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a block may get: keys, `variables`, and (measurement, field) of which nobody can say what they are."""

    keys: dict[str, str]
    variables: list[dict[str, Any]]
    unknown: list[tuple[str, str]]


def propose(config: DoorConfig, folder: Path) -> Proposal:
    """Look at the parked lines of a source in `folder`."""
    fields: dict[tuple[str, str], None] = {}
    tags: dict[str, None] = {}
    for kind, of_fields, of_tags in _names(folder):
        fields |= dict.fromkeys((kind, name) for name in of_fields)
        tags |= dict.fromkeys(of_tags)
    places = {
        axis: next((name for name in names if name in tags or any(name == f for _, f in fields)), None)
        for axis, names in _PLACES.items()
        if getattr(config, axis) is None
    }
    keys = {axis: name for axis, name in places.items() if name is not None}
    if config.station not in tags and (station := next((name for name in _STATION_TAGS if name in tags), None)):
        keys["station"] = station
    taken = {(one.measurement, one.field) for one in config.variables}
    variables, unknown = [], []
    of_column: set[tuple[str, str]] = {(str(one.measurement), one.canonical.column) for one in config.variables}
    for measurement, field in fields:
        if {(measurement, field), (None, field)} & taken or field in keys.values():
            continue
        guess = _guessed(measurement, field)
        key = (measurement, f"{guess['standard_name']} {guess['level']}") if guess else None
        if guess is None or key in of_column:
            unknown.append((measurement, field))
        elif key is not None:
            of_column.add(key)
            variables.append(guess)
    return Proposal(keys, variables, unknown)


def _guessed(measurement: str, field: str) -> dict[str, Any] | None:
    named = told_by(field)
    if named.usual is None or named.usual.sums or named.method not in (None, "point"):
        return None  # what a sum or an extreme is over, no line says
    standard_name, cf_unit = named.usual.standard_name, named.usual.unit
    level = named.usual.level if named.level is None else named.level
    given = {"unit": named.unit} if named.unit not in (None, cf_unit) else {}
    return {
        "measurement": measurement, "field": field, "standard_name": standard_name, **given, "cf_unit": cf_unit,
        "level": level,
    }  # fmt: skip


def _names(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Of different kinds of parked lines: the measurement, the names of their fields and of their tags."""
    for path in sorted(folder.glob("*.parquet")):
        head = pl.col("line").str.extract("^([^ ]*)")
        fields = pl.concat_str(pl.lit(","), pl.col("line").str.extract("^[^ ]* ([^ ]*)"))
        kinds = (
            next(read_parked(path))
            .select(
                shown(head.str.extract("^([^,]*)")).alias("measurement"),
                fields.str.replace_all("=[^,]*", "").str.strip_chars_start(",").alias("fields"),
                head.str.extract("^[^,]*,(.*)$").str.replace_all("=[^,]*", "").fill_null("").alias("tags"),
            )
            .unique(maintain_order=True)
            .with_columns(shown(pl.col("fields").str.split(",").list.join("\n")), shown(pl.col("tags")))
        )
        for measurement, names, tags in kinds.iter_rows():
            yield measurement, names.split("\n"), [tag for tag in tags.split(",") if tag]
