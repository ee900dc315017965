"""What was heard of a source and of its stations, in words: for the command line, the page and the daily report.

Belongs here: what each number is called, and how it is written. Does not belong here: what is silent
(domain/silence.py), or HTML, Markdown and colours, which each of the three has of its own; everything from outside is
still as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import polars as pl

from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.domain.times import in_short
from ionbeam_dagster.pipeline.lately import Lately

_NAMED = 5
OF_A_STATION = ("station", "last heard", "usually every", "of a day", "of a week", "late", "doubted", "set aside")


def of_a_station(row: dict[str, Any]) -> list[str]:
    """A row of `Told.stations`, a cell for each of OF_A_STATION; what is not known is empty."""
    return [
        row["station"],
        "never" if row["last"] is None else f"{row['last']:%Y-%m-%d %H:%M}",
        _duration(row["interval"]),
        _share(row["completeness"]),
        _share(row["completeness_week"]),
        _duration(row["latest"]),
        _share(row["flagged"]) + (f" ({row['tests']})" if row["tests"] else ""),
        f"{row['set_aside']:,} ({row['why']})" if row["set_aside"] else "",
    ]


def rows_of_a_day(source: Lately) -> str:
    return f"{source.rows:,} rows of a day; {source.set_aside:,} set aside, whole or a value of them"


def percent(share: float) -> str:
    """Rounded, but never to 100% or 0% where that is not so."""
    shown = f"{share:.1%}"
    if shown == "100.0%":
        return "100%" if share == 1 else ">99.9%"
    return shown if shown != "0.0%" or share == 0 else "<0.1%"


def how_late(source: Lately) -> str:
    """Empty where it is not known."""
    if source.late is None or source.latest is None:
        return ""
    return f"half of it comes {in_short(source.late)} late at most, 95 % of it {in_short(source.latest)}"


def doubted(found: Told) -> str:
    return f"{found.doubted / max(found.judged, 1):.1%}"


def failed_tests(found: Told) -> str:
    """The tests that doubt most, each with its share of the values that were judged, behind a colon."""
    return _most(found.tests, lambda rows: f"{rows / found.judged:.1%}")


def named(counted: pl.DataFrame) -> str:
    """The most frequent of what was counted, behind a colon."""
    return _most(counted, lambda rows: f"({rows:,})")


def _most(counted: pl.DataFrame, how_many: Callable[[int], str]) -> str:
    told = [f"{what.replace('_', ' ')} {how_many(rows)}" for what, rows in counted.head(_NAMED).iter_rows()]
    return f": {', '.join(told)}" if told else ""


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _duration(duration: timedelta | None) -> str:
    return "" if duration is None else in_short(duration)
