"""What both forms of a station's log have: rows of a measurement, a time, tags and fields, found by their names.

Belongs here: which names mean a column, and the log's own time. Does not belong here: how the rows are written
(json_lines.py, annotated_csv.py), or the logger itself (ionbeam_client.influx).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ionbeam_dagster.sources.files.readers import Layout, Unreadable, listed, near_names
from ionbeam_dagster.sources.files.text_lines import LineReader
from ionbeam_dagster.sources.files.written import TimeColumn

TIME, MEASUREMENT = "timestamp", "measurement"
UTC_TIME = pl.Datetime("us", "UTC")


class Meaning(NamedTuple):
    """A field or tag; of one measurement, or (None) of any."""

    measurement: str | None
    name: str


def meanings(column: str) -> list[Meaning]:
    """What `column` may mean: ``temperature``, or ``weather.temperature`` for that of one measurement."""
    dots = [place for place, sign in enumerate(column) if sign == "."]
    return [Meaning(None, column), *(Meaning(column[:dot], column[dot + 1 :]) for dot in dots)]


class LogReader(LineReader):
    """A log of lines. Its columns are ``timestamp``, ``measurement``, and the fields and tags by name."""

    def layout(self, path: Path) -> Layout:
        found = super().layout(path)
        return found if self.config.time.column or self.config.time.columns else replace(found, times=(TIME,))

    @property
    def has_own_time(self) -> bool:
        """Whether the time is the log's, which needs no description."""
        return self.config.time.model_copy(update={"zone": "UTC"}) == TimeColumn()

    def named(self, path: Path) -> list[str]:
        """The columns that a file must have, but for those that every row of a log has."""
        return [column for column in self.wanted(path) if column not in (TIME, MEASUREMENT)]


def refuse_missing(missing: list[str], found: list[str]) -> None:
    """Raise Unreadable where names are missing in a file."""
    if missing:
        raise Unreadable(
            f"no row has {listed(missing)}; it has {listed(found)}{near_names(missing, found)}; correct the YAML, or "
            "say `optional: true` of variables that some files lack"
        )


def moments(nanoseconds: pl.Series) -> pl.Series:
    """Times from whole ns since 1970."""
    return (nanoseconds // 1000).cast(UTC_TIME)
