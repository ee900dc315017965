"""What an assimilation made of observations, as its feedback ODB tells: departures and status, by station and varno.

Belongs here: reading such a file, and which of our stations a `statid` is. Does not belong here: our own flags of the
same observations (pipeline), or how it is shown (cli).

`fg_depar` is the observation less the model's first guess, `an_depar` less the analysis (ECMWF's governance of ODB
columns); `datum_status` says what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ionbeam_dagster.errors import UnknownFile
from ionbeam_dagster.exporters.odb.tables import STATUS_BITS

GROUP = "statid", "varno"
_NEEDED = ("statid@hdr", "varno@body", "date@hdr", "time@hdr", "fg_depar@body", "datum_status@body")
_AN = "an_depar@body"
_STATUSES = STATUS_BITS[:4]


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a feedback file tells, and of which time (UTC, both ends count).

    `table`: a row for each `statid` and `varno` with the number of `values`, the shares (0 to 1) that were `active`,
    `passive`, `rejected` and `blacklisted`, how many have a departure (`departures`), and of these the mean and the
    standard deviation of observation less first guess (`fg_bias`, `fg_sd`) and less analysis (`an_bias`, `an_sd`), in
    the unit of the varno.
    """

    first: datetime
    last: datetime
    table: pl.DataFrame


def read_feedback(path: Path) -> Feedback:
    """Read a feedback file frame by frame, so that memory does not grow with it.

    Raises UnknownFile where it is no ODB, or has no departures.
    """
    import codc
    from codc.lib import lib

    lib.odc_integer_behaviour(lib.ODC_INTEGERS_AS_LONGS)
    sums: pl.DataFrame | None = None
    try:
        reader = codc.Reader(str(path), aggregated=False)  # its frames do not outlive it
        for frame in reader.frames:
            there = {column.name for column in frame.columns}
            if lacking := [name for name in _NEEDED if name not in there]:
                raise UnknownFile(
                    f"{path}: is no feedback, as it lacks {', '.join(lacking)}; give a file that the "
                    "assimilation wrote (MARS type OFB), not one that goes into it"
                )
            columns = [*_NEEDED, *([_AN] if _AN in there else [])]
            more = _summed(pl.from_pandas(frame.dataframe(columns)).select(columns))
            sums = more if sums is None else _together([sums, more])
    except (codc.ODCException, OSError) as error:
        raise UnknownFile(f"{path}: cannot be read as ODB-2 ({error})") from error
    if sums is None:
        raise UnknownFile(f"{path}: has no rows")
    first, last = sums["first"].min(), sums["last"].max()
    return Feedback(_moment(first), _moment(last), _means(sums))


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.rename(lambda name: name.partition("@")[0])
    if "an_depar" not in rows.columns:
        rows = rows.with_columns(an_depar=pl.lit(None, pl.Float64))
    status = pl.col("datum_status").cast(pl.Int64)
    at = pl.col("date").cast(pl.Int64) * 1_000_000 + pl.col("time").cast(pl.Int64)
    sums = [pl.len().alias("values"), at.min().alias("first"), at.max().alias("last")]
    sums += [((status // 2**bit) % 2).sum().alias(name) for bit, name in enumerate(_STATUSES)]
    for kind in ("fg", "an"):
        departure = pl.col(f"{kind}_depar").cast(pl.Float64).fill_nan(None)
        sums += [departure.count().alias(f"{kind}_n"), departure.sum().alias(f"{kind}_1")]
        sums.append((departure**2).sum().alias(f"{kind}_2"))
    statid = pl.col("statid").cast(pl.String).str.strip_chars()
    return rows.group_by(statid, pl.col("varno").cast(pl.Int64)).agg(sums)


def _together(sums: Sequence[pl.DataFrame]) -> pl.DataFrame:
    ends = pl.col("first").min(), pl.col("last").max()
    return pl.concat(sums).group_by(GROUP).agg(*ends, pl.exclude("first", "last", *GROUP).sum()).select(sums[0].columns)


def _means(sums: pl.DataFrame) -> pl.DataFrame:
    shown = [*GROUP, "values", *((pl.col(name) / pl.col("values")).alias(name) for name in _STATUSES)]
    shown.append(pl.col("fg_n").alias("departures"))
    for kind in ("fg", "an"):
        number, mean = pl.col(f"{kind}_n"), pl.col(f"{kind}_1") / pl.col(f"{kind}_n")
        variance = (pl.col(f"{kind}_2") / number - mean**2).clip(lower_bound=0.0)
        shown += [pl.when(number > 0).then(mean).alias(f"{kind}_bias")]
        shown += [pl.when(number > 0).then(variance.sqrt()).alias(f"{kind}_sd")]
    return sums.select(shown).sort("varno", "statid")


def _moment(at: object) -> datetime:
    return datetime.strptime(f"{at:014d}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
