"""The source `meteotracker`: weather stations on the roofs of cars, bicycles and rucksacks.

Belongs here: logging in, which sessions belong to a window, and their points. Does not belong here: HTTP (http.py).

A session is a drive: it begins, has a point every few seconds, and ends. Its points come with the window in which it
began, also those after that window's end; a window also takes the points of drives that began before it and go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr

from ionbeam_client.models import (
    CanonicalVariable,
    DataIngestionMap,
    IngestionMetadata,
    LatitudeAxis,
    Link,
    LongitudeAxis,
    MetadataVariable,
    Name,
    TimeAxis,
)
from ionbeam_dagster.domain.times import NonNegativeDuration, parse_moment
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.http import Bearer, HttpClient, Token
from ionbeam_dagster.sources.http.settings import Concurrency, Retries

ADDRESS = "https://app.meteotracker.com"
_SESSIONS_A_PAGE = 1000
_MOST_PAGES_OF_A_SESSION = 1000
_AIR = "number_concentration_of_{}_aerosol_particles_in_air"
_MASS = "mass_concentration_of_{}_ambient_aerosol_particles_in_air"

QUANTITIES: dict[str, tuple[str, str, float]] = {
    "T0": ("air_temperature", "degC", 2.0),
    "H": ("relative_humidity", "%", 2.0),
    "P": ("surface_air_pressure", "hPa", 0.0),
    "td": ("dew_point_temperature", "degC", 2.0),
    "tp": ("air_potential_temperature", "K", 2.0),
    "HDX": ("x_humidex", "degC", 2.0),
    "i": ("air_temperature_lapse_rate", "K (100 m)-1", 2.0),
    "s": ("platform_speed_wrt_ground", "km h-1", 0.0),
    "L": ("x_solar_radiation_index", "1", 2.0),
    "CO2": ("mole_fraction_of_carbon_dioxide_in_air", "ppm", 2.0),
    "CO": ("mole_fraction_of_carbon_monoxide_in_air", "ppm", 2.0),
    "SO2": ("mole_fraction_of_sulfur_dioxide_in_air", "ppm", 2.0),
    "O3": ("mole_fraction_of_ozone_in_air", "ppb", 2.0),
    "m1": (_MASS.format("pm1"), "ug m-3", 2.0),
    "m2": (_MASS.format("pm2p5"), "ug m-3", 2.0),
    "m4": ("x_" + _MASS.format("pm4"), "ug m-3", 2.0),
    "m10": (_MASS.format("pm10"), "ug m-3", 2.0),
    "n0": ("x_" + _AIR.format("pm0p5"), "cm-3", 2.0),
    "n1": ("x_" + _AIR.format("pm1"), "cm-3", 2.0),
    "n2": (_AIR.format("pm2p5"), "cm-3", 2.0),
    "n4": ("x_" + _AIR.format("pm4"), "cm-3", 2.0),
    "n10": (_AIR.format("pm10"), "cm-3", 2.0),
    "tps": ("x_typical_particle_size", "um", 2.0),
    "EAQ": ("x_epa_air_quality", "1", 2.0),
    "FAQ": ("x_fast_air_quality", "1", 2.0),
}
"""CF name (or a local one), unit and height in m of each quantity, by the service's code. `s` is the vehicle's speed
over ground, not wind."""

_DESCRIBED = ("station_id", "platform_id", "mobility", "station_height", "indoor", "living_lab")
_ASKED = " ".join([*QUANTITIES, "a", "time", "lo"])
_POINT = pl.Schema(
    {"time": pl.String(), "lo": pl.List(pl.Float64), "a": pl.Float64()} | dict.fromkeys(QUANTITIES, pl.Float64())
)


def _or(address: str) -> AfterValidator:
    """An empty address in the YAML means the service's known one."""
    return AfterValidator(lambda given: given or address)


