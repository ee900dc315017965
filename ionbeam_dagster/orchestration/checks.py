"""Asset checks: what is looked at in every window once it is there, and what may stop it from going on.

Belongs here: the checks, as Dagster shows them. They are evaluated by the step that makes the window, window by window,
so that they also stand for the windows of a run in which another one failed. Does not belong here: quality control of
single values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.cf import UnitError, conversion
from ionbeam_dagster.domain.canonical import columns_of, point_key, variables_of
from ionbeam_dagster.domain.cycles import CycleOutlook
from ionbeam_dagster.domain.decisions import Decision, Sealed
from ionbeam_dagster.domain.records import BuiltRevision, Claim
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.exporters import Exporter, ExportReport
from ionbeam_dagster.orchestration.internals import late_evaluation
from ionbeam_dagster.orchestration.metadata import table
from ionbeam_dagster.pipeline.soundness import Ranges, off_the_globe, ranges_of, schema_faults

WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR

# Beyond what has been measured near the ground, so that a value outside is a fault and not weather; in CF's units.
_PLAUSIBLE = {
    "air_temperature": (180.0, 335.0, "K"),
    "dew_point_temperature": (170.0, 310.0, "K"),
    "relative_humidity": (0.0, 1.05, "1"),
    "air_pressure": (40_000.0, 110_000.0, "Pa"),
    "air_pressure_at_mean_sea_level": (85_000.0, 110_000.0, "Pa"),
    "surface_air_pressure": (40_000.0, 110_000.0, "Pa"),
    "wind_speed": (0.0, 115.0, "m s-1"),
    "wind_speed_of_gust": (0.0, 125.0, "m s-1"),
    "wind_from_direction": (0.0, 360.0, "degree"),
    "precipitation_amount": (0.0, 500.0, "kg m-2"),
    "thickness_of_rainfall_amount": (0.0, 0.5, "m"),
}

_MUCH = 0.2
"""CrowdQC drops stations of which a fifth is flagged (Napoly et al., 2018); a whole window has a fault upstream."""

_DATASET_CHECKS = {
    "schema": (True, "The file has the canonical columns: time, place, and variables with names that can be read"),
    "coordinates": (True, "Every row lies on the globe: latitude -90..90, longitude -180..180"),
    "not_empty": (False, "There is at least one row"),
    "coverage": (False, "Every source has collected the whole window"),
    "plausible": (False, "Values lie within what has ever been measured"),
    "quality": (False, "Quality control finds fault with less than a fifth of the values of every variable"),
    "duplicates": (False, "No station has two rows at the same time"),
    "quarantined": (False, "Every row that arrived could be used"),
    "in_time": (False, "Nothing arrived after the window was sealed"),
}


def dataset_specs(asset: dg.AssetKey, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=description, partitions_def=partitions)
        for name, (blocking, description) in _DATASET_CHECKS.items()
    ]


_CYCLE_CHECKS = {
    "whole": "Every window of the cycle is in its file",
    "in_time": "No window of the cycle was built anew after the cut-off",
}


def export_specs(
    asset: dg.AssetKey, partitions: dg.PartitionsDefinition[str], exporter: Exporter
) -> list[dg.AssetCheckSpec]:
    """The checks of every file of an exporter: its own, and of cycles those of the cycle."""
    described = dict(exporter.checks) | (_CYCLE_CHECKS if exporter.span == "cycle" else {})
    return [
        dg.AssetCheckSpec(name, asset=asset, description=description, partitions_def=partitions)
        for name, description in described.items()
    ]


def of_export(exporter: Exporter, report: ExportReport) -> list[dg.AssetCheckResult]:
    """The exporter's own checks of one file."""
    return [
        _result(name, name not in report.not_passed, WARN, report.not_passed.get(name, "")) for name in exporter.checks
    ]


def of_cycle(outlook: CycleOutlook) -> list[dg.AssetCheckResult]:
    lacking = ", ".join(map(str, outlook.lacking))
    return [
        _result("whole", not outlook.lacking, WARN, f"not in the file: {lacking}"),
        _result("in_time", not outlook.late, WARN, outlook.reason),
    ]


def of_late_window(cycles: dg.AssetKey, cycle: Window, outlook: CycleOutlook) -> Iterator[dg.AssetCheckEvaluation]:
    """The check `in_time` of a cycle into whose file a window does not come any more: its build is what tells."""
    if outlook.late:
        yield late_evaluation(cycles, "in_time", cycle.key, outlook.reason)


