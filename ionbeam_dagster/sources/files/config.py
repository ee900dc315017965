"""The keys of a `files` source's block in the YAML.

Belongs here: what a person may say about files, and the checks that need no file. Does not belong here: what the files
say about themselves (netcdf_files.py), or how the two are brought together (source.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ionbeam_client.models import Definition, Dtype, Name, NamePart, Period
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.sources import SourceConfig

FORMATS = {
    "csv": (".csv", ".csv.gz"),
    "parquet": (".parquet",),
    "netcdf": (".nc", ".nc4"),
    "jsonl": (".jsonl", ".jsonl.gz"),
}
"""Formats by the endings of names. Annotated CSV has no ending of its own; `format` has to say it."""
_TURNED = re.compile(r"\.\d{6}(?=(?:\.gz)?$)")
_BESIDE_LOGS = (".refused.jsonl", ".schema.json")
BLANKS = "blanks"
RESERVED = frozenset({"datetime", "lat", "lon", "x_file", "x_row", "x_problem"})

Format = Literal["csv", "parquet", "netcdf", "jsonl", "influx_csv"]


def format_by_name(file: str) -> str | None:
    """The format that a file's name tells; a log that was put aside with a number behind its name is one still."""
    name = _TURNED.sub("", file.lower())
    return next((form for form, endings in FORMATS.items() if name.endswith(endings)), None)


def in_order(file: str) -> tuple[str, bool, str]:
    """Sorts names such that of files with the same rows the latest comes last: by name, but a log behind those that
    were put aside with numbers."""
    log = _TURNED.sub("", file)
    return log, log == file, file


def is_beside_log(file: str) -> bool:
    """Whether a file is one that a station's logger keeps beside its log, and holds no rows of its own."""
    return file.endswith(_BESIDE_LOGS)


def _one_byte_newline(encoding: str) -> str:
    try:
        newline = "\n".encode(encoding)
    except LookupError as error:
        raise ValueError(f"{encoding!r} is not an encoding; right would be utf-8, latin-1 or cp1252") from error
    if newline != b"\n":
        raise ValueError(f"{encoding!r} files cannot be read in pieces; convert them, for example: iconv -t utf-8")
    return encoding


_OFFSET = re.compile(r"(?:UTC|GMT)?\s*(?P<sign>[+-])(?P<hours>\d\d?)(?::?(?P<minutes>[0-5]\d))?")


def offset_of(zone: str) -> timedelta | None:
    """What a zone such as +01:00 or UTC-3 is ahead of UTC all the year; None for one with a name."""
    found = _OFFSET.fullmatch(zone)
    if found is None:
        return None
    ahead = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    return -ahead if found["sign"] == "-" else ahead


def _known_zone(zone: str) -> str:
    if (ahead := offset_of(zone)) is not None and abs(ahead) <= timedelta(hours=15):
        return zone
    if zone not in available_timezones():
        raise ValueError(f"{zone!r} is not a time zone; right would be, for example, UTC, Europe/Rome or +01:00")
    return zone


def _readable_format(form: str) -> str:
    if "%Z" in form:
        raise ValueError(
            f"{form!r}: %Z, the abbreviation of a zone, says no time by itself (CST is three of them); leave it out of "
            "what is read (write the letters themselves in its place), and state time.zone"
        )
    if not re.search(r"%[-_0]?[HIklTRsXcr+]", form):
        raise ValueError(
            f"{form!r} has no clock, so that all of a day would be at midnight; where it stands in a column "
            "of its own, name both: time.columns: [date, time], with a format of both and a blank between them"
        )
    return form


