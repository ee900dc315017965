"""What the UI shows of each window: counts, coverage, columns, where they came from, a preview and a picture.

Belongs here: what a step's result becomes as Dagster metadata, and what is said of all assets alike. Does not belong
here: the numbers themselves, which come from the pipeline.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_client.models import IngestionMetadata
from ionbeam_client.text import markdown
from ionbeam_dagster.domain.canonical import canonical_schema, columns_of, provider_flag
from ionbeam_dagster.domain.cycles import analysis_of
from ionbeam_dagster.domain.decisions import Decision
from ionbeam_dagster.domain.quality.coverage import not_tested
from ionbeam_dagster.domain.quality.limits import Limits
from ionbeam_dagster.domain.silence import Told
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.build import Built, describe
from ionbeam_dagster.pipeline.collect import Collected
from ionbeam_dagster.pipeline.cycles import ExportedCycle
from ionbeam_dagster.pipeline.export import Exported
from ionbeam_dagster.pipeline.ingest import Ingested
from ionbeam_dagster.stores.files import absolute, uri_of

OWNERS = ["team:observations"]
_PREVIEW_ROWS = 5
_WINDOWS_SHOWN = 24

Metadata = Mapping[str, Any]


def of_raw(collected: Collected, schema: pa.Schema, seconds: float) -> Metadata:
    told: dict[str, Any] = {
        **_of_file(collected.path, collected.rows, collected.bytes),
        **_of_window(collected.window, seconds),
        "changed": collected.changed,
        "rows kept that the source no longer gives": collected.kept,
        "ingestion": collected.ingestion,
        "dagster/column_schema": _columns(schema),
    }
    if collected.forgotten:
        told["rows of stations that are forgotten, left out"] = collected.forgotten
    if collected.problems:
        told["problems"] = dg.MetadataValue.md("\n".join(f"- {markdown(problem)}" for problem in collected.problems))
    return told


def of_observations(
    ingested: Ingested, raw: dg.AssetKey, seconds: float, windows: Mapping[Window, Decision]
) -> Metadata:
    """What became of a raw partition, and what is to be said of the dataset `windows` that it touches."""
    claim = ingested.claim
    told: dict[str, Any] = {
        "dagster/partition_row_count": ingested.rows,
        **_of_window(claim.collected, seconds),
        "rows quarantined": ingested.quarantined,
        "ingestion": claim.id,
        "dataset windows": dg.MetadataValue.md(_outlook(windows)),
        "dagster/column_schema": _columns(canonical_schema([ingested.metadata])),
        "dagster/column_lineage": _lineage(_canonical_from(ingested.metadata), [raw]),
    }
    if claim.stray_windows:
        told["late rows in"] = dg.MetadataValue.md("\n".join(f"- {window}" for window in claim.stray_windows))
    if ingested.quarantine is not None:
        told["quarantine"] = dg.MetadataValue.path(absolute(ingested.quarantine))
        told["why quarantined"] = dg.MetadataValue.md(table(["reason", "rows"], sorted(ingested.reasons.items())))
    return told


def _outlook(windows: Mapping[Window, Decision]) -> str:
    rows = [(window, *describe(decision)) for window, decision in windows.items()]
    return table(["window", "state", "why"], rows[-_WINDOWS_SHOWN:])


def of_dataset(
    built: Built, path: Path, observations: Sequence[dg.AssetKey], seconds: float, limits: Mapping[str, Limits]
) -> Metadata:
    """The latest revision of a window, which `path` is the file of, and the decision that led to it."""
    latest = built.revision
    assert latest is not None
    facts = latest.facts
    schema = pq.read_schema(path)
    decision, reason = describe(built.decision)
    return {
        **_of_file(latest.path, facts.rows, facts.bytes),
        **_of_window(built.window, seconds),
        "decision": decision,
        "reason": reason,
        "why this revision": facts.why or "not known: the ledger was made again from the files",
        "built now": built.built,
        "revision": latest.revision.number,
        "stations": facts.stations,
        "coverage": facts.coverage,
        "complete": facts.complete,
        "gaps": dg.MetadataValue.md(_listed(facts.gaps) or "none"),
        "collected more than once": dg.MetadataValue.md(_listed(facts.overlaps) or "nothing"),
        "ingestions": facts.ingestions,
        "points that arrived again": facts.duplicates,
        "dagster/column_schema": _columns(schema),
        "dagster/column_lineage": _lineage({name: [name] for name in schema.names}, observations),
        "preview": dg.MetadataValue.md(_preview(path)),
        "picture": _picture(path),
        "not tested": dg.MetadataValue.md(
            table(["why", "variable"], ((why, one) for one, why in not_tested(schema, limits)))
        ),
        **_of_flags(facts.flags, path),
    }


def _listed(ranges: Iterable[Window]) -> str:
    return "\n".join(f"- {range.start.isoformat()} .. {range.end.isoformat()}" for range in ranges)


def _of_flags(flags: Mapping[str, Mapping[str, int]], path: Path) -> Metadata:
    """What quality control found: totals, which Dagster plots over the partitions, a table, and a map."""
    if not flags:
        return {}
    kinds = ("suspect", "fail", "pass", "not_evaluated", "missing")
    return {
        "values suspect": sum(counts["suspect"] for counts in flags.values()),
        "values bad": sum(counts["fail"] for counts in flags.values()),
        "quality": dg.MetadataValue.md(
            # the names last: they are long, and Dagster's page cuts what is wide
            table([*kinds, "variable"], ((*(counts[kind] for kind in kinds), name) for name, counts in flags.items()))
        ),
        "what was flagged": _drawn("flags_picture", "flags", path, "what quality control flagged, and by which test"),
    }


def of_cycle(exported: ExportedCycle, dataset: dg.AssetKey, dataset_files: Sequence[Path], seconds: float) -> Metadata:
    outlook = exported.outlook
    windows = sorted({*outlook.holds, *outlook.lacking, *outlook.late})
    rows = ((window, outlook.holds.get(window, "none"), outlook.late.get(window, "")) for window in windows)
    return {
        **of_export(exported.made, dataset, dataset_files, seconds),
        "analysis": dg.MetadataValue.timestamp(analysis_of(exported.made.window)),
        "windows in it": len(outlook.holds),
        "windows lacking": len(outlook.lacking),
        "windows late": len(outlook.late),
        "windows": dg.MetadataValue.md(table(["window", "revision in the file", "later revision, kept out"], rows)),
    }


def of_export(made: Exported, dataset: dg.AssetKey, dataset_files: Sequence[Path], seconds: float) -> Metadata:
    plan, report = made.report.plan, made.report
    targets = {name: [column] for column, name in plan.mapped.items()}
    told: dict[str, Any] = {
        "dagster/partition_row_count": report.rows,
        **_of_window(made.window, seconds),
        "revision": made.number,
        "stations": report.stations,
        "bytes": made.published.bytes,
        "empty": made.path is None,
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, description=f"from {columns[0]}") for name, columns in targets.items()]
        ),
        "dagster/column_lineage": _lineage(targets, [dataset]),
        "read back": dg.MetadataValue.json({key: str(value) for key, value in report.read_back.items()}),
        **{purpose: uri_of(place) for purpose, place in made.published.copies.items()},
    }
    if made.path is not None:
        told["dagster/uri"] = uri_of(made.path)
        shows = "places, values and flags of the export"
        told["picture"] = _drawn("export_picture", "export", dataset_files, shows, list(plan.mapped))
    if plan.left_out:
        told["left out"] = dg.MetadataValue.md(table(["column", "why"], sorted(plan.left_out.items())))
    return told


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, in whose cells everything is text."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(markdown(str(cell)) for cell in cells) + " |"

    return "\n".join([line(headings), line("---" for _ in headings), *map(line, rows)])


def _of_file(location: str, rows: int, size: int) -> Metadata:
    return {
        "dagster/partition_row_count": rows,
        "dagster/uri": uri_of(location),
        "bytes": size,
    }


def _of_window(window: Window, seconds: float) -> Metadata:
    return {
        "window start": dg.MetadataValue.timestamp(window.start),
        "window end": dg.MetadataValue.timestamp(window.end),
        "seconds": round(seconds, 3),
    }


def _columns(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema([_column(field) for field in schema])


def _column(field: pa.Field) -> dg.TableColumn:
    said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    described = [said[key] for key in ("standard_name", "units") if key in said]
    if "level" in said:
        described.append(f"at {said['level']} m, {said['method']} over {said['period']}")
    return dg.TableColumn(
        field.name,
        str(field.type),
        description=", ".join(described) or None,
        constraints=dg.TableColumnConstraints(nullable=field.nullable),
    )


def _canonical_from(metadata: IngestionMetadata) -> dict[str, list[str]]:
    columns = metadata.ingestion_map
    came_from = {"datetime": [columns.datetime.column], "lat": [columns.lat.column], "lon": [columns.lon.column]}
    came_from |= {variable.to_canonical_name(): [variable.column] for variable in columns.canonical_variables}
    came_from |= {
        provider_flag(variable.to_canonical_name()): [variable.flag_column]
        for variable in columns.canonical_variables
        if variable.flag_column
    }
    return came_from | {variable.column: [variable.column] for variable in columns.metadata_variables}


def _lineage(came_from: Mapping[str, Sequence[str]], assets: Sequence[dg.AssetKey]) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset, upstream) for asset in assets for upstream in upstreams]
            for column, upstreams in came_from.items()
        }
    )


def _preview(path: Path) -> str:
    schema = pq.read_schema(path)
    shown = [name for name in schema.names if name not in columns_of(schema, "quality")]
    head = pl.scan_parquet(path, glob=False).select(shown).head(_PREVIEW_ROWS).collect()
    return table(head.columns, ([_shown(value) for value in row] for row in head.iter_rows()))


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _picture(path: Path) -> dg.MetadataValue[Any]:
    return _drawn("window_picture", "window", path, "stations and series of the window")


def heard_picture(source: str, told: Told) -> dg.MetadataValue[Any]:
    return _drawn("heard_picture", "heard", source, "where stations fell silent, and rows and lateness of a week", told)


def _drawn(
    function: str, module: str, of: str | Path | Sequence[Path], shows: str, *about: Any
) -> dg.MetadataValue[Any]:
    """A picture inside Markdown; why there is none, when it cannot be drawn: what it shows is good itself."""
    try:
        drawer = getattr(import_module(f"ionbeam_dagster.pictures.{module}"), function)
        drawn = drawer(of, *about)
    except Exception as error:
        return dg.MetadataValue.text(f"could not be drawn: {type(error).__name__}: {error}")
    if drawn is None:
        return dg.MetadataValue.text("there is nothing to draw")
    return dg.MetadataValue.md(f"![{shows}](data:image/png;base64,{b64encode(drawn).decode()})")