class MeteoTrackerConfig(SourceConfig):
    """MeteoTracker: an account, and whose drives are taken."""

    base_url: Annotated[str, _or(ADDRESS)] = Field(default=ADDRESS, description="Address of the service.")
    token_endpoint: Annotated[str, _or("/auth/login/api")] = Field(
        default="/auth/login/api", description="Path of the login."
    )
    refresh_endpoint: Annotated[str, _or("/auth/refreshtoken")] = Field(
        default="/auth/refreshtoken", description="Path at which a token is renewed."
    )
    timeout: float = Field(default=30, gt=0, description="Seconds that a connection, or a wait for data, may take.")
    max_retries: Retries = 5
    max_queries: int = Field(default=100, ge=1, description="Pages of 1,000 sessions that a window may take.")
    concurrency: Concurrency = 4
    username: str = Field(default="", description="Name of the account.", examples=["somebody"])
    password: SecretStr = Field(default=SecretStr(""), description="The account's password.", examples=["${PASSWORD}"])
    authors: tuple[str, ...] = Field(
        default=(),
        description="Whose drives are taken; without it and living_labs all that the account may see.",
        examples=[["Genova LL1"]],
    )
    living_labs: dict[Name, tuple[str, ...]] = Field(
        default={},
        description="Names of labs and their authors; the name becomes the column living_lab.",
        examples=[{"genova": ["Genova LL1"]}],
    )
    reach: timedelta = Field(
        default=timedelta(hours=6),
        ge=timedelta(0),
        description="How long before a window a drive may have begun that still goes on in it.",
    )
    session_time: Literal["s", "ms"] = Field(
        default="s", description="Unit in which the service is given times of sessions."
    )
    look_again_for: NonNegativeDuration = Field(
        default=timedelta(days=3),
        description="How long a window is looked at for drives that come late; PT0S: not at all.",
    )

    @property
    def lab_of(self) -> dict[str, str]:
        return {author: lab for lab, authors in self.living_labs.items() for author in authors}


