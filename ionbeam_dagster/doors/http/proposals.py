"""A block for what is parked: which of its fields are variables that weather stations usually have.

Belongs here: guesses by the names that Telegraf, weewx, ESPHome and others give to fields. Does not belong here:
changing the YAML (config/editing.py). A guess is shown to a person, and never made in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ionbeam_dagster.doors.http.lines import shown
from ionbeam_dagster.doors.http.parked import read_parked
from ionbeam_dagster.sources.door import DoorConfig

_T, _P, _W = ("air_temperature", "degC", 2.0), ("air_pressure", "hPa", 0.0), ("wind_speed", "m s-1", 10.0)
_DIRECTION, _GUST = ("wind_from_direction", "degree", 10.0), ("wind_speed_of_gust", "m s-1", 10.0)
_USUAL = {
    **dict.fromkeys(("temperature", "temp", "outtemp", "airtemperature", "outdoortemperature"), _T),
    **dict.fromkeys(("humidity", "outhumidity", "relativehumidity", "rh"), ("relative_humidity", "percent", 2.0)),
    **dict.fromkeys(("dewpoint",), ("dew_point_temperature", "degC", 2.0)),
    **dict.fromkeys(("pressure", "stationpressure"), _P),
    **dict.fromkeys(("barometer", "altimeter", "mslp"), ("air_pressure_at_mean_sea_level", "hPa", 0.0)),
    **dict.fromkeys(("windspeed",), _W),
    **dict.fromkeys(("winddir", "winddirection"), _DIRECTION),
    **dict.fromkeys(("windgust", "gust"), _GUST),
}
"""What a field is by its name, in lower case and without signs: standard name, unit, level in m."""

_UNITS = {
    "c": "degC", "f": "degF", "k": "K", "mbar": "hPa", "hpa": "hPa", "pa": "Pa", "inhg": "inHg", "mps": "m s-1",
    "kph": "km h-1", "kmh": "km h-1", "mph": "mile hour-1", "knot": "knot", "pct": "percent", "percent": "percent",
}  # fmt: skip
"""Units as the ends of names have them, such as ``outTemp_F``."""

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
    stem, _, end = field.rpartition("_")
    unit = _UNITS.get(end.lower()) if stem else None
    name = stem if unit else field
    usual = _USUAL.get("".join(sign for sign in name.lower() if sign.isalnum()))
    if usual is None:
        return None
    standard_name, cf_unit, level = usual
    given = {"unit": unit} if unit not in (None, cf_unit) else {}
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
