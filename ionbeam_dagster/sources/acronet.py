"""The source `acronet`: the stations of CIMA's Acronet in Italy, by the web service "webdrops".

Belongs here: logging in, sensor classes, stations and their data, and what the service's numbers mean. Does not belong
here: HTTP as such (http.py). Each class of sensors is asked for its stations and then for all their values at once; a
station is the sensors that share the first part of their ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr

from ionbeam_client.cf import UnitError, conversion, suggest_unit
from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    Link,
    MetadataVariable,
    Period,
    parse_duration,
)
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.domain.windows import Window, parts_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.http import Answer, Bearer, HttpClient, Token
from ionbeam_dagster.sources.http.settings import Concurrency, Retries, Timeout

SERVICE = "https://webdrops.cimafoundation.org/app/"
LOGIN = "https://testauth.cimafoundation.org/auth/realms/webdrops/protocol/openid-connect/token"
MISSING = -9000.0
LONGEST = timedelta(days=3)
_ITALY = (6.0, 36.0, 18.6, 47.5)
_DESCRIBED = ("station_id", "platform_id", "mobility", "station_height", "indoor", "station_name")


@dataclass(frozen=True, slots=True)
class SensorClass:
    """What a class of sensors measures: CF's name, the unit that we keep, the unit that the service sends where it
    does not tell, height above ground (m) and cell method over the period of aggregation."""

    standard_name: str
    unit: str
    sent: str
    level: float
    method: str


CLASSES = {
    "TERMOMETRO": SensorClass("air_temperature", "degC", "degC", 2.0, "mean"),
    "IGROMETRO": SensorClass("relative_humidity", "%", "%", 2.0, "mean"),
    "BAROMETRO": SensorClass("surface_air_pressure", "hPa", "hPa", 0.0, "mean"),
    "PLUVIOMETRO": SensorClass("precipitation_amount", "kg m-2", "mm", 0.0, "sum"),
    "ANEMOMETRO": SensorClass("wind_speed", "m s-1", "m s-1", 10.0, "mean"),
    "DIREZIONEVENTO": SensorClass("wind_from_direction", "degree", "degree", 10.0, "mean"),
    "ANEMOMETRO_RAFFICA": SensorClass("wind_speed_of_gust", "m s-1", "knots", 10.0, "maximum"),
    "RADIOMETRO": SensorClass("surface_downwelling_shortwave_flux_in_air", "W m-2", "W m-2", 2.0, "mean"),
}
_SAID_DIFFERENTLY = {
    "mm": "kg m-2",
    "%": "%",
    "°C": "degC",
    "C": "degC",
    "gradi": "degree",
    "°": "degree",
    "nodi": "knots",
}


class AcronetConfig(SourceConfig):
    """Acronet (CIMA): who asks, and for which stations."""

    base_url: Annotated[str, AfterValidator(lambda given: given or SERVICE)] = Field(
        default=SERVICE, description="Address of the service."
    )
    token_endpoint: Annotated[str, AfterValidator(lambda given: given or LOGIN)] = Field(
        default=LOGIN, description="Address of the login."
    )
    username: str = Field(default="", description="Name of the account.", examples=["somebody"])
    password: SecretStr = Field(default=SecretStr(""), description="The account's password.", examples=["${PASSWORD}"])
    client_id: str = Field(default="webdrops", description="Name of the client program at the login.")
    client_secret: SecretStr = Field(
        default=SecretStr(""), description="The client program's secret.", examples=["${ACRONET_SECRET}"]
    )
    station_group: str = Field(default="ComuneLive%IChange", description="Group of stations that is taken.")
    area: tuple[float, float, float, float] = Field(
        default=_ITALY, description="Box of the stations: west, south, east, north in degrees."
    )
    period: Period = Field(
        default="PT10M", description="Intervals that values are aggregated over; the window is a multiple of it."
    )
    timeout_seconds: Timeout = 60
    concurrency: Concurrency = 4
    max_retries: Retries = 4
    collect_again_after: tuple[NonNegativeDuration, ...] = Field(
        default=(timedelta(hours=3), timedelta(days=1)),
        description="How long after a window could first be collected it is collected again for late values.",
    )


class Acronet(Source):
    """The stations of a group, with every class of sensors that we know and the service has."""

    Config = AcronetConfig
    default_window = timedelta(hours=1)
    default_span = timedelta(hours=1)

    def __init__(self, name: str, config: AcronetConfig) -> None:
        super().__init__(name, config)
        self._config = config
        secrets = [one.get_secret_value() for one in (config.password, config.client_secret)]
        self._client = HttpClient(
            config.base_url,
            timeout=config.timeout_seconds,
            retries=config.max_retries,
            concurrency=config.concurrency,
            credentials=Bearer(self._login, self._refresh, [one for one in secrets if one])
            if config.username
            else None,
            cache=config.cache_path / f"{name}.cache" if config.use_cache else None,
        )
        self._notes: list[str] = []

    @property
    def metadata(self) -> IngestionMetadata:
        config = self._config
        return IngestionMetadata(
            dataset=self.described(
                "Acronet, the network of open weather stations of CIMA Research Foundation in Italy",
                [Link(href="https://www.cimafoundation.org", title="CIMA Research Foundation")],
                ["Acronet", "Italy", "citizen weather stations"],
            ),
            ingestion_map=DataIngestionMap(
                canonical_variables=[
                    CanonicalVariable(
                        column=name,
                        standard_name=one.standard_name,
                        cf_unit=one.unit,
                        level=one.level,
                        method=one.method,
                        period=config.period,
                    )
                    for name, one in CLASSES.items()
                ],
                metadata_variables=[MetadataVariable(column=column) for column in _DESCRIBED],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """Wide rows of `window`, by station and time, three days at most in a batch.

        Raises SourceError when anything is refused, or answered with nothing at all.
        """
        self._notes = []
        classes = self._classes()
        stations = {name: self._stations(name) for name in classes}
        for part in parts_of(window, LONGEST):
            asked = self._client.side_by_side(classes, partial(self._values, part, stations))
            found = [frame for _, frame in asked if frame.height]
            if found:
                given = _wide(found)
                rows = given.filter(pl.col("datetime").is_between(part.start, part.end, closed="left"))
                unasked = given.filter(~pl.col("datetime").is_between(part.start, part.end)).height
                if unasked:
                    self._notes.append(f"{unasked} times outside of {part} were left out; is a clock wrong?")
                yield from rows.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    def signature(self, window: Window) -> str:
        """A hash of what is asked for; whether the service has more by now, only asking can tell."""
        return hashlib.sha256(
            self._config.model_dump_json(include={"station_group", "area", "period"}).encode()
        ).hexdigest()

    def problems(self) -> list[str]:
        """Of the last window: classes that are not kept, sensors that no list has, and units that are not known."""
        return sorted(set(self._notes))

    def _login(self, client: HttpClient) -> Token:
        return self._token(client, grant_type="password", username=self._config.username,
                           password=self._config.password.get_secret_value())  # fmt: skip

    def _refresh(self, client: HttpClient, refresh: str) -> Token:
        return self._token(client, grant_type="refresh_token", refresh_token=refresh)

    def _token(self, client: HttpClient, **form: str) -> Token:
        form |= {"client_id": self._config.client_id, "client_secret": self._config.client_secret.get_secret_value()}
        answer = client.post(self._config.token_endpoint, form=form, authorized=False)
        given = answer.json()
        if not isinstance(given, Mapping) or not given.get("access_token"):
            raise answer.wrong("has no access_token; check token_endpoint")
        return Token(given["access_token"], given.get("refresh_token"), given.get("expires_in"))

    def _classes(self) -> list[str]:
        """The classes that we know and the service has; all that we know when it does not say."""
        answer = self._client.get("sensors/classes")
        if not answer.content.strip():
            return list(CLASSES)
        told = _listed(answer)
        names = [one.get("name") if isinstance(one, Mapping) else one for one in told]
        self._notes += [f"sensors of class {name} are not kept" for name in names if name not in CLASSES]
        return [name for name in CLASSES if name in names]

    def _stations(self, name: str) -> pl.DataFrame:
        """The sensors of a class: id, station, place, and how their values become ours."""
        area = ",".join(map(str, self._config.area))
        params = {"stationgroup": self._config.station_group, "geowin": area}
        answer = self._client.get(f"sensors/list/{name}", params)
        found = _framed(answer, _listed(answer), _SENSOR)
        units = found["mu"].unique().to_list()
        factors = [self._factors(name, unit) for unit in units]
        known = pl.DataFrame(
            {"mu": units, "scale": [scale for scale, _ in factors], "offset": [offset for _, offset in factors]},
            schema={"mu": pl.String, "scale": pl.Float64, "offset": pl.Float64},
        )
        sensors = found.unique("id", keep="first", maintain_order=True)
        return sensors.join(known, on="mu", nulls_equal=True, maintain_order="left").select(
            "id",
            pl.col("id").str.replace(r"_\d+$", "").alias("station_id"),
            pl.col("name").alias("station_name"),
            "lat",
            pl.col("lng").alias("lon"),
            "scale",
            "offset",
        )

    def _factors(self, name: str, told: str | None) -> tuple[float, float]:
        """From what the service sends to what we keep. It sends gusts in knots, whatever it says of them."""
        one = CLASSES[name]
        unit = one.sent if told is None or one.sent == "knots" else _SAID_DIFFERENTLY.get(told, told)
        if unit == one.unit or (unit, one.unit) == ("mm", "kg m-2"):
            return 1.0, 0.0
        try:
            return conversion(suggest_unit(unit) or unit, one.unit)
        except UnitError as error:
            raise SourceError(f"{self.name}: {name} comes in {told!r}, which cannot become {one.unit!r}") from error

    def _values(self, part: Window, stations: Mapping[str, pl.DataFrame], name: str) -> pl.DataFrame:
        """Long rows of one class: station, place, time and value, NaN and what means "missing" left out."""
        params = {
            "from": f"{part.start:%Y%m%d%H%M}",
            "to": f"{part.end:%Y%m%d%H%M}",
            "aggr": str(round(self._period.total_seconds())),
            "date_as_string": "true",
        }
        answer = self._client.get(f"sensors/data/{name}/all", params)
        series = _framed(answer, _listed(answer), _SERIES)
        try:
            rows = series.explode("timeline", "values")
        except pl.exceptions.ShapeError as error:
            raise answer.wrong("has a sensor with more times than values, or fewer") from error
        rows = rows.with_columns(
            pl.col("timeline")
            .str.to_datetime("%Y%m%d%H%M", time_unit="us", time_zone="UTC", strict=False)
            .alias("datetime")
        )
        if rows.filter(pl.col("datetime").is_null() & pl.col("timeline").is_not_null()).height:
            raise answer.wrong("has times that are not YYYYmmddHHMM")
        unknown = rows.join(stations[name], left_on="sensorId", right_on="id", how="anti")["sensorId"].n_unique()
        if unknown:
            self._notes.append(f"{unknown} sensors of {name} are of another group, and left out")
        kept = rows.filter(pl.col("values").is_finite() & (pl.col("values") >= MISSING)).join(
            stations[name], left_on="sensorId", right_on="id", how="inner", maintain_order="right_left"
        )
        value = pl.col("values") * pl.col("scale") + pl.col("offset")
        return kept.select("station_id", "station_name", "lat", "lon", "datetime", value.alias(name))

    @property
    def _period(self) -> timedelta:
        return parse_duration(self._config.period)


_SENSOR: dict[str, Any] = {"id": pl.String, "name": pl.String, "lat": pl.Float64, "lng": pl.Float64, "mu": pl.String}
_SERIES: dict[str, Any] = {"sensorId": pl.String, "timeline": pl.List(pl.String), "values": pl.List(pl.Float64)}


def _listed(answer: Answer) -> list[Any]:
    """The answer as a list. Raises HttpError when it is none: an empty body with 200 is a fault, not an empty list."""
    found = answer.json()
    if not isinstance(found, list):
        raise answer.wrong(f"is no list, but {str(found)[:200]!r}")
    return found


def _framed(answer: Answer, found: list[Any], schema: dict[str, Any]) -> pl.DataFrame:
    try:
        return pl.from_dicts(found, schema=schema, strict=False) if found else pl.DataFrame(schema=schema)
    except (pl.exceptions.PolarsError, TypeError, AttributeError) as error:
        raise answer.wrong(f"has not the columns {', '.join(schema)} ({error})") from error


def _wide(found: list[pl.DataFrame]) -> pl.DataFrame:
    """One row a station and time; of two sensors of one class at a station the first counts."""
    values = list(CLASSES)
    rows = pl.concat(found, how="diagonal")
    absent = [pl.lit(None, pl.Float64).alias(name) for name in values if name not in rows.columns]
    rows = (
        rows.with_columns(*absent)
        .group_by("station_id", "datetime", maintain_order=True)
        .agg(pl.col("station_name", "lat", "lon", *values).drop_nulls().first())
    )
    return (
        rows.with_columns(
            pl.col("station_id").alias("platform_id"),
            pl.lit("fixed").alias("mobility"),
            pl.lit(None, pl.Float64).alias("station_height"),
            pl.lit("false").alias("indoor"),
        )
        .select("datetime", "lat", "lon", *values, *_DESCRIBED)
        .sort("station_id", "datetime")
    )
