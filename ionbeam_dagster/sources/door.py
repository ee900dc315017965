"""Sources whose clients write to the platform's own HTTP door: line protocol, or reports of devices.

Belongs here: the block of such a source (``kind: door``): whose token it is, and which field of which measurement is
which variable. Does not belong here: requests, the journal, and how lines become rows (doors/http).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, model_validator

from ionbeam_client.models import DataIngestionMap, IngestionMetadata, MetadataVariable, Name
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import SourceError
from ionbeam_dagster.sources import Patience, Source, SourceConfig
from ionbeam_dagster.sources.declared import ALTITUDE, DeclaredStation, DeclaredVariable, Latitude, Longitude

RESERVED = frozenset({"datetime", "lat", "lon", STATION, ALTITUDE})


_SHORTEST_TOKEN = 8


def _sent_as_it_is(token: SecretStr) -> SecretStr:
    """A token that every client can send in a header, and that nobody guesses."""
    word = token.get_secret_value()
    remedy = "; make a new one, such as by `openssl rand -hex 16`"
    if len(word) < _SHORTEST_TOKEN:
        raise ValueError(f"has {len(word)} characters, and needs at least {_SHORTEST_TOKEN}{remedy}")
    if not re.fullmatch(r"[!-9;-~]+", word):
        raise ValueError(
            "has a blank, a line break, a colon or another character than those of ASCII, which clients do not send as "
            f"they are{remedy}"
        )
    return token


class DoorVariable(DeclaredVariable):
    """One field that is measured."""

    field: str = Field(
        min_length=1, description="Field of the line; of a report the variable's slug.", examples=["temperature"]
    )
    measurement: str | None = Field(
        default=None,
        description="Measurement of the line; without it any. Reports have the measurement report.",
        examples=["weather"],
    )
    where: dict[str, str] = Field(
        default={}, description="Tags that the line must have.", examples=[{"entity_id": "roof_temperature"}]
    )
    flag: bool = Field(
        default=False, description="The field may be true or false, which is taken as 1 or 0.", examples=[True]
    )


class DoorConfig(SourceConfig):
    """Who writes over HTTP with which token, and which of it is which variable."""

    kind: Literal["door"] = Field(default="door", description="Clients send it over HTTP.")
    allow_incomplete: Patience = Field(
        default=timedelta(minutes=10),
        description="When a dataset window is built although the door was closed for a part of it: after this time, "
        "never, or always (at once).",
        examples=["PT6H", "never", "always"],
    )
    token: Annotated[SecretStr, AfterValidator(_sent_as_it_is)] = Field(
        description="The word by which its clients are known: at least 8 characters, of ASCII, without blanks and "
        "colons; give it by the environment.",
        examples=["${GARDEN_TOKEN}"],
        json_schema_extra={"minLength": _SHORTEST_TOKEN},
    )
    station: str = Field(
        default="station", min_length=1, description="Tag that tells one station from another.", examples=["host"]
    )
    latitude: Latitude | str | None = Field(
        default=None,
        description="Tag or field of the latitude, or degrees north where all stations are at one place.",
        examples=["lat", 52.1],
    )
    longitude: Longitude | str | None = Field(
        default=None,
        description="Tag or field of the longitude, or degrees east where all stations are at one place.",
        examples=["lon", 5.2],
    )
    stations: dict[str, DeclaredStation] = Field(
        default={},
        description="Places of stations whose lines do not say them, by the station's id.",
        examples=[{"roof": {"latitude": 52.1, "longitude": 5.2, "altitude": 12.0}}],
    )
    metadata: dict[Name, str] = Field(
        default={}, description="Descriptive columns of the dataset, and the tags that hold them.",
        examples=[{"model": "model"}],
    )  # fmt: skip
    variables: tuple[DoorVariable, ...] = Field(
        default=(),
        description="Fields that are taken in; what is not among them is parked until it is.",
        examples=[[{"field": "temperature", "standard_name": "air_temperature", "cf_unit": "degC", "level": 2.0}]],
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="What is left out on purpose: a measurement, or measurement.field, or * for all that no variable "
        "takes.",
        examples=[["cpu", "weather.uptime"]],
    )

    unmapped: Literal["parked", "refused"] = Field(
        default="parked",
        description="What becomes of fields that no variable takes: their lines are taken and parked, or the request "
        "is answered with 400, and nothing of it taken.",
        examples=["refused"],
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        if reserved := sorted(RESERVED & self.metadata.keys()):
            raise ValueError(
                f"metadata: {', '.join(reserved)} is a name that the platform needs itself; choose another"
            )
        seen: set[tuple[object, ...]] = set()
        for variable in self.variables:
            key = (variable.measurement, variable.canonical.column, *sorted(variable.where.items()))
            if key in seen:
                raise ValueError(
                    f"variables: {variable.canonical.column} is given twice for measurement {variable.measurement!r}; "
                    "keep one, or tell them apart by level or where"
                )
            seen.add(key)
        return self

    @property
    def has_altitude(self) -> bool:
        return any(station.altitude is not None for station in self.stations.values())


class Door(Source):
    """A source whose clients write to `ionbeam receive`."""

    Config: ClassVar[type[SourceConfig]] = DoorConfig
    config: DoorConfig

    @property
    def metadata(self) -> IngestionMetadata:
        if not self.config.variables:
            raise SourceError(
                f"{self.name}: none of its variables is mapped yet; `ionbeam source accept {self.name}` does it for "
                "what was sent"
            )
        variables = {one.canonical.column: one.canonical for one in self.config.variables}
        described = [STATION, *([ALTITUDE] if self.config.has_altitude else []), *self.config.metadata]
        return IngestionMetadata(
            dataset=self.described("What stations write to the door."),
            ingestion_map=DataIngestionMap(
                canonical_variables=list(variables.values()),
                metadata_variables=[MetadataVariable(column=column) for column in described],
            ),
        )

    def fetch(self, window: Window) -> Iterator[pa.RecordBatch]:
        raise SourceError(f"{self.name} {window}: is written by its clients and cannot be fetched")