class MeteoTracker(Source):
    """Drives, point by point. A drive is a station that moves: ``station_id`` is the session, ``platform_id`` its
    author, ``station_height`` the altitude of each point in m."""

    Config = MeteoTrackerConfig

    def __init__(self, name: str, config: MeteoTrackerConfig) -> None:
        super().__init__(name, config)
        self._config = config

    @property
    def metadata(self) -> IngestionMetadata:
        return IngestionMetadata(
            dataset=self.described(
                "Drives with MeteoTracker weather stations",
                [Link(href="https://meteotracker.com", title="MeteoTracker")],
                ["MeteoTracker", "crowd-sourced", "mobile"],
            ),
            ingestion_map=DataIngestionMap(
                datetime=TimeAxis(from_col="time"),
                lat=LatitudeAxis(from_col="lat"),
                lon=LongitudeAxis(from_col="lon"),
                canonical_variables=[
                    CanonicalVariable(column=code, standard_name=name, cf_unit=unit, level=level)
                    for code, (name, unit, level) in QUANTITIES.items()
                ],
                metadata_variables=[MetadataVariable(column=column) for column in _DESCRIBED],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The points of the window's drives, a batch a drive, by the drives' beginnings.

        Columns: ``time`` (ISO 8601), ``lat``, ``lon`` (degrees; null where the tracker had no fix), the quantities by
        their codes, and the described ones as text. Raises SourceError when any page cannot be had.
        """
        sessions = self._sessions(window)
        for done, (session, points) in enumerate(self._client.side_by_side(sessions, self._points), 1):
            self.progress(f"{self.name} {window} drives", done, len(sessions))
            rows = self._shaped(session, points)
            if _begin(session) < window.start:
                rows = rows.filter(pl.col("time") >= f"{window.start:%Y-%m-%dT%H:%M:%S}")
            if rows.height:
                yield from rows.to_arrow().to_batches()

    def signature(self, window: Window) -> str:
        """A hash of the window's drives, how many points each has, and whether it ended."""
        marks = sorted(f"{s['_id']} {s.get('nPoints')} {s.get('endTime')}" for s in self._sessions(window))
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    @cached_property
    def _client(self) -> HttpClient:
        config = self._config
        password = config.password.get_secret_value()
        return HttpClient(
            config.base_url,
            timeout=config.timeout,
            retries=config.max_retries,
            concurrency=config.concurrency,
            credentials=Bearer(self._login, self._refresh, secrets=[password]),
            cache=config.cache_path / f"{self.name}.cache" if config.use_cache else None,
        )

    def _login(self, client: HttpClient) -> Token:
        config = self._config
        if not config.username:
            raise SourceError(f"{self.name}: has no username and password; add them to its block in the YAML")
        account = {"email": config.username, "password": config.password.get_secret_value()}
        answer = client.post(config.token_endpoint, json=account, authorized=False)
        return _token(answer.json(), answer.url)

    def _refresh(self, client: HttpClient, refresh: str) -> Token:
        answer = client.post(self._config.refresh_endpoint, form={"refreshToken": refresh}, authorized=False)
        return _token(answer.json(), answer.url)

    def _sessions(self, window: Window) -> list[dict[str, Any]]:
        """The drives that began in `window`, or before it and went on; by beginning and id, each once."""
        config = self._config
        authors: list[str | None] = [*dict.fromkeys([*config.authors, *config.lab_of])]
        found = {
            session["_id"]: session
            for author in authors or [None]
            for session in self._listed(window, author)
            if _overlaps(session, window)
        }
        return sorted(found.values(), key=lambda session: (_begin(session), session["_id"]))

    def _listed(self, window: Window, author: str | None) -> Iterator[dict[str, Any]]:
        scale = 1 if self._config.session_time == "s" else 1000
        since, until = (int(t.timestamp()) * scale for t in (window.start - self._config.reach, window.end))
        query: dict[str, Any] = {
            "dataType": "all",
            "items": _SESSIONS_A_PAGE,
            "startTime": json.dumps({"$gte": since, "$lte": until}, separators=(",", ":")),
        }
        if author:
            query["by"] = author
        for page in range(self._config.max_queries):
            answer = self._client.get("/api/sessions", query | {"page": page})
            sessions = answer.json()
            if not isinstance(sessions, list) or not all(isinstance(s, dict) and "_id" in s for s in sessions):
                raise answer.wrong("is no list of sessions")
            yield from sessions
            if len(sessions) < _SESSIONS_A_PAGE:
                return
        raise SourceError(
            f"{self.name} {window}: has more than {self._config.max_queries} pages of sessions; raise max_queries, or "
            "choose a smaller window_size"
        )

    def _points(self, session: dict[str, Any]) -> list[dict[str, Any]]:
        """All points of a drive: pages are asked for until one is empty, shorter, or the same as the one before."""
        points: list[dict[str, Any]] = []
        before: list[dict[str, Any]] = []
        for page in range(_MOST_PAGES_OF_A_SESSION):
            query = {"id": session["_id"], "data": _ASKED, "page": page}
            answer = self._client.get("/api/points/session", query)
            more = answer.json()
            if not isinstance(more, list):
                raise answer.wrong("is no list of points")
            if not more or more == before:
                return points
            points += more
            if len(more) < len(before):
                return points
            before = more
        raise SourceError(f"{self.name}: session {session['_id']} has no end of pages")

    def _shaped(self, session: dict[str, Any], points: list[dict[str, Any]]) -> pl.DataFrame:
        author = str(session.get("by") or "")
        place = pl.col("lo")
        return pl.from_dicts(points, schema=_POINT, strict=False).select(
            "time",
            place.list.get(1, null_on_oob=True).alias("lat"),
            place.list.get(0, null_on_oob=True).alias("lon"),
            *QUANTITIES,
            pl.lit(session["_id"]).alias("station_id"),
            pl.lit(author).alias("platform_id"),
            pl.lit("mobile").alias("mobility"),
            pl.col("a").cast(pl.String).alias("station_height"),
            pl.lit("false").alias("indoor"),
            pl.lit(self._config.lab_of.get(author), pl.String).alias("living_lab"),
        )


def _token(answer: Any, address: str) -> Token:
    access = answer.get("accessToken") or answer.get("access_token") if isinstance(answer, dict) else None
    if not access:
        raise SourceError(f"{address}: the answer has no accessToken")
    return Token(access, answer.get("refreshToken") or answer.get("refresh_token"))


def _begin(session: dict[str, Any]) -> datetime:
    return _moment(session, "startTime")


def _moment(session: dict[str, Any], key: str) -> datetime:
    try:
        return parse_moment(session[key])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"session {session['_id']}: its {key} is {session.get(key)!r}, which is no time") from error


def _overlaps(session: dict[str, Any], window: Window) -> bool:
    begin = _begin(session)
    goes_on = not session.get("endTime") or _moment(session, "endTime") >= window.start
    return begin < window.end and (begin >= window.start or goes_on)