class TimeColumn(Settings):
    """Where the time stands and how it is written."""

    column: str | None = Field(
        default=None, description="Column of the time; netCDF files say it themselves.", examples=["time"]
    )
    columns: tuple[str, ...] = Field(
        default=(),
        description="Columns that together hold the time, such as a date and a clock: read as one text, with a blank "
        "between each two.",
        examples=[["date", "time"]],
    )
    format: Annotated[str, AfterValidator(_readable_format)] | None = Field(
        default=None,
        description="How text is to be read (strptime); without it as ISO 8601.",
        examples=["%d/%m/%Y %H:%M"],
    )
    unit: Literal["s", "ms", "us", "ns"] | None = Field(
        default=None, description="Unit of times that are numbers since 1970.", examples=["ms"]
    )
    zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        default="UTC",
        description="Zone of times that carry none of their own; an offset stays the same all the year.",
        examples=["Europe/Rome", "+01:00"],
    )

    ambiguous: Literal["refuse", "in_order"] = Field(
        default="refuse",
        description="Times of the hour that clocks show twice in autumn: set aside, or told apart by the order of a "
        "station's rows (in_order).",
    )

    @model_validator(mode="after")
    def _stands_once(self) -> Self:
        if self.columns and self.column is not None:
            raise ValueError("has both `column` and `columns`; keep one of them")
        if self.unit and self.format:
            raise ValueError("has both `format` (of texts) and `unit` (of numbers); keep one of them")
        return self


def _one_character_or_blanks(separator: str) -> str:
    if len(separator) != 1 and separator != BLANKS:
        raise ValueError(f"{separator!r} is not one character; right would be, for example, ';' or {BLANKS}")
    return separator


class CsvDialect(Settings):
    """How CSV files are written."""

    separator: Annotated[str, AfterValidator(_one_character_or_blanks)] = Field(
        default=",",
        description="Character between two columns, or blanks: any number of blanks and tabs.",
        examples=[";", "blanks"],
    )
    header: int = Field(
        default=1, ge=1, description="Line with the names of the columns; what is above it is skipped.", examples=[2]
    )
    skip: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(),
        description="Further lines above the first row that are none: units, for example.",
        examples=[[3, 4]],
    )
    names: tuple[str, ...] = Field(
        default=(), description="Names of the columns, of files without a header.", examples=[["time", "T"]]
    )
    comment: str | None = Field(
        default=None, min_length=1, description="What lines begin with that are no rows.", examples=["#"]
    )
    encoding: Annotated[str, AfterValidator(_one_byte_newline)] = Field(
        default="utf-8", description="How text is encoded.", examples=["latin-1"]
    )
    decimal: Literal[".", ","] = Field(default=".", description="Character of the decimal point.")
    missing: tuple[str | float, ...] = Field(
        default=(), description="The same as `missing` of the source.", examples=[["-999"]]
    )

    @property
    def delimiter(self) -> str:
        return " " if self.separator == BLANKS else self.separator

    @property
    def is_plain(self) -> bool:
        """Whether the first line is the header, and each other line a row or a further header."""
        return self.header == 1 and not (self.skip or self.names or self.comment or self.separator == BLANKS)

    @model_validator(mode="after")
    def _header_is_said_once(self) -> Self:
        if self.names and self.header != 1:
            raise ValueError("has `names` and a `header`; keep one of them (lines above the first row are in `skip`)")
        return self

    @model_validator(mode="after")
    def _separator_is_not_decimal(self) -> Self:
        if self.separator == self.decimal:
            raise ValueError(f"separator and decimal are both {self.decimal!r}; right would be separator: ';'")
        return self


class FileQuality(Settings):
    """What the files say of each value of a quantity. Other codes say nothing; good excuses no failed test."""

    column: str = Field(description="Column of the codes.", examples=["T_qc"])
    good: tuple[str | float, ...] = Field(default=(), description="Codes of good values.", examples=[["V", 0]])
    poor: tuple[str | float, ...] = Field(
        min_length=1, description="Codes of values that are at least suspect.", examples=[["N", 3]]
    )

    @model_validator(mode="after")
    def _codes_say_one_thing(self) -> Self:
        both = sorted({str(code) for code in self.good} & {str(code) for code in self.poor})
        if both:
            raise ValueError(f"{', '.join(both)}: stands among good and poor codes; keep one")
        return self


