"""Files of whole analysis cycles, made of the dataset windows in them.

Belongs here: what the ledger knows of a cycle, and the making of its file. Does not belong here: what a cycle's file is
to hold (domain/cycles.py), any format (exporters), or when it is made (orchestration).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from ionbeam_dagster import __version__
from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.cycles import CycleOutlook, Made, Numbered, analysis_of, look_at, windows_in
from ionbeam_dagster.domain.records import BuiltRevision, ExportFacts, ExportRecord
from ionbeam_dagster.domain.windows import Window, window_from_key
from ionbeam_dagster.errors import PipelineError
from ionbeam_dagster.exporters import CycleExporter
from ionbeam_dagster.pipeline.export import Exported, check_shown_by_now, checked, made_by, publish
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.pipeline.shown import shown


@dataclass(frozen=True, slots=True)
class ExportedCycle:
    """The current file of a cycle, what is to be said of the cycle, and the dataset files that it was made of."""

    made: Exported
    outlook: CycleOutlook
    files: list[str]


def outlook_of(
    platform: Platform,
    dataset: DatasetSettings,
    exporter: CycleExporter,
    cycle: Window,
    now: datetime,
    is_damaged: bool = False,
) -> CycleOutlook:
    """What is to be said of a cycle of a dataset and its file in a format, on what the ledger knows of it.

    `is_damaged` says that the file does not hold what was written, which its size does not tell.
    """
    windows = windows_in(cycle, dataset.span, dataset.start, dataset.end)
    made = _made(platform, dataset, exporter, cycle, is_damaged)
    revisions = {window: platform.ledger.revisions_of(dataset.name, window) for window in windows}
    if made is not None and not made.intact:
        revisions = {window: _with_files(platform, found) for window, found in revisions.items()}
    known = {
        window: [Numbered(one.revision.number, one.built_at) for one in found] for window, found in revisions.items()
    }
    return look_at(cycle, windows, known, made, now, exporter.settings.cycle_cut_off)


def _with_files(platform: Platform, revisions: list[BuiltRevision]) -> list[BuiltRevision]:
    """Those revisions of a window whose file is there, and the latest, whose file comes back."""
    return [*(one for one in revisions[:-1] if platform.files.exists(one.path)), *revisions[-1:]]


def holds_what_is_there(platform: Platform, dataset: str, outlook: CycleOutlook) -> bool:
    """Whether the dataset files that a cycle's file is to hold are all there."""
    known = {
        (window, one.revision.number): one
        for window in outlook.holds
        for one in platform.ledger.revisions_of(dataset, window)
    }
    held = [known.get(each) for each in outlook.holds.items()]
    return all(one is not None and platform.files.exists(one.path) for one in held)


def _made(
    platform: Platform, dataset: DatasetSettings, exporter: CycleExporter, cycle: Window, is_damaged: bool
) -> Made | None:
    record = platform.ledger.export(dataset.name, cycle, exporter.format)
    if record is None:
        return None
    holds = {window_from_key(key, dataset.span): number for key, number in (record.facts.holds or {}).items()}
    return Made(holds, record.facts.afterwards, not is_damaged and _is_whole(platform, record))


def _is_whole(platform: Platform, made: ExportRecord) -> bool:
    """Whether a cycle's file is there, and as long as it was written."""
    found = platform.files.found(made.path) if made.path is not None else None
    return made.path is None or (found is not None and found.size == (made.facts.bytes or found.size))


def export_cycle(
    platform: Platform, dataset: DatasetSettings, exporter: CycleExporter, cycle: Window, now: datetime
) -> ExportedCycle:
    """Write the file of a cycle from what it is to hold, also where it lacks windows, and remember it.

    Of the same revisions comes the same file. Raises PipelineError where there is nothing to make it of, ExportError
    when it could not be made or read back.
    """
    with platform.ledger.holding(dataset.name, cycle):
        outlook = outlook_of(platform, dataset, exporter, cycle, now)
        return _export_cycle(platform, dataset, exporter, cycle, outlook)


def _export_cycle(
    platform: Platform, settings: DatasetSettings, exporter: CycleExporter, cycle: Window, outlook: CycleOutlook
) -> ExportedCycle:
    dataset, format = settings.name, exporter.format
    check_shown_by_now(platform, settings, format, cycle)
    if not outlook.holds:
        raise PipelineError(f"{dataset} {cycle}: {outlook.reason}; materialise {dataset}/dataset first")
    held = list(_held(platform, dataset, outlook))
    before = platform.ledger.export(dataset, cycle, exporter.format)
    holds = {one.revision.window.key: one.revision.number for one in held}
    number = 1 if before is None else before.number + (before.facts.holds != holds)
    target = platform.export_path(dataset, exporter.format, cycle)
    about = _provenance(dataset, cycle, number, held, outlook)
    with ExitStack() as opened:
        files = [opened.enter_context(checked(platform, one)) for one in held]
        views = [opened.enter_context(shown(platform, settings, format, file)) for file in files]
        paths = [view.path for view in views]
        made = publish(platform.files, exporter, target, lambda draft: exporter.export(paths, draft, about))
    made = made.without(views)
    facts = ExportFacts(made.report.rows, made.report.stations, made.bytes, holds, outlook.afterwards, made.hash)
    fingerprint = made_by(platform, settings, format)
    record = ExportRecord(dataset, cycle, format, number, made.path, facts, fingerprint)
    platform.ledger.record_export(record)
    return ExportedCycle(Exported(dataset, cycle, exporter.format, number, made), outlook, [one.path for one in held])


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
