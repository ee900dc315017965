"""The source `restream`: sites of the Restream service, of which some fields are observations, and its corrections.

Belongs here: which sites are asked, what their items mean, and the events by which the service tells that it changed
its past. Does not belong here: HTTP as such (http/), or when an event is confirmed (pipeline/corrections.py).

It asks by the platform's HTTP client, not by `ionbeam_client.datastore`, which is for programs of their own: a window
is a few hundred kilobytes, read whole or not at all, within the deadline of the collection, while the client keeps a
stream going for as long as it takes and has one host for a whole process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import polars as pl
import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_client.models import DataIngestionMap, IngestionMetadata, Link, MetadataVariable
from ionbeam_client.reported_errors import reported_error, shown
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.raw_values import moments_of_text
from ionbeam_dagster.domain.records import Correction
from ionbeam_dagster.domain.times import in_utc
from ionbeam_dagster.domain.windows import Window, parts_of, window_of
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Source, SourceConfig
from ionbeam_dagster.sources.declared import ALTITUDE, DeclaredStation, DeclaredVariable
from ionbeam_dagster.sources.http import Answer, Bearer, Fixed, HttpClient, HttpError, Token
from ionbeam_dagster.sources.http.credentials import Credentials
from ionbeam_dagster.sources.http.settings import Retries, Timeout

SERVICE = "https://app.restreamsolutions.com"
API = "external/thirdparty/v1"
AT_ONCE = 3
"""Requests at once; the service refuses more for one endpoint."""
ASKED_AT_ONCE = timedelta(hours=1)
"""Of the one-second items of a site in one request, so that memory stays small however long a window is."""
STEP = timedelta(minutes=5)
"""Newly ended time is told in such steps."""
_DESCRIBED = (STATION, "mobility", "station_name", ALTITUDE)


class RestreamVariable(DeclaredVariable):
    """One field that is an observation."""

    field: str = Field(min_length=1, description="Field of the service's items.", examples=["ambient_temperature"])


class RestreamConfig(SourceConfig):
    """Restream: who asks, for which sites, and which of their fields are observations."""

    base_url: Annotated[str, AfterValidator(lambda given: given or SERVICE)] = Field(
        default=SERVICE, description="Address of the service."
    )
    token: SecretStr = Field(
        default=SecretStr(""), description="Token of the account.", examples=["${TALLY_AUTH_TOKEN}"]
    )
    client_id: str = Field(
        default="",
        description="Name of the client program, where the account has one instead of a token.",
        examples=["ionbeam"],
    )
    client_secret: SecretStr = Field(
        default=SecretStr(""), description="The client program's secret.", examples=["${RESTREAM_CLIENT_SECRET}"]
    )
    pads: tuple[int, ...] = Field(default=(), description="Pads whose sites are all taken.", examples=[[668]])
    sites: tuple[int, ...] = Field(default=(), description="Sites that are taken, each a station.", examples=[[981]])
    variables: tuple[RestreamVariable, ...] = Field(
        min_length=1,
        description="Fields that are observations; all others are not asked for.",
        examples=[[{"field": "ambient_temperature", "standard_name": "air_temperature", "unit": "degF",
                    "cf_unit": "degC", "level": 2.0}]],
    )  # fmt: skip
    stations: dict[int, DeclaredStation] = Field(
        default={},
        description="Places of sites, by their numbers, where the service has none or a wrong one.",
        examples=[{981: {"latitude": 31.5, "longitude": -102.25, "altitude": 850.0}}],
    )
    timeout_seconds: Timeout = 60
    max_retries: Retries = 4

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if not (self.pads or self.sites):
            raise ValueError("has neither pads nor sites; say which are to be collected: sites: [981]")
        for key, these in (
            ("field", [one.field for one in self.variables]),
            ("quantity", [one.canonical.column for one in self.variables]),
        ):
            if twice := sorted({one for one in these if these.count(one) > 1}):
                raise ValueError(f"variables: the {key} {', '.join(twice)} is given twice; keep one of them")
        return self


@dataclass(frozen=True, slots=True)
class Site:
    """A station: where it is, in degrees and in m above the sea, as far as anybody says."""

    id: int
    name: str | None
    latitude: float | None
    longitude: float | None
    altitude: float | None = None


class Restream(Source):
    """Sites of Restream, second by second."""

    Config = RestreamConfig
    config: RestreamConfig
    default_lag = timedelta(minutes=5)
    tells_changes = True
    corrects = True

    def __init__(self, name: str, config: RestreamConfig) -> None:
        super().__init__(name, config)
        credentials = self._credentials()
        self._may_ask = credentials is not None
        self._client = HttpClient(
            config.base_url,
            timeout=config.timeout_seconds,
            retries=config.max_retries,
            concurrency=AT_ONCE,
            credentials=credentials,
        )
        self._notes: set[str] = set()
        self._unread: list[str] = []

    @property
    def metadata(self) -> IngestionMetadata:
        return IngestionMetadata(
            dataset=self.described(
                "Sites of the Restream service",
                [Link(href="https://restreamsolutions.com", title="Restream")],
                ["Restream"],
            ),
            ingestion_map=DataIngestionMap(
                canonical_variables=[
                    one.canonical.model_copy(update={"column": one.field}) for one in self.config.variables
                ],
                metadata_variables=[MetadataVariable(column=column) for column in _DESCRIBED],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        """The items of `window` as rows, an hour of a site in a batch.

        Raises SourceError when anything is refused, broken off, or answered with nothing at all.
        """
        self._notes = set()
        absent = {one.field for one in self.config.variables}
        rows = 0
        sites = self._all_sites()
        asked = [(part, site) for part in parts_of(window, ASKED_AT_ONCE) for site in sites]
        for (part, site), found in self._client.side_by_side(asked, lambda one: self._items(*one)):
            absent -= {name for name in absent if found[name].null_count() < found.height}
            rows += found.height
            if found.height:
                yield from self._rows(part, site, found).to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()
        if rows and absent:
            self._notes.add(f"no item has a number in {', '.join(sorted(absent))}; are the names of the fields right?")

    def signature(self, window: Window) -> str:
        """A hash of what is asked for; what became of it since, `corrections` tells."""
        asked = self.config.model_dump_json(include={"base_url", "pads", "sites", "variables", "stations"})
        return hashlib.sha256(asked.encode()).hexdigest()

    def changes(self, cursor: str | None) -> tuple[list[Window], str]:
        """The time that ended since `cursor` was given out, and the ranges of corrections that it did not know."""
        before: dict[str, Any] = json.loads(cursor) if cursor else {"until": self.config.start.isoformat(), "told": {}}
        corrections = self.corrections()
        told = {one.id: f"{one.what} {one.range.key} {one.range.span}" for one in corrections}
        ranges = [one.range for one in corrections if before["told"].get(one.id) != told[one.id]]
        since, until = datetime.fromisoformat(before["until"]), window_of(datetime.now(UTC), STEP).start
        if since < until:
            ranges.append(Window(since, until))
        return ranges, json.dumps({"until": max(since, until).isoformat(), "told": told})

    def corrections(self) -> list[Correction]:
        """The events of all sites that nobody has confirmed, by their ids."""
        kinds = [("pads", pad) for pad in self.config.pads] + [("sites", site) for site in self.config.sites]
        found: dict[str, Correction] = {}
        unread = []
        asked = self._client.side_by_side(kinds, lambda one: self._get(f"{one[0]}/{one[1]}/data_changes/"))
        for (kind, id), answer in asked:
            for event in _events(answer):
                try:
                    one = _correction(event)
                    found[one.id] = one
                except (KeyError, TypeError, ValueError) as error:
                    why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                    unread.append(f"{kind[:-1]} {id}: change event {event.get('id')} cannot be followed: {why}; ask "
                                  "the service's support")  # fmt: skip
        self._unread = unread
        return sorted(found.values(), key=lambda one: (len(one.id), one.id))

    def confirm(self, correction: Correction) -> None:
        site, _, id = correction.id.partition("/")
        path = f"{API}/sites/{site}/data_changes/"
        with _with_advice(self.name):
            answer = self._client.post(path, json={"change_log": [{"id": int(id), "update_received": True}]})
        if any(str(event.get("id")) == id for event in _events(answer)):
            raise answer.wrong(f"still has change event {id}, which was confirmed")

    def problems(self) -> list[str]:
        """Of the last window, what is strange in its items; and events that cannot be followed."""
        return sorted(self._notes) + self._unread

    # --- asking ---

    def _credentials(self) -> Credentials | None:
        token, secret = (one.get_secret_value().strip() for one in (self.config.token, self.config.client_secret))
        if token:
            return Fixed(token)
        if not (self.config.client_id and secret):
            return None
        form = {"client_id": self.config.client_id, "client_secret": secret, "grant_type": "client_credentials"}

        def granted(client: HttpClient) -> Token:
            answer = client.post("o/token/", form=form, authorized=False)
            given = answer.json()
            if not isinstance(given, Mapping) or not given.get("access_token"):
                raise answer.wrong("has no access_token")
            return Token(given["access_token"], lifetime=given.get("expires_in"))

        return Bearer(granted, secrets=[secret])

    def _get(self, path: str, params: Mapping[str, str] | None = None, **headers: str) -> Answer:
        if not self._may_ask:
            raise SourceError(
                f"{self.name} has no token; set sources.{self.name}.token, or client_id and client_secret"
            )
        with _with_advice(self.name):
            return self._client.get(f"{API}/{path}", params, headers=headers)

    def _all_sites(self) -> list[Site]:
        """The sites that are meant, each once, as the service knows them now: a correction may be of a new one."""
        of_pads = [self._get("sites/", {"pad__id": str(pad)}) for pad in self.config.pads]
        found = {site.id: site for answer in of_pads for site in _listed_sites(answer)}
        for id in self.config.sites:
            if id not in found:
                answer = self._get(f"sites/{id}/")
                found[id] = _site(answer, answer.json())
        sites = [self._placed(found[id]) for id in sorted(found)]
        self._notes |= {
            f"site {site.id} has no place, so that its rows are set aside: add it to stations"
            for site in sites
            if site.latitude is None or site.longitude is None
        }
        return sites

    def _placed(self, site: Site) -> Site:
        place = self.config.stations.get(site.id)
        return site if place is None else Site(site.id, site.name, place.latitude, place.longitude, place.altitude)

    def _items(self, part: Window, site: Site) -> pl.DataFrame:
        """The items of a site: their moments, and the fields that are observations.

        Raises HttpError for what is no item, and for one that nobody can place in time: it may stand for any other.
        """
        fields = [one.field for one in self.config.variables]
        params = {
            "si_units": "false",
            "resolution": "raw",
            "start_datetime": f"{part.start:%Y-%m-%d %H:%M:%S}",
            "end_datetime": f"{part.end:%Y-%m-%d %H:%M:%S}",
            "fields": ",".join(fields),
        }
        answer = self._get(f"sites/{site.id}/data/", params, Prefer="streaming")
        found = answer.json()
        if not isinstance(found, list):
            raise answer.wrong(f"is no list, but {shown(found)}")
        _check_items(answer, found)
        columns = [_moments(answer, [item["time"] for item in found])]
        for name in fields:
            numbers, strange = _numbers(name, [item.get(name) for item in found])
            if len(strange) > 1 and numbers.null_count() == numbers.len():
                raise answer.wrong(f"has no number in {name}, but {shown(strange[0])}")
            if strange:
                self._notes.add(
                    f"site {site.id}: {len(strange)} values of {name} were left out, as they are no numbers: "
                    f"{shown(strange[0])}"
                )
            columns.append(numbers)
        return pl.DataFrame(columns)

    def _rows(self, part: Window, site: Site, items: pl.DataFrame) -> pl.DataFrame:
        """Rows of `part`, one of each of its moments."""
        inside = items.filter(pl.col("datetime").is_between(part.start, part.end, "left"))
        once = inside.filter(pl.struct("datetime").is_last_distinct())
        outside = items.filter(~pl.col("datetime").is_between(part.start, part.end)).height
        for number, what in (
            (outside, f"outside of {part}"),
            (inside.height - once.height, "with the time of another"),
        ):
            if number:
                self._notes.add(f"site {site.id}: {number} items {what} were left out")
        return once.sort("datetime", maintain_order=True).select(
            "datetime",
            pl.lit(site.latitude, pl.Float64).alias("lat"),
            pl.lit(site.longitude, pl.Float64).alias("lon"),
            *(_value(one) for one in self.config.variables),
            pl.lit(str(site.id)).alias(STATION),
            pl.lit("fixed").alias("mobility"),
            pl.lit(site.name, pl.String).alias("station_name"),
            pl.lit(site.altitude, pl.Float64).alias(ALTITUDE),
        )


@contextmanager
def _with_advice(name: str) -> Iterator[None]:
    """Say what to do where the service does not let us in, or knows of no such thing."""
    try:
        yield
    except HttpError as error:
        advice = {
            401: f"the service does not know the token; renew sources.{name}.token",
            403: f"the token does not allow it; correct sources.{name}.pads and sites, or ask the service",
            404: f"there is no such pad or site; correct sources.{name}.pads and sites",
        }
        if error.status not in advice:
            raise
        place = str(error).partition(": ")[0]
        said = f": {error.body}" if error.body else ""
        raise HttpError(f"{place}: {error.status}, {advice[error.status]}{said}", error.status, error.body) from error


def _check_items(answer: Answer, found: list[Any]) -> None:
    """Raise HttpError unless these are items with a time."""
    for item in found:
        if not isinstance(item, dict):
            raise answer.wrong(f"has an item that is none: {shown(item)}")
    if error := reported_error(found, "time"):
        raise answer.wrong(f"reports an error among its items: {error}")
    for item in found:
        if not isinstance(item.get("time"), str):
            raise answer.wrong(f"has an item without a time that can be read: {shown(item)}")


def _moments(answer: Answer, times: list[str]) -> pl.Series:
    texts = pl.Series("datetime", times, pl.String)
    moments = moments_of_text(texts).alias("datetime")
    if moments.null_count():
        raise answer.wrong(f"has an item whose time cannot be read: {shown(texts.filter(moments.is_null())[0])}")
    return moments


def _numbers(name: str, values: list[Any]) -> tuple[pl.Series, list[Any]]:
    """The values of a field as numbers, and those that are none; "Infinity" and "NaN" are numbers here."""
    if set(map(type, values)) <= {int, float, type(None)}:
        return pl.Series(name, values, pl.Float64), []
    texts = pl.Series(name, [None if value is None else str(value) for value in values], pl.String)
    numbers = texts.cast(pl.Float64, strict=False)
    strange = (numbers.is_null() & texts.is_not_null()).arg_true()
    return numbers, [values[place] for place in strange]


def _value(variable: RestreamVariable) -> pl.Expr:
    """The values of a field in the dataset's unit; "Infinity" and "NaN" mean that there is none."""
    scale, offset = variable.factors
    sent = pl.col(variable.field)
    return (pl.when(sent.is_finite()).then(sent) * scale + offset).alias(variable.field)


