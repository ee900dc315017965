"""The words that clients and the platform share: ingestion metadata, commands and events.

Belongs here: what travels between processes, and what describes it. Does not belong here: how it travels (transports),
or what the platform makes of it (windows, revisions).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Self
from uuid import UUID, uuid4

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

_DURATION = TypeAdapter(timedelta)

DTYPES = frozenset(
    {
        "float32", "float64",
        "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64",
        "bool", "string",
    }
)  # fmt: skip


def parse_duration(text: str) -> timedelta:
    """Read an ISO 8601 duration such as ``PT5M``; raises ValueError with what would be right."""
    if not text.startswith(("P", "-P", "+P")):
        raise ValueError(f"{text!r} is not an ISO 8601 duration (right would be, for example, PT5M, PT1H or P1D)")
    try:
        return _DURATION.validate_python(text)
    except ValidationError as error:
        raise ValueError(
            f"{text!r} is not an ISO 8601 duration (right would be, for example, PT5M, PT1H or P1D)"
        ) from error


def format_duration(duration: timedelta) -> str:
    """Write a duration as ISO 8601: ``timedelta(hours=1)`` is ``PT1H``."""
    return str(_DURATION.dump_python(duration, mode="json"))


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _known_dtype(dtype: str) -> str:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is not known; use one of {', '.join(sorted(DTYPES))}")
    return dtype


def _known_period(period: str) -> str:
    parse_duration(period)
    return period


def _without_separator(text: str) -> str:
    if "__" in text:
        raise ValueError(f"{text!r} contains '__', which separates the parts of a canonical name")
    return text


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A moment with a time zone, kept in UTC. A naive one is refused: nobody can know what it means."""

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""A source's or dataset's name: it becomes part of file names, asset keys and queue names."""

Dtype = Annotated[str, AfterValidator(_known_dtype)]
Period = Annotated[str, AfterValidator(_known_period)]
NamePart = Annotated[str, StringConstraints(min_length=1), AfterValidator(_without_separator)]


Definition = Annotated[str, StringConstraints(max_length=1_000, strip_whitespace=True)]
"""What a quantity is, in words for people."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(_Strict):
    """A web link that belongs to a dataset: its source's page, its licence."""

    href: str = Field(description="Address of the page.", examples=["https://example.org"])
    title: str = Field(default="", description="What it is, in words for people.", examples=["The network"])
    rel: str = Field(default="about", description="Relation to the dataset, as IANA names it.", examples=["license"])
    mime_type: str | None = Field(default=None, description="Type of the page.", examples=["text/html"])


class TimeAxis(_Strict):
    """Where the time of a row stands: a timestamp column, ``datetime`` unless `from_col` says otherwise."""

    from_col: str | None = None

    @property
    def column(self) -> str:
        return self.from_col or "datetime"


class LatitudeAxis(_Strict):
    """Where the latitude of a row stands: ``lat`` unless `from_col` says otherwise."""

    standard_name: str = "latitude"
    cf_unit: str = "degrees_north"
    from_col: str | None = None

    @property
    def column(self) -> str:
        return self.from_col or "lat"


class LongitudeAxis(_Strict):
    """Where the longitude of a row stands: ``lon`` unless `from_col` says otherwise."""

    standard_name: str = "longitude"
    cf_unit: str = "degrees_east"
    from_col: str | None = None

    @property
    def column(self) -> str:
        return self.from_col or "lon"


class CanonicalVariable(_Strict):
    """A measured quantity: the raw column that holds it and what CF calls it.

    `level` is the height of the sensor above ground in metres, `method` the CF cell method (``point``, ``mean``,
    ``sum``, ...) and `period` the ISO 8601 duration that the method covers (``PT0S`` for an instant). `flag_column` is
    the raw column with the provider's own quality code of each value (a small whole number), where there is one.
    `definition` says what is measured, where CF has no name for it (``x_...``).
    """

    column: str
    standard_name: NamePart
    cf_unit: NamePart
    level: float = Field(default=0.0, allow_inf_nan=False)
    method: NamePart = "point"
    period: Period = "PT0S"
    dtype: Dtype = "float64"
    flag_column: str | None = None
    definition: Definition = Field(default="", exclude_if=lambda text: not text)

    def to_canonical_name(self) -> str:
        """``standard_name__unit__level__method__period``, the name of the variable's column in every dataset file."""
        return "__".join((self.standard_name, self.cf_unit, str(float(self.level)), self.method, self.period))

    @classmethod
    def from_canonical_name(cls, name: str, *, column: str | None = None, dtype: str = "float64") -> Self:
        """Take a canonical name apart; the level may be written ``2`` or ``2.0``.

        Raises ValueError when `name` does not have the five parts.
        """
        parts = name.split("__")
        if len(parts) != 5 or not re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", parts[2]):
            raise ValueError(f"{name!r} is not a canonical name (standard_name__unit__level__method__period)")
        standard_name, cf_unit, level, method, period = parts
        return cls(
            column=column or name,
            standard_name=standard_name,
            cf_unit=cf_unit,
            level=float(level),
            method=method,
            period=period,
            dtype=dtype,
        )