def of_dataset(built: BuiltRevision, path: Path, claims: Sequence[Claim]) -> list[dg.AssetCheckResult]:
    """Look at a dataset window, its file `path`, and the claims that it was made of.

    The file's footer tells all but duplicates, for which its keys are read in batches.
    """
    facts = built.facts
    with pq.ParquetFile(path) as file:
        schema, ranges = file.schema_arrow, ranges_of(file)
    faults = schema_faults(schema)
    missed = [] if faults else off_the_globe(ranges)
    odd = [] if faults else list(_implausible(schema, ranges))
    unusable = sum(claim.quarantined for claim in claims)
    twice = 0 if faults else _repeated(path, schema)
    flagged = list(_much_flagged(facts.flags))
    made_of = facts.made_of
    late = [] if made_of is None else [claim for claim in claims if claim.id not in made_of]
    return [
        _result("schema", not faults, ERROR, "; ".join(faults)),
        _result("coordinates", not missed, ERROR, "; ".join(missed)),
        _result("not_empty", facts.rows > 0, WARN, "the window has no row"),
        _result(
            "coverage",
            facts.complete,
            WARN,
            f"{facts.coverage:.1%} of the window was collected",
            gaps=[[gap.start.isoformat(), gap.end.isoformat()] for gap in facts.gaps],
        ),
        _result("plausible", not odd, WARN, f"{len(odd)} variables have values that cannot be", table=odd),
        _result("quality", not flagged, WARN, "; ".join(flagged)),
        _result("duplicates", not twice, WARN, f"{twice} rows repeat a station and time"),
        _result("quarantined", not unusable, WARN, f"{unusable} rows are in quarantine; the observations tell why"),
        _result("in_time", not late, WARN, _late(late)),
    ]


def of_late_data(dataset: dg.AssetKey, windows: Mapping[Window, Decision]) -> Iterator[dg.AssetCheckEvaluation]:
    """The check `in_time` of windows that were sealed before data for them arrived: nobody builds these, so that it is
    the arrival that tells."""
    for window, decision in windows.items():
        if isinstance(decision, Sealed):
            yield late_evaluation(dataset, "in_time", window.key, decision.reason)


def _much_flagged(flags: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for name, counts in flags.items():
        judged = counts["pass"] + counts["suspect"] + counts["fail"]
        if judged and (counts["suspect"] + counts["fail"]) / judged > _MUCH:
            share = (counts["suspect"] + counts["fail"]) / judged
            yield f"{name}: {share:.0%} of {judged} values ({counts['suspect']} suspect, {counts['fail']} bad)"


def _late(claims: Sequence[Claim]) -> str:
    rows = sum(claim.rows for claim in claims)
    return f"{len(claims)} ingestions with {rows} rows arrived that this revision does not hold"


def _result(name: str, passed: bool, severity: dg.AssetCheckSeverity, against: str, **told: Any) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {}
    if gaps := told.get("gaps"):
        metadata["gaps"] = dg.MetadataValue.md("\n".join(f"- {begin} .. {end}" for begin, end in gaps))
    if odd := told.get("table"):
        metadata["values"] = dg.MetadataValue.md(table(["variable", "least", "greatest", "plausible"], odd))
    return dg.AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        severity=severity,
        description=None if passed else against,
        metadata=metadata,
    )


def _implausible(schema: pa.Schema, ranges: Ranges) -> Iterator[tuple[str, str, str, str]]:
    for name, variable in zip(columns_of(schema, "variable"), variables_of(schema), strict=True):
        if variable.standard_name not in _PLAUSIBLE or name not in ranges or variable.method in ("range", "variance"):
            continue
        least, greatest, units = _PLAUSIBLE[variable.standard_name]
        try:
            scale, offset = conversion(units, variable.cf_unit)
        except UnitError:
            continue
        low, high = least * scale + offset, greatest * scale + offset
        seen_low, seen_high = ranges[name]
        if seen_low < low or seen_high > high:
            yield name, f"{seen_low:.6g}", f"{seen_high:.6g}", f"{low:.6g} .. {high:.6g} {variable.cf_unit}"


def _repeated(path: Path, schema: pa.Schema) -> int:
    """How many rows have the station and time of the row before them, in a file ordered by both."""
    keys = [*point_key(schema), "datetime"]
    repeated = 0
    last: pl.DataFrame | None = None
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=keys):
            frame = pl.DataFrame(pl.from_arrow(batch)).select(keys)
            joined = frame if last is None else pl.concat([last, frame])
            same = pl.all_horizontal(pl.col(key).eq_missing(pl.col(key).shift()) for key in keys)
            repeated += int(joined.select(same.slice(1).sum()).item())
            last = frame.tail(1)
    return repeated