def _listed_sites(answer: Answer) -> list[Site]:
    found = answer.json()
    if not isinstance(found, list):
        raise answer.wrong(f"is no list of sites, but {str(found)[:200]!r}")
    return [_site(answer, one) for one in found]


def _site(answer: Answer, given: Any) -> Site:
    try:
        places = [None if given.get(name) is None else float(given[name]) for name in ("latitude", "longitude")]
        return Site(int(given["id"]), given.get("name"), *places)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise answer.wrong(f"has a site that cannot be read ({error}): {str(given)[:200]!r}") from error


def _events(answer: Answer) -> list[dict[str, Any]]:
    found = answer.json()
    events = found.get("change_log") if isinstance(found, dict) else None
    if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
        raise answer.wrong(f"has no change_log with events, but is {shown(found)}")
    if error := reported_error(events, "id"):
        raise answer.wrong(f"reports an error among its change events: {error}")
    return events


def _correction(event: Mapping[str, Any]) -> Correction:
    """An event; both ends of its range belong to it. Its id has the site's before it, by which it is confirmed."""
    start, end = (in_utc(datetime.fromisoformat(event[name])) for name in ("start_date", "end_date"))
    if end < start:
        raise ValueError(f"its end {event['end_date']} is before its start {event['start_date']}")
    kinds = (event.get(name) for name in ("modification_type", "modification_subtype"))
    kind = " ".join(str(one) for one in kinds if one) or "changed"
    told = f"site {int(event['site'])}: {kind}, told {event.get('created_at')}"
    return Correction(f"{int(event['site'])}/{int(event['id'])}", Window(start, end + timedelta(seconds=1)), told)
