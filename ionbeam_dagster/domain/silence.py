"""Which stations fell silent, and how much of each came: what follows from a week of a source.

Belongs here: how often a station is expected, and what is said of it. Does not belong here: what was heard (heard.py).

How often a station comes is learnt: it is the median of the times between two of its rows. One is silent when nothing
has come of it for an hour, for three times as long as it usually takes, and for longer than it paused in the week
before. Hours in which nothing came of any station do not count: then the source is silent, and not its stations.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ionbeam_dagster.domain.heard import ASIDE, FAILED, STATION_KEY, Week, hour_of, quantile_of
from ionbeam_dagster.domain.windows import DAY, EPOCH, HOUR, WEEK

_SILENT_AFTER = 3
"""Intervals without a row after which a station is silent."""
_LEARNT = 3
"""Rows from which on an interval is learnt."""
_TESTS_NAMED = 3
_Counts = npt.NDArray[Any]
"""By hour and station."""
_SECONDS = HOUR.total_seconds()


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be told of a source up to `until`.

    `stations` has a row each, in order of ``station``: ``lat``, ``lon``, ``last`` (heard), ``interval`` (usual; null:
    too few rows), ``completeness`` and ``completeness_week`` (0..1, of the rows that were expected since the full hour
    a day, and a week, before), ``late`` and ``latest`` (within which half of its rows arrived, and all of 19 hours of
    20), ``flagged`` (share of a day's judged values that are doubted, null where none was) and by which ``tests``, rows
    ``set_aside`` in a day and ``why``, and whether it is ``silent``.

    `hours` has a row an hour of the week: ``hour``, ``rows``, ``stations`` that were heard, and ``late`` and ``latest``
    (seconds, the median over the stations, and what 95 % of them keep; null before the last day). `tests` and `aside`
    have what values failed, and why rows were set aside, in a day: ``what`` and ``rows``, the most frequent first.
    `judged` and `doubted` count values of a day.
    """

    until: datetime
    stations: pl.DataFrame
    hours: pl.DataFrame
    tests: pl.DataFrame
    aside: pl.DataFrame
    judged: int
    doubted: int

    @property
    def heard(self) -> int:
        """How many stations were heard: of others all rows were set aside."""
        return self.stations.height - self.stations["last"].null_count()

    @property
    def silent(self) -> pl.DataFrame:
        """The stations that fell silent, the first of them first."""
        return self.stations.filter("silent").sort("last", STATION_KEY)


