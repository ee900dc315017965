"""What was heard of stations, on disk: a week of each source, and what is told of it.

Belongs here: where both lie, how they are read and written. Does not belong here: what is in them (domain/heard.py,
domain/silence.py), or what is looked at to bring them up to date (pipeline/heard.py).

    <state>/heard/<source>.week.parquet    the week; its footer says up to which number of the ledger's feed
    <state>/heard/<source>.notes.parquet   why rows were set aside, and which tests failed; written before the week
    <state>/heard/<source>.told.parquet    what people are told
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from ionbeam_dagster.domain.heard import Week
from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file
from ionbeam_dagster.stores.files import Files, Found
from ionbeam_dagster.stores.tables import read_table, write_table

_MADE_AGAIN = (*UNREADABLE, LookupError, TypeError, ValueError)
_COUNTED = {"what": pl.String, "rows": pl.UInt32}
_HOURS = {"hour": pl.Int64, "rows": pl.Int64, "stations": pl.Int64, "late": pl.Float64, "latest": pl.Float64}


class HeardStore:
    """Weeks of sources, and what is told of them; what is damaged or gone is made again from the raw partitions."""

    def __init__(self, files: Files, state: Path) -> None:
        self._files = files
        self._root = state / "heard"

    def week(self, source: str) -> Week:
        """The week of a source; an empty one, where nothing was looked at yet, or a file is damaged."""
        try:
            stations, told = self._read(source, "week")
            notes, _ = self._read(source, "notes")
            due, unjudged = ({datetime.fromisoformat(one) for one in told[name]} for name in ("due", "unjudged"))
            reached = None if told["reached"] is None else datetime.fromisoformat(told["reached"])
            return Week(stations, notes, told["mark"], due, unjudged, reached, told["missed"])
        except _MADE_AGAIN as error:
            _unless_away(error)
            return Week()

    def keep_week(self, source: str, week: Week) -> None:
        self._write(source, "notes", week.notes, {})
        about = {
            "mark": week.mark,
            "due": sorted(hour.isoformat() for hour in week.due),
            "unjudged": sorted(hour.isoformat() for hour in week.unjudged),
            "reached": None if week.reached is None else week.reached.isoformat(),
            "missed": week.missed,
        }
        self._write(source, "week", week.stations, about)

    def told(self, source: str) -> Told | None:
        """What is told of a source; None, where nothing was heard of it yet, or the file is damaged."""
        try:
            stations, told = self._read(source, "told")
            hours = pl.DataFrame(told["hours"], schema=_HOURS, orient="row")
            tests, aside = (pl.DataFrame(told[name], schema=_COUNTED, orient="row") for name in ("tests", "aside"))
            hours = hours.with_columns(pl.col("hour").cast(pl.Datetime("us", "UTC")))
            until = datetime.fromisoformat(told["until"])
            return Told(until, stations, hours, tests, aside, told["judged"], told["doubted"])
        except _MADE_AGAIN as error:
            _unless_away(error)
            return None

    def stamp(self, source: str) -> Found | None:
        """By which it is seen that other things are told of a source than before; None where nothing is."""
        return self._files.found(self._location(source, "told"))

    def keep_told(self, source: str, told: Told) -> None:
        about = {
            "until": told.until.isoformat(),
            "judged": told.judged,
            "doubted": told.doubted,
            "hours": told.hours.with_columns(pl.col("hour").dt.epoch("us")).rows(),
            "tests": told.tests.rows(),
            "aside": told.aside.rows(),
        }
        self._write(source, "told", told.stations, about)

    def _read(self, source: str, what: str) -> tuple[pl.DataFrame, dict[str, Any]]:
        with self._files.fetched(self._location(source, what)) as file:
            return read_table(file)

    def _write(self, source: str, what: str, table: pl.DataFrame, about: Mapping[str, Any]) -> None:
        with self._files.published(self._location(source, what)) as draft:
            write_table(draft, table, about)

    def _location(self, source: str, what: str) -> str:
        return str(self._root / f"{source}.{what}.parquet")


def _unless_away(error: BaseException) -> None:
    """Raise what says that a file which is there cannot be got at: made anew, it would forget what it holds."""
    if not (isinstance(error, FileNotFoundError) or is_of_the_file(error)):
        raise error
