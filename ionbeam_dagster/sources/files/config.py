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

import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ionbeam_client.models import Definition, Dtype, Name, NamePart, Period
from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.written_numbers import same_as_text
from ionbeam_dagster.settings import Settings
from ionbeam_dagster.sources import SourceConfig
from ionbeam_dagster.sources.files.levels import Heights, column_of_heights
from ionbeam_dagster.sources.files.unit_codes import UnitCodes
from ionbeam_dagster.sources.files.written import Code, CsvDialect, NoValue, TimeColumn, no_truth

FORMATS = {
    "csv": (".csv", ".csv.gz", ".csv.zip"),
    "parquet": (".parquet",),
    "netcdf": (".nc", ".nc4"),
    "jsonl": (".jsonl", ".jsonl.gz", ".jsonl.zip"),
    "excel": (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
}
"""Formats by the endings of names. Annotated CSV has no ending of its own; `format` has to say it."""
_TURNED = re.compile(r"\.\d{6}(?=(?:\.gz)?$)")
_BESIDE_LOGS = (".refused.jsonl", ".schema.json")
RESERVED = frozenset({"datetime", "lat", "lon", "x_file", "x_row", "x_problem", "x_column", "x_value"})

Format = Literal["csv", "parquet", "netcdf", "jsonl", "influx_csv", "excel"]


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


def _readable_pattern(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
        pl.Series([""]).str.extract(pattern)
    except (re.error, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{pattern!r} is no regular expression that can be used ({error})") from error
    if groups != 1:
        raise ValueError(f"{pattern!r} has {groups} groups; right would be one, for example ([+-]?[0-9]+),1")
    return pattern


class FileQuality(Settings):
    """What the files say of each value of a quantity. Other codes say nothing; good excuses no failed test."""

    column: str = Field(description="Column of the codes.", examples=["T_qc"])
    good: tuple[Code, ...] = Field(default=(), description="Codes of good values.", examples=[["V", 0]])
    pattern: Annotated[str, AfterValidator(_readable_pattern)] | None = Field(
        default=None,
        description="Regular expression of the column's cells, whose group is the code.",
        examples=[",(.)$"],
    )
    poor: tuple[Code, ...] = Field(
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
    read_from: str | None = Field(
        default=None,
        description="Column of the files, where one has several quantities in a cell; `column` is then this one's own "
        "name.",
        examples=["WND"],
    )
    pattern: Annotated[str, AfterValidator(_readable_pattern)] | None = Field(
        default=None,
        description="Regular expression of its cells, whose group is the value.",
        examples=["^([+-][0-9]+),"],
    )
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
    unit: str | UnitCodes | None = Field(
        default=None,
        description="Unit in the files; without it what the file declares, else cf_unit. Where a code in each row says "
        "it, that column and what its codes mean.",
        examples=["degF", {"column": "usUnits", "units": {1: "degF", 16: "degC", 17: "degC"}}],
    )
    cf_unit: NamePart | None = Field(
        default=None, description="Unit in the dataset; without it that in the files.", examples=["degC"]
    )
    level: (
        Annotated[
            Annotated[float, Field(allow_inf_nan=False)] | Heights,
            BeforeValidator(column_of_heights, json_schema_input_type=float | str | Heights),
        ]
        | None
    ) = Field(
        default=None,
        description="Height above the ground in m; without it what the file declares, else 0. Of a profile a text: "
        "the column of its heights, each of which is a level of its own.",
        examples=[2.0, "z"],
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
    def stands_in(self) -> str:
        """The files' column that it is read from."""
        return self.read_from or self.column

    @property
    def unit_codes(self) -> UnitCodes | None:
        """Where a code says the unit of each row."""
        return self.unit if isinstance(self.unit, UnitCodes) else None

    @property
    def heights(self) -> Heights | None:
        """Where its heights stand, of a profile."""
        return self.level if isinstance(self.level, Heights) else None

    @property
    def flag_column(self) -> str | None:
        """The source's column of what the files say of each value."""
        return f"{self.column}:quality" if self.quality else None


def _number_as_text(given: Any) -> Any:
    return str(no_truth(same_as_text(given))) if isinstance(given, int | float) else given


def _number(given: str | float) -> float | None:
    try:
        return float(given)
    except ValueError:
        return None


Constant = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=str | float)]
"""A text; a station number in the YAML is a name, too."""


def _column_alone(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class DescribedColumn(Settings):
    """Where a descriptive column stands in the files."""

    column: str = Field(description="Column, or netCDF variable.", examples=["elev"])
    unit: str | None = Field(
        default=None,
        description="Unit of a height; without it what the file declares, else m.",
        examples=["ft"],
    )


Described = Annotated[DescribedColumn, BeforeValidator(_column_alone, json_schema_input_type=DescribedColumn | str)]


class LongTable(Settings):
    """Files with one value a row. The columns of `variables` are then the names that stand in `variable`."""

    variable: str = Field(description="Column that names the quantity.", examples=["parameter"])
    value: str = Field(description="Column of the value.", examples=["value"])
    unit: str | None = Field(
        default=None,
        description="Column of the value's unit, which goes before `unit` of a variable.",
        examples=["units"],
    )


def _with_named_groups(pattern: re.Pattern[str]) -> re.Pattern[str]:
    if not pattern.groupindex:
        raise ValueError(
            f"{pattern.pattern!r} has no named group; right would be, for example, (?P<station_id>[^_/]+)_.*"
        )
    return pattern


class StationList(Settings):
    """A list of the stations in a file of its own (CSV, Parquet or Excel), which is joined by their ids.

    Rows of a station that is not in it are set aside.
    """

    path: str = Field(min_length=1, description="File with the list.", examples=["stations.csv"])
    id: str = Field(description="Column of the list with the stations' ids.", examples=["id"])
    latitude: str | None = Field(default=None, description="Column of the latitude.", examples=["lat"])
    longitude: str | None = Field(default=None, description="Column of the longitude.", examples=["lon"])
    metadata: dict[Name, Described] = Field(
        default={},
        description="Descriptive columns of the dataset, and the list's columns that hold them.",
        examples=[{"altitude": {"column": "elev", "unit": "ft"}}],
    )
    ids_are_numbers: bool = Field(
        default=False,
        description="Whether 06260, 6260 and 6260.0 are one station, whose id is written as the list has it.",
    )
    csv: CsvDialect = Field(default=CsvDialect(), description="How the list is written, where it is CSV.")

    @model_validator(mode="after")
    def _has_both_or_neither(self) -> Self:
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("has one of `latitude` and `longitude`; name both, or neither")
        return self


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
    metadata: dict[Name, Described] = Field(
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
    wide: Annotated[re.Pattern[str], AfterValidator(_with_named_groups)] | None = Field(
        default=None,
        description="Of files with one column a station: regular expression of the whole names of such columns, whose "
        "named groups are descriptive columns. The group `variable` tells which of several `variables` a column is of.",
        examples=["(?P<station_id>.+) - (?P<variable>.+)"],
    )
    stations: StationList | None = Field(
        default=None, description="List of the stations, where they are described in a file of its own."
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
    missing: tuple[NoValue, ...] = Field(
        default=(),
        description="Numbers and texts that stand for no value, besides the usual texts (empty, -, --, NA, NaN, ...).",
        examples=[[-999, "M"]],
    )
    csv: CsvDialect = Field(
        default=CsvDialect(),
        description="How CSV files are written; `header`, `skip` and `names` are of the rows of Excel files, too.",
    )
    sheet: str | None = Field(
        default=None, description="Sheet of Excel files; without it the only one.", examples=["Data"]
    )
    member: str | None = Field(
        default=None,
        description="Which member of zip files is read, as a glob; without it the only one.",
        examples=["produkt_*.txt"],
    )
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
        listed = self.stations.metadata if self.stations else {}
        names = Counter([*(v.column for v in self.variables), *self.metadata, *self.constants, *self.named, *listed])
        twice = sorted(name for name, count in names.items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)}: stands twice among variables, metadata and constants; keep one")
        reserved = sorted(RESERVED & names.keys())
        if reserved:
            raise ValueError(f"{', '.join(reserved)}: a name that the platform needs itself; rename the column")
        return self

    @model_validator(mode="after")
    def _wide_columns_are_of_a_variable(self) -> Self:
        if self.wide is None:
            return self
        if self.long is not None or self.format in ("netcdf", "jsonl", "influx_csv"):
            raise ValueError("wide: is of CSV, Parquet and Excel files that are not `long`; leave one of them out")
        if "variable" not in self.wide.groupindex and len(self.variables) > 1:
            raise ValueError(
                "wide: there are several `variables`, and no group tells which a column is of; right would be, for "
                "example, (?P<variable>[^_]+)_(?P<station_id>.+)"
            )
        if any(one.quality or one.read_from or one.heights for one in self.variables):
            raise ValueError("wide: each column is a value's; leave `quality`, `read_from` and heights out")
        return self

    @model_validator(mode="after")
    def _stations_can_be_joined(self) -> Self:
        if self.stations is None:
            return self
        if self.stations.latitude and not (self.latitude is None and self.longitude is None):
            raise ValueError("stations: the list has the places, and so has the source; keep one of them")
        if self.format != "netcdf" and STATION not in {*self.metadata, *self.constants, *self.named}:
            raise ValueError(f"stations: nothing tells a row's station; name its column under metadata.{STATION}")
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
        """The descriptive columns that the names of files and of wide columns give."""
        groups = [*(self.name.groupindex if self.name else ()), *(self.wide.groupindex if self.wide else ())]
        return tuple(group for group in groups if not (self.wide and group == "variable"))

    @property
    def has_places(self) -> bool:
        """Whether the files themselves, or the block, say where a row's place is."""
        return self.stations is None or self.stations.latitude is None

    @property
    def columns_of_metadata(self) -> dict[str, str]:
        return {name: described.column for name, described in self.metadata.items()}

    @property
    def reading(self) -> str:
        """A hash of all that decides what is read from a given file."""
        apart = dict.fromkeys([*SourceConfig.model_fields, "path", "settle", "when_removed"], True)
        said = self.model_dump_json(exclude=apart | {"stations": {"path"}}, exclude_defaults=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]