def told(week: Week, until: datetime) -> Told:
    """What follows from `week`, in which it is `until`; what is learnt of intervals is left in the week."""
    first = hour_of(until - WEEK)
    hours = [first + number * HOUR for number in range((until - first) // HOUR + 1)]
    if hours[-1] == until:
        hours.pop()
    day = [hour for hour in hours if hour >= hour_of(until - DAY)]
    counts = np.empty((len(hours), week.stations.height), np.uint16)
    for place, hour in enumerate(hours):
        counts[place] = week.values("rows", hour).fill_null(0).to_numpy()
    known = week.stations.select(STATION_KEY, "lat", "lon", "first", "last", "learnt").with_columns(
        *_sums(counts, len(day)), _learnt(week, counts, day).alias("new")
    )
    known = known.with_columns(pl.coalesce("new", "learnt").alias("learnt"))
    week.stations = week.stations.with_columns(known["learnt"])
    paused, idle = _pauses(counts, known["last"], hours, until)
    quiet = (pl.lit(until) - pl.col("last")).dt.total_seconds() - pl.Series("idle", idle) * _SECONDS
    allowed = pl.max_horizontal(
        pl.lit(_SECONDS), _SILENT_AFTER * pl.col("learnt"), pl.Series("paused", paused) * _SECONDS
    )
    late, latest = _usual(week, "late", day, 0.5), _usual(week, "latest", day, 0.95)
    judged, doubted = (_total(week, what, day) for what in ("judged", "doubted"))
    tests, aside = _by_station(week, FAILED, judged), _by_station(week, ASIDE, None)
    stations = (
        known.with_columns(
            pl.duration(seconds=pl.lit(late).cast(pl.Int64)).alias("late"),
            pl.duration(seconds=pl.lit(latest).cast(pl.Int64)).alias("latest"),
            judged.alias("judged"),
            doubted.alias("doubted"),
            ((quiet > allowed) & pl.col("learnt").is_not_null()).fill_null(False).alias("silent"),
        )
        .join(tests.select(STATION_KEY, pl.col("said").alias("tests")), on=STATION_KEY, how="left")
        .join(
            aside.select(STATION_KEY, pl.col("rows").alias("set_aside"), pl.col("said").alias("why")),
            on=STATION_KEY, how="left",
        )
    )  # fmt: skip
    return Told(
        until,
        stations.select(
            STATION_KEY, "lat", "lon", "last",
            pl.duration(milliseconds=(pl.col("learnt") * 1e3).round().cast(pl.Int64)).alias("interval"),
            _share("day", day[0], until).alias("completeness"),
            _share("week", hours[0], until).alias("completeness_week"),
            "late", "latest",
            pl.when(pl.col("judged") > 0).then(pl.col("doubted") / pl.col("judged")).alias("flagged"),
            "tests", pl.col("set_aside").fill_null(0), "why", "silent",
        ).sort(STATION_KEY),
        _curve(week, counts, hours, set(day)),
        _by_what(week, FAILED),
        _by_what(week, ASIDE),
        int(judged.sum()),
        int(doubted.sum()),
    )  # fmt: skip


def _sums(counts: _Counts, hours: int) -> tuple[pl.Series, pl.Series]:
    day, week = (part.sum(axis=0, dtype=np.uint32) for part in (counts[-hours:], counts))
    return pl.Series("day", day), pl.Series("week", week)


def _share(rows: str, start: datetime, until: datetime) -> pl.Expr:
    """The share of what was expected of a station since `start`, or since it was first heard, if that was later."""
    begun = pl.max_horizontal(pl.col("first"), pl.lit(start))
    expected = (pl.lit(until) - begun).dt.total_seconds() / pl.col("learnt")
    return (pl.col(rows) / pl.max_horizontal(expected, pl.lit(1.0))).clip(0, 1)


def _learnt(week: Week, counts: _Counts, day: list[datetime]) -> pl.Series:
    """Seconds between two rows of each station, null where it came too seldom: the median of its hours' medians; of
    those that come once an hour or more seldom, of the hours between two of theirs."""
    usual = _usual(week, "wait", day, 0.5)
    enough = counts.sum(axis=0, dtype=np.uint32) >= _LEARNT
    seldom = np.flatnonzero(enough & usual.is_null().to_numpy())
    station, hour = np.nonzero(counts[:, seldom].T)
    apart = pl.DataFrame({"place": seldom[station].astype(np.int64), "hour": hour.astype(np.int64)}).with_columns(
        pl.col("hour").diff().over("place").alias("apart")
    )
    medians = apart.drop_nulls("apart").group_by("place").agg(pl.col("apart").median() * _SECONDS)
    places = pl.DataFrame({"place": np.arange(counts.shape[1], dtype=np.int64)})
    slow = places.join(medians, on="place", how="left", maintain_order="left")["apart"]
    found = pl.select(pl.coalesce(usual, slow)).to_series()
    return found.zip_with(pl.Series(enough), pl.Series([None], dtype=pl.Float64).new_from_index(0, len(found)))


def _pauses(counts: _Counts, last: pl.Series, hours: list[datetime], until: datetime) -> tuple[_Counts, _Counts]:
    """Of each station for how many hours it may have paused at most, before it was heard last; and how many hours
    behind that had nothing of any station."""
    heard = counts > 0
    active: npt.NDArray[np.bool_] = np.any(heard, axis=1)
    run, longest = (np.zeros(counts.shape[1], np.int16) for _ in range(2))
    seen = np.zeros(counts.shape[1], bool)
    for place in range(len(hours)):
        now = heard[place]
        longest = np.where(now & seen, np.maximum(longest, run), longest)
        run = np.where(now, 0, run + active[place]).astype(np.int16)
        seen |= now
    whole = [not active[place] and hour + HOUR <= until for place, hour in enumerate(hours)]
    behind = np.concatenate([np.cumsum(whole[::-1])[::-1], [0]])
    since = ((last.fill_null(EPOCH) - hours[0]).dt.total_seconds() // _SECONDS + 1).clip(0, len(hours)).cast(pl.Int64)
    return np.where(longest > 0, longest + 1, 0), behind[since.to_numpy()]


def _usual(week: Week, what: str, day: list[datetime], share: float) -> pl.Series:
    return quantile_of([week.values(what, hour) for hour in day], share)


def _total(week: Week, what: str, day: list[datetime]) -> pl.Series:
    sums = pl.DataFrame([week.values(what, hour).alias(str(place)) for place, hour in enumerate(day)])
    return sums.select(pl.sum_horizontal(pl.all().fill_null(0)).alias(what)).to_series()


def _by_station(week: Week, kind: str, judged: pl.Series | None) -> pl.DataFrame:
    """A row a station with notes of `kind`: their ``rows``, and the most frequent, as ``said`` in words."""
    notes = week.notes.filter(pl.col("kind") == kind).group_by(STATION_KEY, "what").agg(pl.col("rows").sum())
    share = pl.col("rows").cast(pl.String)
    if judged is not None:
        of = week.stations.select(STATION_KEY, judged.alias("judged"))
        notes = notes.join(of, on=STATION_KEY, how="left")
        share = pl.format("{} %", (100 * pl.col("rows") / pl.col("judged")).round().fill_null(0).cast(pl.Int64))
    said = pl.format("{} {}", pl.col("what").str.replace_all("_", " ", literal=True), share)
    ordered = notes.with_columns(said.alias("said")).sort(STATION_KEY, "rows", "what", descending=[False, True, False])
    return ordered.group_by(STATION_KEY).agg(pl.col("rows").sum(), pl.col("said").head(_TESTS_NAMED).str.join(", "))


def _by_what(week: Week, kind: str) -> pl.DataFrame:
    notes = week.notes.filter(pl.col("kind") == kind).group_by("what").agg(pl.col("rows").sum())
    return notes.sort("rows", "what", descending=[True, False])


def _curve(week: Week, counts: _Counts, hours: list[datetime], day: set[datetime]) -> pl.DataFrame:
    lates = [week.values("late", hour) if hour in day else None for hour in hours]
    latests = [week.values("latest", hour) if hour in day else None for hour in hours]
    return pl.DataFrame(
        {
            "hour": hours,
            "rows": counts.sum(axis=1, dtype=np.int64),
            "stations": (counts > 0).sum(axis=1),
            "late": [None if one is None else one.median() for one in lates],
            "latest": [None if one is None else one.quantile(0.95, "nearest") for one in latests],
        },
        schema_overrides={"hour": pl.Datetime("us", "UTC"), "late": pl.Float64, "latest": pl.Float64},
    )