class FileVariable(Settings):
    """One measured quantity. netCDF files describe theirs themselves: what is stated here completes or overrides them.

    Values are converted from `unit` to `cf_unit`.
    """

    column: str = Field(description="Column, or netCDF variable.", examples=["T"])
    standard_name: NamePart | None = Field(
        default=None,
        description="CF's name of the quantity; x_... for what CF has no name for.",
        examples=["air_temperature"],
    )
    definition: Definition = Field(
        default="",
        description="What is measured, in a sentence; for what CF has no name for.",
        examples=["Level of the battery, as a share of its capacity"],
    )
    unit: str | None = Field(
        default=None,
        description="Unit in the files; without it what the file declares, else cf_unit.",
        examples=["degF"],
    )
    cf_unit: NamePart | None = Field(
        default=None, description="Unit in the dataset; without it that in the files.", examples=["degC"]
    )
    level: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Height above the ground in m; without it what the file declares, else 0.",
        examples=[2.0],
    )
    method: NamePart | None = Field(
        default=None, description="CF's cell method; without it what the file declares, else point.", examples=["mean"]
    )
    period: Period | None = Field(
        default=None, description="Time that the method is over, which ends at the row's time.", examples=["PT10M"]
    )
    dtype: Dtype = Field(default="float64", description="Type of its values.", examples=["string"])
    scale: float = Field(
        default=1.0,
        allow_inf_nan=False,
        description="What its numbers are multiplied by to be in `unit`: 0.1 of tenths.",
        examples=[0.1],
    )
    optional: bool = Field(
        default=False, description="Whether files may lack the column; there it has no value.", examples=[True]
    )
    quality: FileQuality | None = Field(
        default=None, description="Where CSV and Parquet files say how good each of its values is."
    )

    @property
    def flag_column(self) -> str | None:
        """The source's column of what the files say of each value."""
        return f"{self.column}:quality" if self.quality else None


def _number_as_text(given: Any) -> Any:
    return str(given) if isinstance(given, int | float) else given


def _number(given: str | float) -> float | None:
    try:
        return float(given)
    except ValueError:
        return None


Constant = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=str | float)]
"""A text; a station number in the YAML is a name, too."""


class DescribedColumn(Settings):
    """Where a descriptive column stands in the files."""

    column: str = Field(description="Column, or netCDF variable.", examples=["elev"])
    unit: str | None = Field(
        default=None,
        description="Unit of a height; without it what the file declares, else m.",
        examples=["ft"],
    )


class LongTable(Settings):
    """Files with one value a row. The columns of `variables` are then the names that stand in `variable`."""

    variable: str = Field(description="Column that names the quantity.", examples=["parameter"])
    value: str = Field(description="Column of the value.", examples=["value"])


