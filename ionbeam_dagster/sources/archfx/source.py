"""The source `archfx`: streams of devices in ArchFX Cloud, or a service that speaks its web interface.

Belongs here: which streams are pulled, their pages, and how readings become rows. Does not belong here: HTTP as such
(http/), the client for devices (`ionbeam_client.archfx`), or reports that devices send to our own door (doors/http).

A stream is what one variable of one device gives; a station is a device, or, of streams without one, the site, area or
line itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import polars as pl
import pyarrow as pa

from ionbeam_client.archfx.utils.slugs import ArchFxDeviceSlug, ArchFxParentSlug, ArchFxStreamSlug
from ionbeam_client.models import DataIngestionMap, IngestionMetadata, Link, MetadataVariable, TimeAxis
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.raw_values import moments_of_text
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source
from ionbeam_dagster.sources.archfx.config import ArchFxConfig, ArchFxVariable
from ionbeam_dagster.sources.declared import ALTITUDE
from ionbeam_dagster.sources.http import Answer, Bearer, Fixed, HttpClient, Token

_API = "api/v1"
_SCHEME = "jwt"
_WRITTEN = "%Y-%m-%dT%H:%M:%SZ"
_NO_DEVICE = str(ArchFxDeviceSlug(0))
_READ_AGAIN = 5
_ASKED_BEFORE = timedelta(seconds=1)
"""The service is asked from a little before a window: whether its `start` is taken in, nobody says."""


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
        streams = {slug: _parted(slug, self._variables) for slug in slugs}
        found = [stream for stream in streams.values() if stream is not None]
        strange = [_variable_of(slug) for slug, stream in streams.items() if stream is None]
        for variable in sorted(set(strange)):
            self._notes.append(
                f"{strange.count(variable)} streams of variable {variable} are left out: nobody mapped it"
            )
        if not found:
            raise SourceError(
                f"{self.name}: none of {len(streams)} streams is of a variable in its block; check streams, filter and "
                "variables"
            )
        return found

    def _listed(self) -> list[str]:
        slugs = [str(one.get("slug")) for one in self._all("stream/", [*self.config.filter.items()])]
        if not slugs:
            raise SourceError(f"{self.name}: the service has no stream for {self.config.filter or 'this account'}")
        try:
            return [str(ArchFxStreamSlug(slug)) for slug in slugs]
        except ValueError as error:
            raise SourceError(f"{self.name}: the service's list of streams has what is none: {error}") from error

    # -- their readings ------------------------------------------------------------------------------------------

    def _rows(self, window: Window, station: str, streams: list[_Stream]) -> pl.DataFrame:
        """The rows of a station: of what is said twice of a time, the last. Readings without a time are rows of their
        own, and go to the quarantine."""
        found = [self._readings(window, stream) for stream in streams]
        columns = [one.variable for one in self.config.variables]
        rows = pl.concat(found, how="diagonal")
        absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in rows.columns]
        rows = rows.with_columns(absent).select("time", *columns, "parent")
        timed = rows.drop_nulls("time").group_by("time", maintain_order=True)
        rows = pl.concat([timed.agg(pl.all().drop_nulls().last()).sort("time"), rows.filter(pl.col("time").is_null())])
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
        kept = readings.filter(pl.col("value").is_finite())
        if kept.height < readings.height:
            number = readings.height - kept.height
            self._notes.append(f"{stream.slug}: {number} readings without a number were left out")
        times = kept["time"].drop_nulls()
        if untimed := kept.height - len(times):
            self._notes.append(f"{stream.slug}: {untimed} readings have no time, and are set aside")
        if twice := len(times) - times.n_unique():
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


def _variable_of(slug: str) -> str:
    return str(ArchFxStreamSlug(slug).get_parts()["variable"])


def _parted(slug: str, variables: dict[str, ArchFxVariable]) -> _Stream | None:
    """The stream of an id, None where its variable is not mapped."""
    parts = ArchFxStreamSlug(slug).get_parts()
    parent, device, variable = str(parts["parent"]), str(parts["device_slug"]), variables.get(_variable_of(slug))
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
