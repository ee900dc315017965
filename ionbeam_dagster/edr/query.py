"""What is asked of a collection, and the rows that answer it.

Belongs here: `Query`, its bounds, and `Rows`. Does not belong here: how a request is read (requests.py), or how rows
are found (search.py, pages.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from ionbeam_dagster.edr.crs import CRS84, Crs
from ionbeam_dagster.edr.parameters import Parameter
from ionbeam_dagster.edr.regions import Region


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one query may read: rows that it gives, files that it opens, seconds that it takes."""

    rows: int = 100_000
    files: int = 5_000
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Before:
    """Where an answer goes on that gave the newest: what is earlier than `moment`, and of that moment itself what is at
    locations behind `location` in the order of texts; nothing of it without one."""

    moment: int
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a collection. Times are microseconds since 1970, both ends included; None leaves a side open.

    `parameters` and `locations` are ids, None for all. `described` asks for every metadata column, `newest_day` for no
    more than the newest 24 hours.
    """

    start: int | None = None
    end: int | None = None
    region: Region | None = None
    locations: tuple[str, ...] | None = None
    parameters: tuple[str, ...] | None = None
    nearest: bool = False
    described: bool = False
    newest_day: bool = False
    before: Before | None = None
    bounds: Bounds = Bounds()


@dataclass(slots=True)
class Rows:
    """Observations ordered by location and time: ``datetime`` (int64, us), ``lon``, ``lat``, ``location``, the metadata
    columns, and one column a parameter, by its id. `notes` say what the rows leave out, and why."""

    table: pa.Table
    parameters: dict[str, Parameter]
    notes: list[str] = field(default_factory=list)
    crs: Crs = CRS84
    """In which the places are to be told; those of `table` are longitude and latitude in any case."""
    more: Before | None = None
    """Where it goes on, if a bound was reached."""
    since: int | None = None
    """Where the newest 24 hours begin, if no time was asked for."""
