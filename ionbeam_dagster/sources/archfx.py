"""The source `archfx`: streams of devices in ArchFX Cloud, or a service that speaks its web interface.

Belongs here: which streams are pulled, their pages, and how readings become rows. Does not belong here: HTTP as such
(http/), the client for devices (`ionbeam_client.archfx`), or reports that devices send to our own door (doors/http).

A stream is what one variable of one device gives; a station is a device, or, of streams without one, the site, area or
line itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxParentSlug, ArchFxStreamSlug, ArchFxVariableID
from ionbeam_client.models import DataIngestionMap, IngestionMetadata, Link, MetadataVariable, TimeAxis
from ionbeam_dagster.domain.canonical import STATION, moments_of_text
from ionbeam_dagster.domain.times import NonNegativeDuration
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.declared import ALTITUDE, DeclaredStation, DeclaredVariable, Latitude, Longitude
from ionbeam_dagster.sources.http import Answer, Bearer, Fixed, HttpClient, Token

SERVICE = "https://arch.archfx.io"
_API = "api/v1"
_SCHEME = "jwt"
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"
_NO_DEVICE = str(ArchFxDeviceSlug(0))
_READ_AGAIN = 5
_ASKED_BEFORE = timedelta(seconds=1)
"""The service is asked from a little before a window: whether its `start` is taken in, nobody says."""


def _slug(kind: Callable[[str], object]) -> AfterValidator:
    """Any form of an id becomes the one that the service writes."""
    return AfterValidator(lambda given: str(kind(given)))


def _station(given: str) -> object:
    return (ArchFxParentSlug if given.startswith("p") else ArchFxDeviceSlug)(given)


class ArchFxVariable(DeclaredVariable):
    """One variable that is pulled."""

    variable: Annotated[str, _slug(ArchFxVariableID)] = Field(
        description="The variable's id, the last part of a stream's.", examples=["0000-5001"]
    )


class ArchFxConfig(SourceConfig):
    """ArchFX Cloud: who asks, for which streams, and what their variables are."""

    base_url: str = Field(default=SERVICE, pattern="^https?://", description="Address of the service.")
    email: str = Field(default="", description="The account, with `password`.", examples=["somebody@example.org"])
    password: SecretStr = Field(default=SecretStr(""), description="Its password.", examples=["${ARCHFX_PASSWORD}"])
    token: SecretStr = Field(
        default=SecretStr(""), description="A token, instead of an account.", examples=["${ARCHFX_TOKEN}"]
    )
    token_type: Literal["jwt", "token"] = Field(
        default="token", description="Kind of that token: token does not expire, jwt soon does."
    )
    streams: tuple[Annotated[str, _slug(ArchFxStreamSlug)], ...] = Field(
        default=(),
        description="Streams that are pulled; without it those that `filter` finds.",
        examples=[["sl--0000-0001--0000-0000-0000-0007--0000-5001"]],
    )
    filter: dict[str, str] = Field(
        default={},
        description="What the service's list of streams is asked by; without it all that the account may see.",
        examples=[{"line": "pl--0000-0001"}],
    )
    variables: tuple[ArchFxVariable, ...] = Field(
        min_length=1,
        description="What is measured; streams of other variables are left out, and told.",
        examples=[[{"variable": "0000-5001", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}]],
    )
    stations: dict[Annotated[str, _slug(_station)], DeclaredStation] = Field(
        default={},
        description="Places of devices, or of sites, areas and lines that have streams of their own, by their ids.",
        examples=[{"d--0000-0000-0000-0007": {"latitude": 52.1, "longitude": 5.2, "altitude": 12.0}}],
    )
    latitude: Latitude | None = Field(
        default=None, description="Degrees north of what is not among `stations`.", examples=[52.1]
    )
    longitude: Longitude | None = Field(
        default=None, description="Degrees east of what is not among `stations`.", examples=[5.2]
    )
    page_size: int = Field(default=1000, ge=1, description="Readings that are asked for at once.")
    timeout_seconds: float = Field(
        default=60, gt=0, description="Seconds that a connection, or a wait for data, may take."
    )
    concurrency: int = Field(default=4, ge=1, le=32, description="Requests at once.")
    max_retries: int = Field(default=4, ge=0, description="How often a request that fails in passing is tried again.")
    collect_again_after: tuple[NonNegativeDuration, ...] = Field(
        default=(timedelta(hours=3), timedelta(days=1)),
        description="How long after a window could first be collected it is collected again for late reports.",
    )

    @model_validator(mode="after")
    def _is_told_apart(self) -> Self:
        for key, these in (
            ("variable", [one.variable for one in self.variables]),
            ("quantity", [one.canonical.column for one in self.variables]),
        ):
            if twice := sorted({one for one in these if these.count(one) > 1}):
                raise ValueError(f"variables: the {key} {', '.join(twice)} is given twice; keep one of them")
        if self.streams and self.filter:
            raise ValueError("streams and filter both say which streams are pulled; keep one of them")
        return self


@dataclass(frozen=True, slots=True)
class _Stream:
    """A stream that is pulled, and what its readings are."""

    slug: str
    station: str
    parent: str | None
    device: str
    variable: ArchFxVariable


class ArchFx(Source):
    """The readings of streams, one row a station and time."""

    Config = ArchFxConfig
    config: ArchFxConfig

    def __init__(self, name: str, config: ArchFxConfig) -> None:
        super().__init__(name, config)
        self._variables = {one.variable: one for one in config.variables}
        self._notes: list[str] = []
        self._client = HttpClient(
            f"{config.base_url.rstrip('/')}/{_API}",
            timeout=config.timeout_seconds,
            retries=config.max_retries,
            concurrency=config.concurrency,
            credentials=_credentials(config),
            cache=config.cache_path / f"{name}.cache" if config.use_cache else None,
        )

    @property
    def metadata(self) -> IngestionMetadata:
        described = [STATION, *([ALTITUDE] if self._has_altitude else []), "parent", "device"]
        return IngestionMetadata(
            dataset=self.described(
                "What devices report to ArchFX Cloud.",
                [Link(href="https://archfx.io", title="ArchFX")],
                ["ArchFX", "devices"],
            ),
            ingestion_map=DataIngestionMap(
                datetime=TimeAxis(from_col="time"),
                canonical_variables=[
                    one.canonical.model_copy(update={"column": one.variable}) for one in self.config.variables
                ],
                metadata_variables=[MetadataVariable(column=column) for column in described],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The readings of the window, a batch a station, by id and time.

        Columns: ``time`` (UTC), ``lat``, ``lon`` (degrees; null where nobody says), the variables by their ids, and
        the described ones as text. Raises SourceError when there is no such stream, when a page cannot be
        had, and when a stream changes each time that it is read.
        """
        if not (self.config.email or self.config.token):
            raise SourceError(f"{self.name}: has neither email and password nor a token; add them to its block")
        self._notes = []
        stations: dict[str, list[_Stream]] = {}
        for stream in self._streams():
            stations.setdefault(stream.station, []).append(stream)
        todo = sorted(stations.items())
        for done, (_, rows) in enumerate(self._client.side_by_side(todo, lambda one: self._rows(window, *one)), 1):
            self.progress(f"{self.name} {window} stations", done, len(todo))
            if rows.height:
                yield from rows.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()

    def signature(self, window: Window) -> str:
        """A hash of what is asked for; whether the service has more by now, only asking can tell."""
        asked = {"base_url", "streams", "filter", "variables", "stations", "latitude", "longitude"}
        return hashlib.sha256(self.config.model_dump_json(include=asked).encode()).hexdigest()

    def problems(self) -> list[str]:
        """Of the last window: streams and readings that were left out, and stations without a place."""
        return sorted(set(self._notes))

    @property
    def _has_altitude(self) -> bool:
        return any(one.altitude is not None for one in self.config.stations.values())

    # -- which streams -------------------------------------------------------------------------------------------

    def _streams(self) -> list[_Stream]:
        slugs = list(self.config.streams) or self._listed()
        streams = [_parted(slug, self._variables) for slug in dict.fromkeys(slugs)]
        found = [stream for stream in streams if stream is not None]
        if len(found) < len(streams):
            self._notes.append(f"{len(streams) - len(found)} streams are of variables that are not mapped: left out")
        if not found:
            raise SourceError(
                f"{self.name}: none of {len(streams)} streams is of a variable in its block; check streams, filter and "
                "variables"
            )
        return found

    def _listed(self) -> list[str]:
        slugs = [one.get("slug") for one in self._all("stream/", [*self.config.filter.items()])]
        if not slugs:
            raise SourceError(f"{self.name}: the service has no stream for {self.config.filter or 'this account'}")
        try:
            return [str(ArchFxStreamSlug(slug)) for slug in slugs]
        except ValueError as error:
            raise SourceError(f"{self.name}: the service's list of streams has what is none: {error}") from error

    # -- their readings ------------------------------------------------------------------------------------------

    def _rows(self, window: Window, station: str, streams: list[_Stream]) -> pl.DataFrame:
        """The rows of a station: of what is said twice of a time, the last."""
        found = [self._readings(window, stream) for stream in streams]
        columns = [one.variable for one in self.config.variables]
        rows = pl.concat(found, how="diagonal")
        absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in rows.columns]
        rows = (
            rows.with_columns(absent)
            .group_by("time", maintain_order=True)
            .agg(pl.col(*columns, "parent").drop_nulls().last())
            .sort("time")
        )
        place = self.config.stations.get(station)
        lat, lon = (self.config.latitude, self.config.longitude) if place is None else (place.latitude, place.longitude)
        if lat is None or lon is None:
            self._notes.append(f"{station} has no place, so that its rows are set aside: add it to stations")
        return rows.select(
            "time",
            pl.lit(lat, pl.Float64).alias("lat"),
            pl.lit(lon, pl.Float64).alias("lon"),
            *columns,
            pl.lit(station).alias(STATION),
            *([pl.lit(place and place.altitude, pl.Float64).alias(ALTITUDE)] if self._has_altitude else []),
            "parent",
            pl.lit(streams[0].device).alias("device"),
        )

    def _readings(self, window: Window, stream: _Stream) -> pl.DataFrame:
        """``time``, the quantity and ``parent`` of a stream's readings in the window."""
        asked = [("start", f"{window.start - _ASKED_BEFORE:{_WRITTEN}}"), ("end", f"{window.end:{_WRITTEN}}")]
        given = self._all(f"stream/{stream.slug}/data/", [*asked, ("page_size", str(self.config.page_size))])
        scale, offset = stream.variable.factors
        said = {name: [one.get(name) for one in given] for name in _READING}
        readings = pl.DataFrame(said, schema=_READING, strict=False)
        readings = readings.with_columns(moments_of_text(readings["timestamp"]).alias("time"))
        inside = pl.col("time").is_between(window.start, window.end, closed="left")
        readings = readings.filter(inside.fill_null(True))
        usable = pl.col("time").is_not_null() & pl.col("value").is_finite()
        kept = readings.filter(usable)
        if kept.height < readings.height:
            number = readings.height - kept.height
            self._notes.append(f"{stream.slug}: {number} readings without a time or a number were left out")
        if twice := kept.height - kept["time"].n_unique():
            self._notes.append(f"{stream.slug}: {twice} readings are of the time of another one; the last counts")
        value = pl.col("value") if (scale, offset) == (1.0, 0.0) else pl.col("value") * scale + offset
        return kept.select(
            "time", value.alias(stream.variable.variable), pl.lit(stream.parent, pl.String).alias("parent")
        )

    def _all(self, path: str, params: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """The things of all pages.

        Pages are counted from the first thing: one that comes or goes meanwhile moves the others, so that one is lost
        or comes twice. What changes while it is read is therefore read again.
        """
        for _ in range(_READ_AGAIN):
            found: list[dict[str, Any]] = []
            counts: set[int | None] = set()
            for things, count in self._pages(path, params):
                found += things
                counts.add(count)
            if counts in ({None}, {len(found)}):
                return found
        raise SourceError(
            f"{self._client.base_url}{path}: its pages do not have as many things together as they say, {_READ_AGAIN} "
            "times; it is tried again later"
        )

    def _pages(self, path: str, params: list[tuple[str, str]]) -> Iterator[tuple[list[dict[str, Any]], int | None]]:
        """What each page has, and how many things it says there are. Of the next page's address only the parameters are
        used: it may name a host that a token must not go to."""
        asked: set[tuple[tuple[str, str], ...]] = set()
        following: list[tuple[str, str]] | None = params
        while following is not None:
            if tuple(following) in asked:
                raise SourceError(f"{self._client.base_url}{path}: the next page is one that came before: {following}")
            asked.add(tuple(following))
            answer = self._client.get(path, following)
            page = answer.json()
            yield _things(answer, page)
            next_page = page.get("next")
            following = parse_qsl(urlsplit(str(next_page)).query, keep_blank_values=True) if next_page else None


_READING = {"timestamp": pl.String, "value": pl.Float64}


def _credentials(config: ArchFxConfig) -> Bearer | Fixed | None:
    if token := config.token.get_secret_value():
        return Fixed(token, config.token_type)
    if not config.email:
        return None
    password = config.password.get_secret_value()

    def login(client: HttpClient) -> Token:
        answer = client.post("auth/login/", json={"email": config.email, "password": password}, authorized=False)
        said = answer.json()
        if not isinstance(said, dict) or not said.get("jwt"):
            raise answer.wrong("has no jwt")
        return Token(said["jwt"], said.get("jwt_refresh_token"))

    def refresh(client: HttpClient, known: str) -> Token:
        answer = client.post("auth/api-jwt-refresh/", json={"refresh": known}, authorized=False)
        said = answer.json()
        if not isinstance(said, dict) or not said.get("access"):
            raise answer.wrong("has no access")
        return Token(said["access"], said.get("refresh") or known)

    return Bearer(login, refresh, [password], _SCHEME)


def _parted(slug: str, variables: dict[str, ArchFxVariable]) -> _Stream | None:
    """The stream of an id, None where its variable is not mapped."""
    parts = ArchFxStreamSlug(slug).get_parts()
    parent, device, variable = str(parts["parent"]), str(parts["device_slug"]), variables.get(str(parts["variable"]))
    if variable is None:
        return None
    if device == _NO_DEVICE:
        return _Stream(slug, parent, parent, device, variable)
    return _Stream(slug, device, parent if ArchFxParentSlug(parent).get_id() else None, device, variable)


def _things(answer: Answer, page: Any) -> tuple[list[dict[str, Any]], int | None]:
    things = page.get("results") if isinstance(page, dict) else None
    if not isinstance(things, list) or not all(isinstance(one, dict) for one in things):
        raise answer.wrong("is no page with a list of results")
    count = page.get("count")
    return things, count if isinstance(count, int) else None
