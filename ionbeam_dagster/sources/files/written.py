"""How the times and the cells of files are written: the keys of `time` and `csv`.

Belongs here: what a person says of a text, and the checks of it that need no file. Does not belong here: which columns
are which (config.py).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ionbeam_dagster.domain.written_numbers import same_as_number, same_as_text
from ionbeam_dagster.settings import Settings

BLANKS, NO_QUOTES = "blanks", "none"


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


def no_truth(given: Any) -> Any:
    if isinstance(given, bool):
        raise ValueError(
            f"is {str(given).lower()} to YAML, as yes, no, on and off are without quotes; write it in quotes, as 'no'"
        )
    return given


Code = Annotated[str | float, BeforeValidator(no_truth), BeforeValidator(same_as_text)]
"""A text or a number that stands in cells, as it is written there."""
NoValue = Annotated[str | float, BeforeValidator(no_truth), BeforeValidator(same_as_number)]
"""A text or a number that stands in cells; a number however it is written there."""


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
    unit: Literal["s", "ms", "us", "ns", "excel"] | None = Field(
        default=None,
        description="Unit of times that are numbers since 1970; excel: days as spreadsheets count them (45352.5), by "
        "the clocks of `zone`.",
        examples=["ms"],
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


def _a_mark_or_none(quote: str) -> str:
    if quote != NO_QUOTES and (len(quote) != 1 or not quote.isascii()):
        raise ValueError(f'{quote!r} is not one character; right would be, for example, "\'" or {NO_QUOTES}')
    return quote


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
    quote: Annotated[str, AfterValidator(_a_mark_or_none)] = Field(
        default='"',
        description="Character around cells that hold a separator or a line break, or none: it means nothing then.",
        examples=["'", "none"],
    )
    ragged: bool = Field(
        default=False,
        description="Whether rows may lack cells at their end, which have no value then, or have empty ones behind "
        "those of the header; without it such rows are set aside.",
        examples=[True],
    )
    comment: str | None = Field(
        default=None, min_length=1, description="What lines begin with that are no rows.", examples=["#"]
    )
    encoding: Annotated[str, AfterValidator(_one_byte_newline)] = Field(
        default="utf-8", description="How text is encoded.", examples=["latin-1"]
    )
    decimal: Literal[".", ","] = Field(default=".", description="Character of the decimal point.")
    thousands: Literal[",", ".", "'", " "] | None = Field(
        default=None, description="Character between thousands, as in 1,013.2.", examples=[","]
    )
    missing: tuple[NoValue, ...] = Field(
        default=(), description="The same as `missing` of the source.", examples=[["-999"]]
    )

    @property
    def delimiter(self) -> str:
        return " " if self.separator == BLANKS else self.separator

    @property
    def mark(self) -> str | None:
        """The character of quotes; None: there are none."""
        return None if self.quote == NO_QUOTES else self.quote

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
        if self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; correct one of them")
        return self