def _with_named_groups(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if not pattern.groupindex:
        raise ValueError(
            f"{pattern.pattern!r} has no named group; right would be, for example, (?P<station_id>[^_/]+)_.*"
        )
    return pattern


def _column_alone(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class FilesConfig(SourceConfig):
    """A folder, a file or a glob of files of one format, and how to read them."""

    path: str = Field(min_length=1, description="Folder, file or glob of the files.", examples=["loggers/*.csv"])
    format: Format | None = Field(
        default=None,
        description="Format of the files; without it their endings say it. jsonl is JSON lines and influx_csv "
        "annotated CSV, the two logs of a station's eht-influx-client.",
        examples=["csv"],
    )
    time: Annotated[TimeColumn, BeforeValidator(_column_alone, json_schema_input_type=TimeColumn | str)] = Field(
        default=TimeColumn(), description="Where the time stands; a text is the column.", examples=["time"]
    )
    latitude: str | Annotated[float, Field(ge=-90, le=90)] | None = Field(
        default=None,
        description="Column of the latitude, or degrees north where all files are of one place.",
        examples=["lat", 44.3],
    )
    longitude: str | Annotated[float, Field(ge=-180, le=360)] | None = Field(
        default=None,
        description="Column of the longitude, or degrees east where all files are of one place.",
        examples=["lon", 9.3],
    )
    metadata: dict[
        Name, Annotated[DescribedColumn, BeforeValidator(_column_alone, json_schema_input_type=DescribedColumn | str)]
    ] = Field(
        default={},
        description="Descriptive columns of the dataset, and the columns of the files that hold them; a text is the "
        "column. Heights (altitude, station_height, height) are in m, whatever unit they come in.",
        examples=[{"station_id": "id", "altitude": {"column": "elev", "unit": "ft"}}],
    )
    name: Annotated[re.Pattern[str], AfterValidator(_with_named_groups)] | None = Field(
        default=None,
        description="Regular expression of the files' names (with their folders below `path`), whose named groups are "
        "descriptive columns.",
        examples=["(?P<station_id>[^_/]+)_.*"],
    )
    long: LongTable | None = Field(
        default=None, description="Of files with one value a row: which columns hold it, and say of what it is."
    )
    constants: dict[Name, Constant] = Field(
        default={},
        description="Descriptive columns that no file has; {stem} is the file's name without its ending, {folder} the "
        "name of the folder that it is in.",
        examples=[{"station_id": "{stem}"}],
    )
    variables: tuple[
        Annotated[FileVariable, BeforeValidator(_column_alone, json_schema_input_type=FileVariable | str)], ...
    ] = Field(
        min_length=1,
        description="Quantities that are read; a text is the column, where the files describe it.",
        examples=[[{"column": "T", "standard_name": "air_temperature", "unit": "degC", "level": 2.0}]],
    )
    missing: tuple[str | float, ...] = Field(
        default=(),
        description="Numbers and texts that stand for no value, besides the usual texts (empty, -, --, NA, NaN, ...).",
        examples=[[-999, "M"]],
    )
    csv: CsvDialect = Field(default=CsvDialect(), description="How CSV files are written.")
    settle: timedelta = Field(
        default=timedelta(seconds=2),
        ge=timedelta(0),
        description="How long after its last change a file is taken for unfinished; of a CSV whole lines are read all "
        "the same.",
    )
    when_removed: Literal["keep", "withdraw"] = Field(
        default="keep",
        description="What becomes of observations whose file or row is gone: they stay, or (for those who mirror a "
        "folder) are withdrawn. An empty folder withdraws nothing.",
    )

    @model_validator(mode="after")
    def _columns_are_told_apart(self) -> Self:
        names = Counter([*(v.column for v in self.variables), *self.metadata, *self.constants, *self.named])
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)}: stands twice among variables, metadata and constants; keep one")
        reserved = sorted(RESERVED & names.keys())
        if reserved:
            raise ValueError(f"{', '.join(reserved)}: a name that the platform needs itself; rename the column")
        return self

    @model_validator(mode="after")
    def _annotated_csv_says_its_time(self) -> Self:
        if self.format == "influx_csv" and self.time != TimeColumn():
            raise ValueError("time: annotated CSV says itself where its time is, and how it is written; leave it out")
        return self

    @model_validator(mode="after")
    def _braces_are_known(self) -> Self:
        for name, text in self.constants.items():
            unknown = set(re.findall(r"\{[^}]*\}", text)) - {"{stem}", "{folder}"}
            if unknown:
                raise ValueError(
                    f"constants.{name}: {', '.join(sorted(unknown))} stands for nothing; there are {{stem}} (the "
                    "file's name without its ending) and {folder} (the folder that it is in)"
                )
        return self

    @property
    def no_values(self) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """The texts and the numbers that stand for no value."""
        given = (*self.missing, *self.csv.missing)
        return tuple(str(one) for one in given), tuple(number for one in given if (number := _number(one)) is not None)

    @property
    def named(self) -> tuple[str, ...]:
        """The descriptive columns that the files' names give."""
        return tuple(self.name.groupindex) if self.name is not None else ()

    @property
    def columns_of_metadata(self) -> dict[str, str]:
        return {name: described.column for name, described in self.metadata.items()}

    @property
    def reading(self) -> str:
        """A hash of all that decides what is read from a given file."""
        apart = {*SourceConfig.model_fields, "path", "settle", "when_removed"}
        return hashlib.sha256(self.model_dump_json(exclude=apart).encode()).hexdigest()[:16]
