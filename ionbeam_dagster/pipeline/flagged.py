"""How many values of each station quality control flagged in a time, from the dataset files that there are.

Belongs here: counting flags. Does not belong here: setting them (quality_control.py), or why one was
set (explained.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import STATION, columns_of, quality_column
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.domain.windows import window_of
from ionbeam_dagster.pipeline.damage import readable
from ionbeam_dagster.pipeline.platform import Platform

_JUST_AFTER = timedelta(microseconds=1)
_SCHEMA = pl.Schema({STATION: pl.String, "variable": pl.String, "values": pl.Int64, "flagged": pl.Int64})


@dataclass(frozen=True, slots=True)
class Flagged:
    """`counts`: a row for each station (station_id) and canonical variable (variable) with how many `values` there are,
    and how many are `flagged` suspect or fail. `schema`: all columns of the dataset files that were looked at."""

    counts: pl.DataFrame
    schema: pa.Schema


def flagged(platform: Platform, dataset: DatasetSettings, first: datetime, last: datetime) -> Flagged:
    """The flags of the observations in [first, last]; stations without an id are not counted.

    Raises PipelineError where a dataset file is gone or damaged; memory does not grow with the time.
    """
    counts, columns = pl.DataFrame(schema=_SCHEMA), pa.schema([])
    for built in platform.ledger.revisions(dataset.name, window_of(first, dataset.span).start, last + _JUST_AFTER):
        with readable(platform, built) as file:
            schema = pq.read_schema(file)
            columns = pa.unify_schemas([columns, schema], promote_options="permissive")
            if STATION in schema.names:
                counts = _added(counts, _counted(pl.scan_parquet(file, glob=False), schema, first, last))
    return Flagged(counts, columns)


def _counted(rows: pl.LazyFrame, schema: pa.Schema, first: datetime, last: datetime) -> pl.DataFrame:
    flags = {name: quality_column(schema, name, "flag") for name in columns_of(schema, "variable")}
    within = pl.col("datetime").is_between(pl.lit(first), pl.lit(last)) & pl.col(STATION).is_not_null()
    of = rows.filter(within).group_by(STATION)
    counts = []
    for name, flag in flags.items():
        bad = pl.col(name).is_not_null() & pl.col(flag).is_in([Flag.SUSPECT, Flag.FAIL]) if flag else pl.lit(False)
        sums = of.agg(pl.col(name).count().cast(pl.Int64).alias("values"), bad.sum().cast(pl.Int64).alias("flagged"))
        counts.append(sums.with_columns(pl.lit(name).alias("variable")).select(list(_SCHEMA)))
    return pl.concat(pl.collect_all(counts)) if counts else pl.DataFrame(schema=_SCHEMA)


def _added(counts: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    both = pl.concat([counts, more.filter(pl.col("values") > 0).cast(_SCHEMA)])
    return both.group_by(STATION, "variable").agg(pl.col("values", "flagged").sum())
