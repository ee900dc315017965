"""What tells stations apart, and where they are.

Belongs here: names of columns and of files that mean a station or a place. Does not belong here: times and quantities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import polars as pl

from ionbeam_dagster.domain.usual_names import words_of
from ionbeam_dagster.sources.files.guessing.sample import Sample
from ionbeam_dagster.sources.files.guessing.statements import Line, Question, Statement, below
from ionbeam_dagster.sources.files.text_lines import PACKED
from ionbeam_dagster.sources.files.times import present

_IDS = ("station id", "stationid", "stations id", "station", "station abbr",
        "observation station", "stn", "stnid", "stn id", "stid", "site id", "siteid",
        "site",
        "location id", "locationid", "sensor id", "sensorid", "sensor", "device id", "device", "wmo", "wmo id",
        "wigos id", "usaf",
        "wban", "statid", "platform", "platform id", "id station", "codice stazione", "stazione", "estacion",
        "station code",
        "id")  # fmt: skip
_LATITUDES = (
    "lat",
    "latitude",
    "breite",
    "geo breite",
    "geobreite",
    "latitud",
    "latitudine",
    "y lat",
    "breitengrad",
    "la",
)
_LONGITUDES = ("lon", "long", "lng", "longitude", "laenge", "geo laenge", "geolaenge", "longitud", "longitudine",
               "laengengrad", "lo")  # fmt: skip
_NAMES = (
    "station name",
    "stationname",
    "stations name",
    "site name",
    "location name",
    "location",
    "name",
    "station nm",
)
_HEIGHTS = (
    "feet",
    *(f"{name}{unit}"
    for name in ("elevation", "elev", "altitude", "alt", "height", "station height", "stationshoehe",
                 "station elevation",
                 "station altitude", "hoehe", "quota")
    for unit in ("", " m", " ft", " feet")),
)  # fmt: skip
_DATE_IN_NAME = r"\d{4}[-_]?\d{2}(?:[-_]?\d{2})?(?:[T_-]?\d{2,6}Z?)?"
_AXES = ("latitude", "longitude")
_NUMBER = re.compile(r"[+-]?\d{1,3}(\.\d+)?")
_COORDINATE = r"(?P<number>[+-]?\d{1,3}\.\d+)\s*°?\s*(?P<side>[NSEW])?"


@dataclass(slots=True)
class StationsFound:
    """What was found of stations: the lines that say it, the columns taken, and that with their names."""

    lines: list[Line] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    identifier: str | None = None


def stations_of(
    sample: Sample, taken: Sequence[str], files: Sequence[Path], american: bool, by_columns: bool = False
) -> StationsFound:
    """What a sample tells of stations, besides the columns that are `taken`; `by_columns` where names of columns tell
    them apart."""
    free = [name for name in sample.rows.columns if name not in taken]
    by_words = {" ".join(words_of(re.sub(r"[\[(].*", "", name))): name for name in reversed(free)}
    found = StationsFound()
    place, place_columns = _place(sample, by_words)
    metadata: list[Statement] = []
    identifier = None if by_columns else _identifier(sample, by_words)
    if identifier is not None:
        stations = sample.rows[identifier].drop_nulls().n_unique()
        why = f"its name; the sample has {stations} of them"
        metadata.append(Statement("station_id", identifier, "sure" if len(identifier) > 2 else "likely", why))
    name = next((by_words[word] for word in _NAMES if word in by_words and by_words[word] != identifier), None)
    if name is not None and identifier is None and not by_columns and _is_text(sample.rows[name]):
        identifier = name
        metadata.append(Statement("station_id", name, "likely", "its name; no other column tells stations apart"))
    elif name is not None and _is_text(sample.rows[name]):
        metadata.append(Statement("station_name", name, "likely", "its name"))
    else:
        name = None
    height = _height(sample, by_words, american)
    metadata += height
    found.lines += place
    found.lines += below("metadata", metadata)
    if identifier is None and not by_columns:
        found.lines += _of_drives() if _moves(sample, place_columns) else _by_files(files)
    heights = [_column_of(one) for one in height]
    found.columns = (*place_columns, *(one for one in (identifier, name) if one), *heights)
    found.identifier = identifier
    return found


def _column_of(statement: Statement) -> str:
    return statement.value["column"] if isinstance(statement.value, dict) else str(statement.value)


def _identifier(sample: Sample, by_words: dict[str, str]) -> str | None:
    if sample.tags:
        by_words = {word: name for word, name in by_words.items() if name in sample.tags}
    return next(
        (by_words[word] for word in _IDS if word in by_words and not _is_count(sample.rows[by_words[word]])), None
    )


def _is_count(given: pl.Series) -> bool:
    """Whether a column counts rows, as what R writes does."""
    numbers = given.cast(pl.String).str.strip_chars().cast(pl.Int64, strict=False)
    return len(numbers) > 2 and not numbers.has_nulls() and bool((numbers.diff().drop_nulls() == 1).all())


def _is_text(given: pl.Series) -> bool:
    texts = given.to_frame("x").select(present(pl.col("x").cast(pl.String)))["x"].drop_nulls()
    return len(texts) > 0 and texts.cast(pl.Float64, strict=False).null_count() > 0.5 * len(texts)


def _place(sample: Sample, by_words: dict[str, str]) -> tuple[list[Line], tuple[str, ...]]:
    pairs = [(by_words.get(lat), by_words.get(lon)) for lat in _LATITUDES for lon in _LONGITUDES]
    for latitude, longitude in pairs:
        if latitude and longitude and _within(sample, latitude, 90) and _within(sample, longitude, 360):
            said: list[Line] = [
                Statement(key, column, "sure", "its name and its values")
                for key, column in (("latitude", latitude), ("longitude", longitude))
            ]
            return said, (latitude, longitude)
    return _told_place(sample.around), ()


def _within(sample: Sample, name: str, most: float) -> bool:
    texts = sample.rows[name].cast(pl.String).str.replace(",", ".", literal=True).str.strip_chars()
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls()
    return len(numbers) > 0 and bool(numbers.is_between(-most, most).all())


def _told_place(around: Sequence[str]) -> list[Line]:
    """The place as lines above the rows tell it, or the question for it."""
    for names, values in pairwise(around):
        place = _in_two_lines(names, values)
        if place is not None:
            why = f"the file says: {values.strip()[:50]}"
            return [Statement(key, number, "likely", why) for key, number in zip(_AXES, place, strict=True)]
    for line in around:
        named = re.search(
            rf"(?i)lat\w*\W+{_COORDINATE}.*lon\w*\W+{_COORDINATE.replace('number', 'east').replace('side', 'we')}", line
        )
        plain = re.match(
            r"\s*(?P<number>[+-]?\d{1,2}\.\d+)\s+(?P<east>[+-]?\d{1,3}\.\d+)\s+(?P<height>\d+)\s*m\b", line
        )
        told = named or plain
        if told is not None and abs(float(told["number"])) <= 90 and abs(float(told["east"])) <= 360:
            south, west = (told.groupdict().get(side) in ("S", "W") for side in ("side", "we"))
            why = f"the file says: {line.strip()[:50]}"
            return [Statement("latitude", float(told["number"]) * (-1 if south else 1), "likely", why),
                    Statement("longitude", float(told["east"]) * (-1 if west else 1), "likely", why)]  # fmt: skip
    return [Question("the files do not say where the station is. Write its place in degrees (west and south negative), "
                     "and take the # away; of several stations see `stations` in docs/files.md:",
                     ("latitude: 0.0", "longitude: 0.0"))]  # fmt: skip


def _in_two_lines(names: str, values: str) -> tuple[float, float] | None:
    """Latitude and longitude in a line whose names stand above it."""
    for separator in (",", ";", "\t"):
        cells = dict(
            zip((" ".join(words_of(name)) for name in names.split(separator)), values.split(separator), strict=False)
        )
        latitude = next((cells[name] for name in _LATITUDES if name in cells), "")
        longitude = next((cells[name] for name in _LONGITUDES if name in cells), "")
        if _NUMBER.fullmatch(latitude.strip()) and _NUMBER.fullmatch(longitude.strip()):
            return float(latitude), float(longitude)
    return None


def _height(sample: Sample, by_words: dict[str, str], american: bool) -> list[Statement]:
    name = next(
        (by_words[word] for word in _HEIGHTS if word in by_words and not _is_text(sample.rows[by_words[word]])), None
    )
    if name is None:
        return []
    in_brackets = re.search(r"[\[(](.*?)[\])]", name)
    unit = sample.units.get(name) or (in_brackets[1] if in_brackets else None)
    unit = unit or ("ft" if {"ft", "feet"} & {*words_of(name)} else None)
    if unit in ("ft", "feet", "foot") or (unit is None and american):
        why = "its name" if unit else "other columns are in American units"
        return [Statement("altitude", {"column": name, "unit": "ft"}, "sure" if unit else "a guess", why)]
    why = (
        "its name"
        if unit
        else "its name; taken to be in metres above the sea: write {column: ..., unit: ft} if in feet"
    )
    return [Statement("altitude", name, "sure" if unit else "likely", why)]


def _moves(sample: Sample, place: Sequence[str]) -> bool:
    """Whether the place changes from row to row, as that of a vehicle or a balloon does."""
    return len(place) == 2 and sample.rows.select(place).unique().height > 0.3 * sample.rows.height > 3


def _of_drives() -> list[Line]:
    return below(
        "constants", [Statement("station_id", "{stem}", "likely", "the place changes from row to row: a drive a file")]
    )


def _by_files(files: Sequence[Path]) -> list[Line]:
    """What tells the stations of files apart that have no column for it: their names."""
    stems = [_stem(file) for file in files]
    folders = {file.parent.name for file in files}
    if len(folders) > 1 and len(set(stems)) < len(stems):
        return below(
            "constants", [Statement("station_id", "{folder}", "likely", "files of one name lie in several folders")]
        )
    dated = re.search(rf"[-_.]?{_DATE_IN_NAME}", stems[0])
    if dated is not None and all(re.search(_DATE_IN_NAME, stem) for stem in stems):
        before, behind = stems[0][: dated.start()], stems[0][dated.end() :]
        if before:
            pattern = rf"(?P<station_id>[^/]+?)[-_.]?{_DATE_IN_NAME.replace('?:', '?:')}"
            return [Statement("name", pattern, "likely", f"the files' names without their dates, such as {before}")]
        if behind.strip("-_."):
            pattern = rf"{_DATE_IN_NAME}[-_.]?(?P<station_id>[^/.]+)"
            return [Statement("name", pattern, "likely", f"the files' names without their dates, such as {behind}")]
        named = below("constants", [Statement("station_id", "station", "a guess", "as nothing tells another")])
        return [
            Question("nothing in the files or their names tells which station this is. Write a name for it:"),
            *named,
        ]
    why = "a file a station" if len(files) > 1 else "the file's name, as no column tells the station"
    return below("constants", [Statement("station_id", "{stem}", "likely" if len(files) > 1 else "a guess", why)])


def _stem(file: Path) -> str:
    name = file.name
    for ending in PACKED:
        name = name.removesuffix(ending)
    return name.rpartition(".")[0] or name
