"""What was heard of the stations of a source in a week, hour by hour.

Belongs here: the sums of an hour's rows, and the week that holds them. Does not belong here: what follows from a week,
such as which stations fell silent (silence.py), which files the rows are in (pipeline/heard.py), or where a station is
and what it is called (stations.py).

An hour is always put in whole: whoever sums it again, because more came of it, or because he died before, puts the same
in the same place. Memory grows with the stations, and not with their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from ionbeam_dagster.domain.lateness import HISTORY
from ionbeam_dagster.domain.quality import Flag, Test
from ionbeam_dagster.domain.windows import DAY, HOUR, WEEK, window_of

STATION_KEY = "station"
TIME = "datetime"
NAMED, PLACE = pl.String(), pl.Float64()
_MOMENT = pl.Datetime("us", "UTC")
_STATIONS: dict[str, pl.DataType] = {
    STATION_KEY: NAMED, "first": _MOMENT, "last": _MOMENT, "lat": PLACE, "lon": PLACE, "learnt": pl.Float64(),
}  # fmt: skip
_NOTES: dict[str, pl.DataType] = {
    STATION_KEY: NAMED, "hour": _MOMENT, "kind": NAMED, "what": NAMED, "rows": pl.UInt32(),
}  # fmt: skip
_HOURLY: dict[str, pl.DataType] = {
    "rows": pl.UInt16(), "wait": pl.Float32(), "late": pl.UInt32(), "latest": pl.UInt32(), "judged": pl.UInt32(),
    "doubted": pl.UInt32(),
}  # fmt: skip
_OF_A_WEEK = "rows"
_MOST_ROWS = 65_535
_KEY = (STATION_KEY, "hour")
_JUDGED, _DOUBTED = [Flag.PASS, Flag.SUSPECT, Flag.FAIL], [Flag.SUSPECT, Flag.FAIL]
ASIDE, FAILED = "set aside", "failed"


def hour_of(moment: datetime) -> datetime:
    return window_of(moment, HOUR).start


def column(what: str, hour: datetime) -> str:
    """The name of the column of a week that has `what` of an hour."""
    return f"{what} {hour:%Y-%m-%dT%H}"


def sums_of(moments: pl.DataFrame) -> pl.DataFrame:
    """What rows say of each station, a row a station and hour; with ``station``, ``datetime``, ``lat``, ``lon`` and
    ``late`` (seconds from their time to their arrival; null: not known, or a backfill).

    ``rows`` counts different times, ``wait`` is the median of the seconds between two of them, ``late`` half of them
    arrived within, and ``latest`` all.
    """
    once = moments.group_by(STATION_KEY, TIME).agg(pl.col("late").min(), pl.col("lat", "lon").last())
    once = once.sort(STATION_KEY, TIME)
    within = pl.col(TIME).dt.truncate("1h")
    same = (pl.col(STATION_KEY) == pl.col(STATION_KEY).shift()) & (within == within.shift())
    waited = once.with_columns(
        within.alias("hour"), pl.when(same).then(pl.col(TIME).diff().dt.total_milliseconds() / 1e3).alias("wait")
    )
    return waited.group_by(STATION_KEY, "hour", maintain_order=True).agg(
        pl.len().clip(upper_bound=_MOST_ROWS).cast(pl.UInt16).alias("rows"),
        pl.col("wait").median().cast(pl.Float32),
        pl.col("late").median().cast(pl.UInt32),
        pl.col("late").max().cast(pl.UInt32).alias("latest"),
        pl.col(TIME).first().alias("first"),
        pl.col(TIME).last().alias("last"),
        pl.col("lat", "lon").last(),
    )


def seconds_late(arrived_at: datetime | None) -> pl.Expr:
    """How many seconds after its time a row arrived; null where that is not known, or the row is of long ago."""
    if arrived_at is None:
        return pl.lit(None, pl.UInt32)
    late = (pl.lit(arrived_at) - pl.col(TIME)).dt.total_seconds()
    return pl.when(late <= HISTORY.total_seconds()).then(late.clip(lower_bound=0)).cast(pl.UInt32)


def verdicts_of(rows: pl.DataFrame, verdicts: Sequence[tuple[str, str]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """How many values of each station and hour were ``judged`` and ``doubted``, and which tests (``what``) how many of
    these (``rows``) failed; of rows with ``station``, ``datetime``, and `verdicts`: the columns with a variable's flag
    and the tests that failed."""
    rows = rows.with_columns(pl.col(TIME).dt.truncate("1h").alias("hour"))
    judged = [pl.col(flag).is_in(_JUDGED).fill_null(False) for flag, _ in verdicts]
    doubted = [pl.col(flag).is_in(_DOUBTED).fill_null(False) for flag, _ in verdicts]
    counted = rows.with_columns(
        pl.sum_horizontal(pl.lit(0, pl.UInt32), *judged).alias("judged"),
        pl.sum_horizontal(pl.lit(0, pl.UInt32), *doubted).alias("doubted"),
    )
    sums = counted.group_by(_KEY).agg(pl.col("judged", "doubted").sum().cast(pl.UInt32))
    against = counted.filter(pl.col("doubted") > 0)
    failed = [pl.DataFrame(schema={name: _NOTES[name] for name in (*_KEY, "what", "rows")})]
    for flag, tests in verdicts:
        of_it = against.filter(pl.col(flag).is_in(_DOUBTED)).group_by(*_KEY, pl.col(tests).fill_null(0).alias("mask"))
        by_mask = of_it.agg(pl.len().cast(pl.UInt32).alias("rows"))
        for test in Test:
            failing = by_mask.filter(pl.col("mask") & int(test) > 0)
            if failing.height and test.name:
                failed.append(failing.select(*_KEY, pl.lit(test.name.lower()).alias("what"), "rows"))
    return sums, pl.concat(failed).group_by(*_KEY, "what").agg(pl.col("rows").sum())


@dataclass(slots=True)
class Week:
    """What was heard of a source.

    `stations` has a row a station: ``first`` and ``last`` heard, the place where, ``learnt`` (seconds: its usual
    interval, as it was known last), and a column for each hour, as `column` calls them: ``rows`` of a week, the others
    of a day. `notes` has which tests values failed, and why rows were set aside, of a day. `mark` is the number of the
    ledger's feed up to which it was looked, `due` and `unjudged` the hours that are still to be summed, `reached` the
    end of what was collected, and `missed` counts files that were gone or damaged.
    """

    stations: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_STATIONS))
    notes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_NOTES))
    mark: int = 0
    due: set[datetime] = field(default_factory=set)
    unjudged: set[datetime] = field(default_factory=set)
    reached: datetime | None = None
    missed: int = 0

    def hear(self, hours: Iterable[datetime], sums: pl.DataFrame, aside: pl.DataFrame) -> None:
        """Put `sums` (of `sums_of`) in the place of what was known of these hours, and the rows of them that were set
        `aside` (``station``, ``hour``, ``what``, ``rows``); of other hours, `sums` say when and where a station was
        heard."""
        hours = set(hours)
        self._take_up(sums, aside)
        by_hour = sums.partition_by("hour", as_dict=True)
        for hour in hours:
            self._put(hour, by_hour.get((hour,), sums.clear()), ("rows", "wait", "late", "latest"))
        news = sums.group_by(STATION_KEY).agg(
            pl.col("first").min(), pl.col("last").max(), pl.col("lat", "lon").sort_by("last").last()
        )  # fmt: skip
        known = self.stations.select(STATION_KEY).join(news, on=STATION_KEY, how="left", maintain_order="left")
        later = (known["last"] >= self.stations["last"]).fill_null(True) & known["last"].is_not_null()
        self.stations = self.stations.with_columns(
            pl.min_horizontal(self.stations["first"], known["first"]),
            pl.max_horizontal(self.stations["last"], known["last"]),
            known["lat"].zip_with(later, self.stations["lat"]),
            known["lon"].zip_with(later, self.stations["lon"]),
        )
        self._note(ASIDE, hours, aside)

    def judge(self, hours: Iterable[datetime], sums: pl.DataFrame, failed: pl.DataFrame) -> None:
        """Put verdicts (of `verdicts_of`) in the place of those of these hours, of stations that were heard."""
        hours = set(hours)
        by_hour = sums.partition_by("hour", as_dict=True)
        for hour in hours:
            self._put(hour, by_hour.get((hour,), sums.clear()), ("judged", "doubted"))
        self._note(FAILED, hours, failed.join(self.stations.select(STATION_KEY), on=STATION_KEY, how="semi"))

    def forget(self, until: datetime) -> None:
        """Let go what is older than a week, and a day, before `until`, and stations of which nothing is left."""
        week, day = hour_of(until - WEEK), hour_of(until - DAY)
        kept = {column(_OF_A_WEEK, hour) for hour in _hours(week, until + WEEK)}
        kept |= {column(what, hour) for hour in _hours(day, until + WEEK) for what in _HOURLY if what != _OF_A_WEEK}
        gone = [name for name in self.stations.columns if name not in kept | {*_STATIONS}]
        if waits := [self.stations[name] for name in gone if name.startswith("wait ")]:
            usual = quantile_of(waits, 0.5).alias("usual")
            self.stations = self.stations.with_columns(pl.coalesce("learnt", usual).alias("learnt"))
        self.stations = self.stations.drop(gone)
        self.stations = self.stations.filter(pl.col("last").is_null() | (pl.col("last") >= week))
        self.notes = self.notes.filter(pl.col("hour") >= day)
        unheard = self.stations.filter(pl.col("last").is_null()).select(STATION_KEY)
        unknown = unheard.join(self.notes, on=STATION_KEY, how="anti")
        self.stations = self.stations.join(unknown, on=STATION_KEY, how="anti", maintain_order="left")
        self.due = {hour for hour in self.due if hour >= week}
        self.unjudged = {hour for hour in self.unjudged if hour >= day}

    def rows(self, hour: datetime) -> int:
        """How many rows of an hour are known, of all stations."""
        return int(self.values("rows", hour).cast(pl.Int64).sum())

    def values(self, what: str, hour: datetime) -> pl.Series:
        """`what` of an hour, a value a station; null where nothing was heard."""
        name = column(what, hour)
        if name in self.stations.columns:
            return self.stations[name]
        return pl.Series(name, [None], _HOURLY[what]).new_from_index(0, self.stations.height)

    def _take_up(self, *tables: pl.DataFrame) -> None:
        """Give stations that were not heard before their rows."""
        names = pl.concat(table.select(STATION_KEY) for table in tables).unique(maintain_order=True)
        new = names.join(self.stations.select(STATION_KEY), on=STATION_KEY, how="anti", maintain_order="left")
        if new.height:
            self.stations = pl.concat([self.stations, new], how="diagonal")

    def _put(self, hour: datetime, sums: pl.DataFrame, names: Sequence[str]) -> None:
        heard = self.stations.select(STATION_KEY)
        found = heard.join(sums.select(STATION_KEY, *names), on=STATION_KEY, how="left", maintain_order="left")
        made = []
        for name in names:
            new = found[name].cast(_HOURLY[name])
            if name in ("late", "latest"):  # what is given again was there before
                before = self.values(name, hour)
                new = pl.select(pl.min_horizontal(new, pl.when(new.is_not_null()).then(before))).to_series()
            made.append(new.alias(column(name, hour)))
        self.stations = self.stations.with_columns(made)

    def _note(self, kind: str, hours: set[datetime], news: pl.DataFrame) -> None:
        others = self.notes.filter((pl.col("kind") != kind) | ~pl.col("hour").is_in(list(hours)))
        within = news.filter(pl.col("hour").is_in(list(hours))).with_columns(pl.lit(kind).alias("kind"))
        self.notes = pl.concat([others, within.select(pl.col(name).cast(type) for name, type in _NOTES.items())])


def quantile_of(columns: Sequence[pl.Series], share: float) -> pl.Series:
    """Station by station, the least of its values that `share` of them do not exceed; null where there is none."""
    values = np.full((len(columns[0]), len(columns)), np.inf, np.float32)
    for place, one in enumerate(columns):
        values[:, place] = one.cast(pl.Float32).fill_null(np.inf).to_numpy()
    values.sort(axis=1)
    number = np.isfinite(values).sum(axis=1)
    chosen = values[np.arange(len(values)), np.maximum(np.ceil(number * share).astype(int) - 1, 0)]
    return pl.Series(chosen.astype(np.float64)).replace(np.inf, None)


def _hours(start: datetime, end: datetime) -> list[datetime]:
    return [start + number * HOUR for number in range((end - start) // timedelta(hours=1) + 1)]