class MetadataVariable(_Strict):
    """A column that describes the platform rather than the weather: its id, its kind, its height."""

    column: str
    dtype: Dtype = "string"


class DataIngestionMap(_Strict):
    """How the columns of raw data become canonical ones."""

    datetime: TimeAxis = TimeAxis()
    lat: LatitudeAxis = LatitudeAxis()
    lon: LongitudeAxis = LongitudeAxis()
    canonical_variables: list[CanonicalVariable]
    metadata_variables: list[MetadataVariable] = []

    @property
    def flag_columns(self) -> list[str]:
        """The raw columns that hold quality codes, each once."""
        flags = (variable.flag_column for variable in self.canonical_variables)
        return list(dict.fromkeys(flag for flag in flags if flag is not None))

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = ["datetime", "lat", "lon"]
        names += [variable.to_canonical_name() for variable in self.canonical_variables]
        names += [variable.column for variable in self.metadata_variables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two columns would have the same canonical name: {', '.join(twice)}")
        return self


class DatasetMetadata(_Strict):
    """What a dataset is, and over which windows it is aggregated."""

    name: Name
    description: str = ""
    source_links: list[Link] = []
    keywords: list[str] = []
    aggregation_span: timedelta = timedelta(days=1)
    subject_to_change_window: timedelta = timedelta(0)


class IngestionMetadata(_Strict):
    """The dataset that raw data belong to, how to read them, and the version of that reading."""

    dataset: DatasetMetadata
    ingestion_map: DataIngestionMap
    version: int = Field(default=1, ge=1, le=2**63 - 1)


class _Message(_Strict):
    @classmethod
    def from_wire(cls, data: str | bytes) -> Self:
        """Read a message's JSON; fields that this version does not know are ignored here, and only here."""
        return cls.model_validate_json(data, extra="ignore")


class _Ranged(_Message):
    start_time: UtcDatetime
    end_time: UtcDatetime

    @model_validator(mode="after")
    def _end_follows_start(self) -> Self:
        if self.end_time <= self.start_time:
            raise ValueError(f"end_time {self.end_time} must be later than start_time {self.start_time}")
        return self


class StartSourceCommand(_Ranged):
    """Asks a source to collect [start_time, end_time)."""

    id: UUID = Field(default_factory=uuid4)
    source_name: Name
    use_cache: bool = False


class _Divisible(_Ranged):
    """A message whose rows may be too many for one message: they then travel in `parts` messages of the same `id`,
    numbered from 1. Only together are they what the message says; one that is complete by itself is part 1 of 1."""

    part: int = Field(default=1, ge=1)
    parts: int = Field(default=1, ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _part_is_one_of_them(self) -> Self:
        if self.part > self.parts:
            raise ValueError(f"part {self.part} of {self.parts} cannot be")
        return self


class IngestDataCommand(_Divisible):
    """Asks the platform to take in rows that were collected of [start_time, end_time).

    `payload_location` names a raw Parquet file in the payload store, relative to it; None when the rows are in the
    message itself. `source_name` says which of several sources of the dataset collected the range; a dataset with one
    source needs none. With `replaces`, the rows take the place of whatever the same user of the broker sent before
    for ranges of the source that lie in this one; otherwise they add to it.
    """

    id: UUID = Field(default_factory=uuid4)
    metadata: IngestionMetadata
    source_name: Name | None = None
    replaces: bool = False
    payload_location: Path | None = None


class Returned(_Message):
    """Says to a client that a message of its own is parked, in the dead queue of `queue`, and why."""

    message_id: str
    queue: str
    reason: str


class DataAvailableEvent(_Ranged):
    """Says that an ingestion (same `id` as its command) is stored."""

    id: UUID = Field(default_factory=uuid4)
    metadata: IngestionMetadata


class DataSetAvailableEvent(_Divisible):
    """Says that a revision of a dataset window is ready at `dataset_location`, relative to the payload store.

    The rows may be in the message itself; `dataset_location` is then only the file's name. `previous_revision` is the
    one that this revision replaces (None: the window is new).
    """

    id: UUID = Field(default_factory=uuid4)
    metadata: DatasetMetadata
    dataset_location: Path
    revision: int = Field(default=1, ge=1)
    previous_revision: int | None = None


class ReplayDatasetsCommand(_Message):
    """Asks for the latest revision of every dataset window that ends after `start_time`, on the exporter's own queue.

    `datasets` None means all of them.
    """

    id: UUID = Field(default_factory=uuid4)
    exporter_name: str
    datasets: list[Name] | None = None
    start_time: UtcDatetime
