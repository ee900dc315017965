"""Why the values of one report have their flags, reckoned once more from the dataset file that it is in.

Belongs here: finding the report, and what it was compared with in that file. Does not belong here: the tests and their
words (domain/quality/explain.py), or the control of a window that is built (quality_control.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import point_key
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.domain.quality.chain import SLICE
from ionbeam_dagster.domain.quality.explain import Reason, explain
from ionbeam_dagster.domain.quality.limits import Limits
from ionbeam_dagster.domain.quality.plan import Plan
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.pipeline.quality_control import StationNumbers


@dataclass(frozen=True)
class Explained:
    """One report of a dataset file: when and where it was, each variable's value and flag, and why."""

    time: datetime
    place: str
    values: list[tuple[str, float | None, Flag]]
    reasons: list[tuple[Reason, bool]]
    """Each with whether the value failed the test."""
    notes: list[str]


def explained(dataset_file: Path, station: str, at: datetime, limits: Mapping[str, Limits]) -> Explained:
    """Why the values of the report of `station` nearest to `at` have their flags.

    Raises PipelineError where the file has no such station, or no quality columns.
    """
    schema = pq.read_schema(dataset_file)
    plan, key = Plan.of(schema, limits), point_key(schema)
    rows = pl.scan_parquet(dataset_file, glob=False)
    named = pl.concat_str([pl.col(name).cast(pl.String) for name in key], separator=" ") == station
    own = rows.filter(named).collect()
    flagged = [name for name in plan.tested if f"{name}__flag" in schema.names]
    if own.is_empty() or not flagged:
        raise PipelineError(
            f"{dataset_file} has no station {station!r}; stations are named by {', '.join(key)}"
            if own.is_empty()
            else f"{dataset_file} was built without quality control"
        )
    row = int((own["datetime"] - at).abs().arg_min() or 0)
    moment: datetime = own["datetime"][row]
    about = json.loads((schema.metadata or {}).get(b"ionbeam", b"{}"))
    begin = datetime.fromisoformat(about.get("window_start", moment.isoformat()))
    first = begin + (moment - begin) // SLICE * SLICE
    near = rows.filter((pl.col("datetime") >= first) & (pl.col("datetime") < first + SLICE)).collect()
    batches = [_batch(frame, schema) for frame in (own, near)]
    reports = [plan.with_changes(plan.reports(batch, StationNumbers().of(batch, key))) for batch in batches]
    found = near.with_row_index("@row").filter((pl.col("datetime") == moment) & named)
    told = own.row(row, named=True)
    masks = {name: int(told[f"{name}__tests_applied"]) for name in flagged}
    reasons = explain(plan, reports[0], row, reports[1], int(found["@row"][0]), masks)
    notes = ["what was before the window is not in its file, and not told here"]
    if names := about.get("quality", {}).get("neighbours"):
        notes.append(
            f"when it was built, it was also compared with {', '.join(names)}; here only within its own dataset"
        )
    return Explained(
        moment,
        f"{told['lat']:.4f}, {told['lon']:.4f}",
        [(name, told[name], Flag(told[f"{name}__flag"])) for name in flagged],
        [(reason, bool(told[f"{reason.column}__tests_failed"] & int(reason.test))) for reason in reasons],
        notes,
    )


def _batch(frame: pl.DataFrame, schema: pa.Schema) -> pa.RecordBatch:
    return frame.to_arrow().select(schema.names).cast(schema).combine_chunks().to_batches()[0]
