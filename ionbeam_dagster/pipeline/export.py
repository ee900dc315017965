"""Export: the latest revision of a dataset window into one file of a format.

Belongs here: publishing what an exporter wrote, once, and remembering it. Does not belong here: any format (exporters).
"""

from __future__ import annotations

from dataclasses import dataclass
from shutil import copyfile

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ExportError, PipelineError
from ionbeam_dagster.exporters import Exporter, ExportReport
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.stores.files import within
from ionbeam_dagster.stores.ledger import ExportRecord


@dataclass(frozen=True, slots=True)
class Exported:
    """The current export of a window; `path` is None when the window has no row to export.

    `gts_path` is where a copy lies for the GTS, if one is made.
    """

    dataset: str
    window: Window
    format: str
    number: int
    path: str | None
    report: ExportReport
    gts_path: str | None = None


def export(platform: Platform, dataset: str, format: str, window: Window) -> Exported:
    """Write the current export of a dataset window in `format`, and remember it.

    Raises PipelineError when the window was not built, ExportError when the file could not be made or read back.
    """
    with platform.ledger.holding(dataset, window):
        return _export(platform, dataset, format, window)


def _export(platform: Platform, dataset: str, format: str, window: Window) -> Exported:
    latest = platform.ledger.latest_revision(dataset, window)
    if latest is None or not platform.files.exists(latest.path):
        raise PipelineError(f"{dataset} {window}: there is no dataset file; materialise {dataset}/dataset first")
    target = platform.export_path(dataset, format, window)
    with written_to(target):
        report = _exported(platform, platform.exporters[format], latest.path, target)
        gts_path = _laid_out_for_the_gts(platform, dataset, target, report) if report.gts_name else None
    path = target if report.rows else None
    facts = {"rows": report.rows, "bytes": report.bytes, "stations": report.stations}
    platform.ledger.record_export(ExportRecord(dataset, window, format, latest.revision.number, path, facts))
    return Exported(dataset, window, format, latest.revision.number, path, report, gts_path)


def _laid_out_for_the_gts(platform: Platform, dataset: str, file: str, report: ExportReport) -> str:
    """Copy an export to where bulletins are taken from, under its own name there."""
    assert report.gts_name is not None
    place = within(platform.config.sections.projections.bufr_service.output_path, "gts", dataset, report.gts_name)
    with platform.files.fetched(file) as made, platform.files.published(place) as draft:
        copyfile(made, draft)
    return place


def _exported(platform: Platform, exporter: Exporter, dataset_file: str, target: str) -> ExportReport:
    with platform.files.fetched(dataset_file) as rows, platform.files.published(target) as draft:
        try:
            report = exporter.export(rows, draft)
        except ExportError as error:
            raise ExportError(f"{target}: {error}") from error
    if not report.rows:
        platform.files.delete(target)
    return report


def export_is_current(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether the window's export was made from its latest revision and is still there."""
    latest = platform.ledger.latest_revision(dataset, window)
    made = platform.ledger.export(dataset, window, format)
    if latest is None or made is None or made.number != latest.revision.number:
        return False
    return made.path is None or platform.files.exists(made.path)
