"""The source `netatmo`: Netatmo's stations by E-SOH's EDR service, area by area.

Belongs here: which areas are asked for, how the answers of neighbouring ones fit together, and what the service's
refusals mean. Does not belong here: CoverageJSON (sources/coverage_json.py) and HTTP (sources/http).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_client.cf import UnitError
from ionbeam_client.models import IngestionMetadata
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source
from ionbeam_dagster.sources.coverage_json import CoverageError, read_coverages
from ionbeam_dagster.sources.http import Answer, Basic, HttpClient, HttpError
from ionbeam_dagster.sources.http.settings import Concurrency, Retries, Timeout
from ionbeam_dagster.sources.netatmo.features import batches_of, described, in_window
from ionbeam_dagster.sources.netatmo.parameters import EsohConfig, declared_conversion, metadata

SERVICE = "https://observations.meteogate.eu"
AREA = "collections/observations/area"
COUNTRIES: dict[str, tuple[float, float, float, float]] = {
    "austria": (9.5, 46.3, 17.2, 49.1),
    "belgium": (2.5, 49.4, 6.5, 51.6),
    "denmark": (8.0, 54.5, 15.3, 57.8),
    "finland": (20.5, 59.7, 31.6, 70.1),
    "france": (-5.2, 42.3, 8.3, 51.1),
    "germany": (5.8, 47.2, 15.1, 55.1),
    "ireland": (-10.7, 51.4, -5.9, 55.4),
    "italy": (6.6, 36.6, 18.6, 47.1),
    "netherlands": (3.3, 50.7, 7.3, 53.6),
    "norway": (4.5, 57.9, 31.2, 71.2),
    "spain": (-9.3, 36.0, 3.4, 43.8),
    "sweden": (10.9, 55.3, 24.2, 69.1),
    "united_kingdom": (-8.2, 49.9, 1.8, 60.9),
}
"""Bounding boxes: west, south, east, north, in degrees."""

_EMPTY = "did not return any time series"
_TOO_MUCH = frozenset({408, 413, 504})
_MARGIN = 1e-4  # degrees: a station on the border of two areas is in both answers, and counts in the first
_CUTS = 3  # how often an area that is refused is cut in four


@dataclass(frozen=True, slots=True)
class Area:
    """A box in degrees."""

    west: float
    south: float
    east: float
    north: float

    def cut(self, pieces: int) -> list[Area]:
        """`pieces` by `pieces` boxes, from the south-west."""
        wide, high = (self.east - self.west) / pieces, (self.north - self.south) / pieces
        return [
            Area(self.west + x * wide, self.south + y * high, self.west + (x + 1) * wide, self.south + (y + 1) * high)
            for y in range(pieces)
            for x in range(pieces)
        ]

    def overlaps(self, other: Area) -> bool:
        across = self.west <= other.east and other.west <= self.east
        return across and self.south <= other.north and other.south <= self.north

    def holds(self) -> pl.Expr:
        """Whether a row lies in the box, its borders included."""
        return pl.col("lon").is_between(self.west, self.east) & pl.col("lat").is_between(self.south, self.north)

    @property
    def polygon(self) -> str:
        """As WKT, a little larger, so that no rounding leaves a station on the border out."""
        west, south, east, north = (
            self.west - _MARGIN, self.south - _MARGIN, self.east + _MARGIN, self.north + _MARGIN
        )  # fmt: skip
        corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        return f"POLYGON(({','.join(f'{lon:.5f} {lat:.5f}' for lon, lat in corners)}))"


@dataclass(frozen=True, slots=True)
class Tile:
    """An area to ask for; a row in one of those `before` it is theirs."""

    area: Area
    before: tuple[Area, ...] = ()

    def own(self) -> pl.Expr:
        mine = self.area.holds()
        for area in self.before:
            mine = mine & ~area.holds()
        return mine


def tiles_of(areas: Sequence[Area]) -> list[Tile]:
    """The areas as tiles that share no row, whether they touch or overlap."""
    tiles = [
        Tile(area, tuple(before for before in areas[:place] if before.overlaps(area)))
        for place, area in enumerate(areas)
    ]
    return [replace(tile, before=tuple(one for one in tile.before if one != tile.area)) for tile in tiles]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression ({error})") from error
    return text


class NetatmoConfig(EsohConfig):
    """Netatmo's stations from E-SOH's EDR service, area by area."""

    base_url: Annotated[str, AfterValidator(lambda given: given or SERVICE)] = Field(
        default=SERVICE, description="Address of the service."
    )
    username: str = Field(default="", description="Name of the account.", examples=["somebody"])
    password: SecretStr = Field(default=SecretStr(""), description="The account's password.", examples=["${PASSWORD}"])
    countries: tuple[str, ...] = Field(
        default=tuple(COUNTRIES), description="Countries whose boxes are asked for.", examples=[["norway"]]
    )
    areas: dict[str, tuple[float, float, float, float]] = Field(
        default={},
        description="Boxes of your own, by a name: west, south, east, north in degrees.",
        examples=[{"alps": [5.9, 45.8, 10.5, 47.8]}],
    )
    tiles: int = Field(default=3, ge=1, le=20, description="A box is asked for in so many by so many pieces.")
    history: timedelta = Field(
        default=timedelta(hours=24), gt=timedelta(0), description="How far back the service answers."
    )
    collect_again_after: tuple[NonNegativeDuration, ...] = Field(
        default=(timedelta(hours=3), timedelta(hours=18)),
        description="How long after a window could first be collected it is collected again for late values.",
    )
    exclude_stations: Annotated[str, AfterValidator(_pattern)] = Field(
        default="^0-2000[0-9]-",
        description="Stations whose id matches this regular expression are left out, as those of other networks; by "
        "default the national services' (WIGOS ids from 0-20000 on).",
    )
    timeout_seconds: Timeout = 60
    concurrency: Concurrency = 4
    max_retries: Retries = 4

    @model_validator(mode="after")
    def _areas_are_known(self) -> Self:
        unknown = sorted(set(self.countries) - set(COUNTRIES))
        if unknown:
            raise ValueError(
                f"countries: {', '.join(unknown)} not known; there are {', '.join(COUNTRIES)}, or add areas"
            )
        if not self.countries and not self.areas:
            raise ValueError("countries is empty and there are no areas: there is nothing to ask for")
        for name, (west, south, east, north) in self.areas.items():
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                raise ValueError(f"areas.{name}: must be [west, south, east, north] in degrees")
        return self

    def tiling(self) -> list[Tile]:
        boxes = [COUNTRIES[name] for name in self.countries] + list(self.areas.values())
        return tiles_of([piece for box in boxes for piece in Area(*box).cut(self.tiles)])


class NetatmoEdr(Source):
    """What the EDR service has, for a day after it was observed."""

    Config = NetatmoConfig
    network = "netatmo"
    default_window = timedelta(hours=1)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: NetatmoConfig) -> None:
        super().__init__(name, config)
        self._config = config
        password = config.password.get_secret_value()
        self._client = HttpClient(
            config.base_url,
            timeout=config.timeout_seconds,
            retries=config.max_retries,
            concurrency=config.concurrency,
            credentials=Basic(config.username, password) if config.username else None,
            cache=config.cache_path / f"{name}.cache" if config.use_cache else None,
        )
        self._notes: list[str] = []
        self._narrowed = True

    @property
    def metadata(self) -> IngestionMetadata:
        return metadata(self, self._config, flagged=False)

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """Wide rows of `window`, area by area, each by station and time.

        Raises SourceError when an area fails, and for a window that is older than what the service keeps.
        """
        self._notes = []
        oldest = datetime.now(UTC) - self._config.history
        if window.start < oldest:
            raise SourceError(
                f"{self.name} {window}: {self._config.base_url} keeps {self._config.history} only, from "
                f"{oldest:%Y-%m-%dT%H:%MZ} on; take older observations from the archive (netatmo_archive)"
            )
        for _, frames in self._client.side_by_side(self._config.tiling(), lambda tile: self._of_tile(tile, window)):
            for rows in frames:
                yield from batches_of(rows)

    def signature(self, window: Window) -> str:
        """A hash of what is asked for; whether the service has more by now, only asking can tell."""
        query = self._config.model_dump_json(include={"parameters", "countries", "areas", "exclude_stations"})
        return hashlib.sha256(query.encode()).hexdigest()

    def problems(self) -> list[str]:
        """Of the last window: values that were no numbers, and stations of other networks."""
        return list(self._notes)

    def _of_tile(self, tile: Tile, window: Window, cuts: int = 0) -> list[pl.DataFrame]:
        """The rows of a tile; one that is too much for the service is asked for in four pieces."""
        try:
            answer = self._answer(tile.area, window)
        except HttpError as error:
            if cuts == _CUTS or not _is_too_much(error):
                raise
            pieces = [Tile(piece.area, (*tile.before, *piece.before)) for piece in tiles_of(tile.area.cut(2))]
            return [rows for piece in pieces for rows in self._of_tile(piece, window, cuts + 1)]
        rows = self._rows(answer, window).filter(tile.own())
        return [rows] if rows.height else []

    def _answer(self, area: Area, window: Window) -> Answer | None:
        """The service's answer; None when it has nothing for the area."""
        moments = "/".join(f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (window.start, window.end))
        params = {
            "coords": area.polygon,
            "datetime": moments,
            "f": "CoverageJSON",
        }
        narrowed = self._narrowed
        if narrowed:
            params["parameter-name"] = ",".join(self._config.parameters)
        answer = self._client.get(AREA, params, allow=(400, 404))
        if answer.status == 400:
            if narrowed and "parameter-name" in answer.content.decode(errors="replace"):
                self._narrowed = False  # the service refuses the whole list where one of it has no data today
                return self._answer(area, window)
            raise answer.wrong(f"is 400: {answer.content[:300].decode(errors='replace')}")
        if answer.status == 404:
            if _EMPTY in answer.content.decode(errors="replace"):
                return None
            raise answer.wrong(
                f"is 404, and does not say that there is nothing: check base_url ({answer.content[:200]!r})"
            )
        return answer

    def _rows(self, answer: Answer | None, window: Window) -> pl.DataFrame:
        if answer is None:
            return self._wide(pl.DataFrame(schema=_PLACED))
        try:
            found = read_coverages(answer.content)
        except CoverageError as error:
            raise answer.wrong(str(error)) from error
        for parameter, (number, example) in found.unreadable.items():
            self._notes.append(f"{number} values of {parameter} were no numbers, such as {example!r}")
        given = pl.DataFrame(pl.from_arrow(found.rows))
        rows = given.filter(in_window(window))
        unasked = given.height - rows.height - given.filter(pl.col("datetime") == window.end).height
        if unasked:
            self._notes.append(f"{unasked} times outside of {window} in one area were left out; is a clock wrong?")
        kept = [name for name in self._config.parameters if name in rows.columns]
        return self._wide(self._in_declared_units(rows.select(*_PLACED, *kept), found.units, answer))

    def _in_declared_units(self, rows: pl.DataFrame, units: dict[str, str], answer: Answer) -> pl.DataFrame:
        converted = {}
        for parameter, unit in units.items():
            if parameter in rows.columns:
                try:
                    scale, offset = declared_conversion(parameter.split(":")[0], unit)
                except UnitError as error:
                    raise answer.wrong(f"has {parameter} in {unit!r} ({error})") from error
                if (scale, offset) != (1.0, 0.0):
                    converted[parameter] = pl.col(parameter) * scale + offset
        return rows.with_columns(**converted)

    def _wide(self, rows: pl.DataFrame) -> pl.DataFrame:
        """All declared columns, one row a station and time: its parameters may come in several coverages."""
        absent = [pl.lit(None, pl.Float64).alias(name) for name in self._config.parameters if name not in rows.columns]
        position = pl.format("{}_{}", pl.col("lat").round(5), pl.col("lon").round(5))
        rows = rows.with_columns(*absent, station_id=pl.col("station_id").fill_null(position))
        other = rows["station_id"].str.contains(self._config.exclude_stations)
        if other.any():
            stations = rows.filter(other)["station_id"].n_unique()
            self._notes.append(f"{stations} stations of other networks in one area were left out (exclude_stations)")
            rows = rows.filter(~other)
        values = list(self._config.parameters)
        key = ["station_id", "datetime"]
        if rows.select(key).is_duplicated().any():
            rows = rows.group_by(key, maintain_order=True).agg(pl.col("lat", "lon", *values).drop_nulls().last())
        rows = rows.filter(pl.any_horizontal(pl.col(values).is_not_null()))
        ordered = rows.rename({"station_id": "platform_id"}).select("platform_id", "datetime", "lat", "lon", *values)
        return described(ordered).sort("station_id", "datetime")


_PLACED = {"datetime": pl.Datetime("us", "UTC"), "lat": pl.Float64(), "lon": pl.Float64(), "station_id": pl.String()}


def _is_too_much(error: HttpError) -> bool:
    return error.status in _TOO_MUCH or "within the time-out" in str(error)
