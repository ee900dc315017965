"""ODB files of whole analysis cycles, made of the dataset windows in them.

Belongs here: what the ledger knows of a cycle, and the making of its file. Does not belong here: what a cycle's file is
to hold (domain/cycles.py), how ODB is written (exporters/odb/), or when it is made (orchestration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from ionbeam_dagster import __version__
from ionbeam_dagster.domain.cycles import CycleOutlook, Made, Numbered, analysis_of, look_at, windows_in
from ionbeam_dagster.domain.windows import Window, window_from_key
from ionbeam_dagster.errors import ExportError, PipelineError
from ionbeam_dagster.exporters.odb import OdbExporter
from ionbeam_dagster.pipeline.export import Exported
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.stores.ledger import BuiltRevision, ExportRecord

FORMAT = "odb_cycle"


@dataclass(frozen=True, slots=True)
class ExportedCycle:
    """The current file of a cycle, what is to be said of the cycle, and the dataset files that it was made of."""

    made: Exported
    outlook: CycleOutlook
    files: list[str]


def cycle_path(platform: Platform, dataset: str, cycle: Window) -> str:
    service = platform.config.sections.projections.odb_service
    return within(service.output_path, FORMAT, dataset, f"{dataset}_{cycle.label}.{OdbExporter.extension}")


def outlook_of(platform: Platform, dataset: str, cycle: Window, now: datetime) -> CycleOutlook:
    """What is to be said of a cycle of a dataset, on what the ledger knows of it."""
    settings = platform.dataset(dataset)
    windows = windows_in(cycle, settings.span, settings.start, settings.end)
    known = {
        window: [Numbered(one.revision.number, one.built_at) for one in platform.ledger.revisions_of(dataset, window)]
        for window in windows
    }
    cut_off = platform.config.sections.projections.odb_service.cycle_cut_off
    return look_at(cycle, windows, known, _made(platform, dataset, cycle), now, cut_off)


def _made(platform: Platform, dataset: str, cycle: Window) -> Made | None:
    record = platform.ledger.export(dataset, cycle, FORMAT)
    if record is None:
        return None
    span = platform.dataset(dataset).span
    holds = {window_from_key(key, span): number for key, number in record.facts["holds"].items()}
    intact = record.path is None or platform.files.exists(record.path)
    return Made(holds, record.facts["afterwards"], intact)


def export_cycle(platform: Platform, dataset: str, cycle: Window, now: datetime) -> ExportedCycle:
    """Write the file of a cycle from what it is to hold, also where it lacks windows, and remember it.

    Of the same revisions comes the same file. Raises PipelineError where there is nothing to make it of, ExportError
    when it could not be made or read back.
    """
    with platform.ledger.holding(dataset, cycle):
        return _export_cycle(platform, dataset, cycle, now)


def _export_cycle(platform: Platform, dataset: str, cycle: Window, now: datetime) -> ExportedCycle:
    outlook = outlook_of(platform, dataset, cycle, now)
    if not outlook.holds:
        raise PipelineError(f"{dataset} {cycle}: {outlook.reason}; materialise {dataset}/dataset first")
    held = list(_held(platform, dataset, outlook))
    before = platform.ledger.export(dataset, cycle, FORMAT)
    holds = {one.revision.window.key: one.revision.number for one in held}
    number = 1 if before is None else before.number + (before.facts["holds"] != holds)
    target = cycle_path(platform, dataset, cycle)
    about = _provenance(dataset, cycle, number, held, outlook)
    with written_to(target), ExitStack() as opened, platform.files.published(target) as draft:
        files = [opened.enter_context(platform.files.fetched(one.path)) for one in held]
        try:
            report = platform.odb.export_all(files, draft, about)
        except ExportError as error:
            raise ExportError(f"{target}: {error}") from error
    if not report.rows:
        platform.files.delete(target)
    path = target if report.rows else None
    facts = {
        "rows": report.rows,
        "bytes": report.bytes,
        "stations": report.stations,
        "holds": holds,
        "afterwards": outlook.afterwards,
    }
    platform.ledger.record_export(ExportRecord(dataset, cycle, FORMAT, number, path, facts))
    return ExportedCycle(Exported(dataset, cycle, FORMAT, number, path, report), outlook, [one.path for one in held])


def _held(platform: Platform, dataset: str, outlook: CycleOutlook) -> Iterator[BuiltRevision]:
    """The revisions that a cycle's file is to hold, in order of time."""
    for window, number in sorted(outlook.holds.items()):
        found = {one.revision.number: one for one in platform.ledger.revisions_of(dataset, window)}
        if number not in found or not platform.files.exists(found[number].path):
            raise PipelineError(
                f"{dataset} {window}: the file of revision {number} is gone, which belongs to this cycle; "
                f"materialise {dataset}/dataset first"
            )
        yield found[number]


def _provenance(
    dataset: str, cycle: Window, number: int, held: list[BuiltRevision], outlook: CycleOutlook
) -> dict[str, str]:
    """What a cycle's file says of itself: the same for the same revisions."""
    inputs = "\n".join(f"{one.revision.window.key} {one.revision.inputs}" for one in held)
    return {
        "dataset": dataset,
        "window_start": cycle.start.isoformat(),
        "window_end": cycle.end.isoformat(),
        "analysis": analysis_of(cycle).isoformat(),
        "revision": str(number),
        "windows": ", ".join(f"{one.revision.window.label} r{one.revision.number}" for one in held),
        "lacking": ", ".join(window.label for window in outlook.lacking) or "none",
        "inputs": hashlib.sha256(inputs.encode()).hexdigest(),
        "software": f"ionbeam {__version__}",
    }
