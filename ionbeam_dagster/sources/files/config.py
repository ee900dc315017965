"""The keys of a `files` source's block in the YAML.

Belongs here: what a person may say about files, and the checks that need no file. Does not belong here: what the files
say about themselves (netcdf_files.py), or how the two are brought together (source.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ionbeam_client.models import Dtype, Name, NamePart, Period
from ionbeam_dagster.sources import SourceConfig

FORMATS = {
    "csv": (".csv", ".csv.gz"),
    "parquet": (".parquet",),
    "netcdf": (".nc", ".nc4"),
}
RESERVED = frozenset({"datetime", "lat", "lon", "x_file", "x_row", "x_problem"})

Format = Literal["csv", "parquet", "netcdf"]


def _one_byte_newline(encoding: str) -> str:
    try:
        newline = "\n".encode(encoding)
    except LookupError as error:
        raise ValueError(f"{encoding!r} is not an encoding; right would be utf-8, latin-1 or cp1252") from error
    if newline != b"\n":
        raise ValueError(f"{encoding!r} files cannot be read in pieces; convert them, for example: iconv -t utf-8")
    return encoding


def _known_zone(zone: str) -> str:
    if zone not in available_timezones():
        raise ValueError(f"{zone!r} is not a time zone; right would be, for example, UTC or Europe/Rome")
    return zone


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TimeColumn(_Section):
    """Where the time stands and how it is written.

    Without `format` text is read as ISO 8601. A time that carries no zone of its own is in `zone`.
    """

    column: str | None = None
    format: str | None = None
    zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"


class CsvDialect(_Section):
    """How CSV files are written. `missing` are texts that stand for no value, besides the usual ones (empty, ``-``,
    ``NaN``, ``null``, ...)."""

    separator: str = Field(default=",", min_length=1, max_length=1)
    encoding: Annotated[str, AfterValidator(_one_byte_newline)] = "utf-8"
    decimal: Literal[".", ","] = "."
    missing: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _separator_is_not_decimal(self) -> Self:
        if self.separator == self.decimal:
            raise ValueError(f"separator and decimal are both {self.decimal!r}; right would be separator: ';'")
        return self


class FileVariable(_Section):
    """One measured quantity. netCDF files describe theirs themselves: what is stated here completes or overrides them.

    `unit` is the unit in the files (default: what the file declares, else `cf_unit`), `cf_unit` the unit in the dataset
    (default: `unit`); values are converted from the one to the other.
    """

    column: str
    standard_name: NamePart | None = None
    unit: str | None = None
    cf_unit: NamePart | None = None
    level: float | None = Field(default=None, allow_inf_nan=False)
    method: NamePart | None = None
    period: Period | None = None
    dtype: Dtype = "float64"


def _column_alone(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class FilesConfig(SourceConfig):
    """A folder, a file or a glob of files of one format, and how to read them.

    `latitude` and `longitude` are columns, or numbers where all files are of one place. `metadata` gives the dataset's
    descriptive columns and where they stand in the files; `constants` those that stand nowhere, in which ``{stem}`` is
    the file's name without its ending. A file is left alone for `settle` after its last change.
    """

    path: str = Field(min_length=1)
    format: Format | None = None
    time: Annotated[TimeColumn, BeforeValidator(_column_alone)] = TimeColumn()
    latitude: str | Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: str | Annotated[float, Field(ge=-180, le=360)] | None = None
    metadata: dict[Name, str] = Field(default={})
    constants: dict[Name, str] = Field(default={})
    variables: tuple[Annotated[FileVariable, BeforeValidator(_column_alone)], ...] = Field(min_length=1)
    csv: CsvDialect = CsvDialect()
    settle: timedelta = Field(default=timedelta(seconds=2), ge=timedelta(0))

    @field_validator("constants", mode="before")
    @classmethod
    def _numbers_are_text(cls, value: Any) -> Any:
        """A station number in the YAML is a name, too."""
        if not isinstance(value, dict):
            return value
        return {key: str(inner) if isinstance(inner, int | float) else inner for key, inner in value.items()}

    @model_validator(mode="after")
    def _columns_are_told_apart(self) -> Self:
        names = Counter([*(v.column for v in self.variables), *self.metadata, *self.constants])
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)}: stands twice among variables, metadata and constants; keep one")
        reserved = sorted(RESERVED & names.keys())
        if reserved:
            raise ValueError(f"{', '.join(reserved)}: a name that the platform needs itself; rename the column")
        return self

    @property
    def reading(self) -> str:
        """A hash of all that decides what is read from a given file."""
        apart = {*SourceConfig.model_fields, "path", "settle"}
        return hashlib.sha256(self.model_dump_json(exclude=apart).encode()).hexdigest()[:16]
