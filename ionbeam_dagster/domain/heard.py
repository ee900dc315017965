"""What was heard of stations: how often each is expected, how much of that came, and which of them fell silent.

Belongs here: pure sums over rows of canonical windows, in order of time. Does not belong here: which files the rows are
in (pipeline/heard.py), or where a station is and what it is called (stations.py).

The expected interval is learnt: it is the median of the times between two rows of a station. Memory grows with the
stations, and not with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from ionbeam_dagster.domain.quality import Flag

TIME = "datetime"
_SILENT_AFTER = 3
"""Intervals without a row after which a station is silent; one that was away for longer before is given as long."""
_LEARNT = 3
"""Rows from which on an interval is learnt."""


class Heard:
    """Takes windows in order of time, and says what was heard of each station.

    `key` names the columns that tell stations apart, `flags` those of quality control's verdicts.
    """

    def __init__(self, key: Sequence[str], flags: Sequence[str]) -> None:
        self._key, self._flags = list(key), list(flags)
        self._stations: pl.DataFrame | None = None
        self._waits: pl.DataFrame | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Add the rows of one window: the key, ``datetime`` and the flags that it has."""
        flags = [pl.col(name) for name in self._flags if name in rows.columns]
        judged = [flag.is_in([Flag.PASS, Flag.SUSPECT, Flag.FAIL]).fill_null(False) for flag in flags]
        doubted = [flag.is_in([Flag.SUSPECT, Flag.FAIL]).fill_null(False) for flag in flags]
        counted = rows.with_columns(
            pl.sum_horizontal(pl.lit(0), *judged).alias("judged"),
            pl.sum_horizontal(pl.lit(0), *doubted).alias("doubted"),
        )
        moments = counted.group_by(*self._key, TIME).agg(pl.col("judged", "doubted").sum()).sort(*self._key, TIME)
        if self._stations is not None:
            before = self._stations.select(*self._key, pl.col("last").alias("before"))
            moments = moments.join(before, on=self._key, how="left", nulls_equal=True)
        else:
            moments = moments.with_columns(pl.lit(None, rows.schema[TIME]).alias("before"))
        previous = pl.col(TIME).shift().over(self._key).fill_null(pl.col("before"))
        waited = moments.select(*self._key, (pl.col(TIME) - previous).dt.total_seconds().alias("wait"))
        waits = waited.filter(pl.col("wait") > 0).with_columns(_two_digits(pl.col("wait")))
        self._waits = _summed(self._waits, waits.group_by(*self._key, "wait").agg(pl.len().alias("times")), self._key)
        news = moments.group_by(self._key).agg(
            pl.len().alias("times"),
            pl.col(TIME).max().alias("last"),
            pl.col("judged", "doubted").sum(),
        )
        both = news if self._stations is None else pl.concat([self._stations, news], how="diagonal_relaxed")
        self._stations = both.group_by(self._key).agg(
            pl.col("times").sum(), pl.col("last").max(), pl.col("judged", "doubted").sum()
        )

    def told(self, start: datetime, until: datetime) -> pl.DataFrame:
        """A row a station, in order of its key: ``last``, ``interval`` (null: too few rows), ``completeness`` of
        [start, until) (0..1), ``flagged`` (share of the judged values, null where none was), ``silent``."""
        if self._stations is None or self._waits is None:
            return pl.DataFrame()
        waits = self._waits.sort(*self._key, "wait").with_columns(
            pl.col("times").cum_sum().over(self._key).alias("reached"),
            pl.col("times").sum().over(self._key).alias("all"),
        )
        usual = waits.group_by(self._key).agg(
            pl.col("wait").filter(2 * pl.col("reached") >= pl.col("all")).min().alias("wait"),
            pl.col("wait").max().alias("longest"),
            pl.col("all").first(),
        )
        learnt = usual.filter(pl.col("all") >= _LEARNT - 1)
        told = self._stations.join(learnt, on=self._key, how="left", nulls_equal=True)
        quiet = (pl.lit(until) - pl.col("last")).dt.total_seconds()
        expected = pl.lit((until - start) / timedelta(seconds=1)) / pl.col("wait")
        return told.select(
            *self._key,
            "last",
            pl.duration(seconds=pl.col("wait")).alias("interval"),
            (pl.col("times") / expected).clip(0, 1).alias("completeness"),
            pl.when(pl.col("judged") > 0).then(pl.col("doubted") / pl.col("judged")).alias("flagged"),
            ((quiet > _SILENT_AFTER * pl.col("wait")) & (quiet > pl.col("longest"))).fill_null(False).alias("silent"),
        ).sort(self._key)


def _two_digits(seconds: pl.Expr) -> pl.Expr:
    """Rounded up to two digits, so that a station has few different waits."""
    unit = pl.lit(10.0).pow((seconds.cast(pl.Float64).log10().floor() - 1).clip(lower_bound=0))
    return ((seconds / unit).ceil() * unit).cast(pl.Int64)


def _summed(known: pl.DataFrame | None, news: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    both = news if known is None else pl.concat([known, news], how="diagonal_relaxed")
    return both.group_by(*key, "wait").agg(pl.col("times").sum())
