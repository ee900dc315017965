"""Export: the latest revision of a dataset window into one file of a format.

Belongs here: publishing what an exporter wrote, once, and remembering it; that there is no file where there is no row.
Does not belong here: any format (exporters), or the windows of a cycle (cycles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.records import BuiltRevision, ExportFacts, ExportRecord
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ExportError, PipelineError
from ionbeam_dagster.exporters import Exporter, ExportReport, WindowExporter
from ionbeam_dagster.pipeline import damage
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.stores.files import Files, within
from ionbeam_dagster.stores.publish import file_hash


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a file: `path` is None, and `bytes` 0, where there was no row to write.

    `copies` are other places where it lies, each by what it is for, and `hash` is the SHA-256 of its bytes.
    """

    report: ExportReport
    path: str | None
    bytes: int
    copies: Mapping[str, str] = field(default_factory=dict)
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Exported:
    """The current export of a window or cycle; `number` is that of its revision."""

    dataset: str
    window: Window
    format: str
    number: int
    published: Published

    @property
    def path(self) -> str | None:
        return self.published.path

    @property
    def report(self) -> ExportReport:
        return self.published.report


def export(platform: Platform, dataset: DatasetSettings, exporter: WindowExporter, window: Window) -> Exported:
    """Write the current export of a dataset window in the exporter's format, and remember it.

    Raises PipelineError when the window was not built, ExportError when the file could not be made or read back.
    """
    with platform.ledger.holding(dataset.name, window):
        return _export(platform, dataset.name, exporter, window)


def _export(platform: Platform, dataset: str, exporter: WindowExporter, window: Window) -> Exported:
    latest = platform.ledger.latest_revision(dataset, window)
    if latest is None or not platform.files.exists(latest.path):
        raise PipelineError(f"{dataset} {window}: there is no dataset file; materialise {dataset}/dataset first")
    target = platform.export_path(dataset, exporter.format, window)
    with checked(platform, latest) as dataset_file:
        made = publish(platform.files, exporter, target, lambda draft: exporter.export(dataset_file, draft))
    number = latest.revision.number
    facts = ExportFacts(made.report.rows, made.report.stations, made.bytes, hash=made.hash)
    record = ExportRecord(dataset, window, exporter.format, number, made.path, facts, exporter.fingerprint)
    platform.ledger.record_export(record)
    return Exported(dataset, window, exporter.format, number, made)


def checked(platform: Platform, built: BuiltRevision) -> AbstractContextManager[Path]:
    """A local path of a dataset file to be exported; one that is damaged is set aside. See `damage.checked`."""
    window, again = built.revision.window, f"materialise {built.revision.dataset}/dataset for"
    return damage.checked(
        platform, built.path, built.facts.hash,
        lambda fault: damage.set_aside(platform, built.path, fault, f"{again} {window.key} first"),
    )  # fmt: skip


def is_of_another_exporter(platform: Platform, dataset: str, format: str, window: Window) -> bool:
    """Whether another version of the exporter, or other settings, made the export of a window; what versions made that
    did not note it is not known to be other."""
    made = platform.ledger.export(dataset, window, format)
    return made is not None and made.made_by not in ("", platform.config.exporters[format].fingerprint)


def publish(files: Files, exporter: Exporter, target: str, write: Callable[[Path], ExportReport]) -> Published:
    """Let `write` write a file, and put it, and the copies that its report names, in the place of its predecessor.

    Without a row there is no file, neither a new one nor the predecessor. Raises ExportError, and PipelineError where
    the place cannot be written.
    """
    with written_to(target):
        with files.published(target) as draft:
            try:
                report = write(draft)
            except ExportError as error:
                raise ExportError(f"{target}: {error}") from error
            if not report.rows:
                draft.unlink(missing_ok=True)
            size, hash = (draft.stat().st_size, file_hash(draft)) if report.rows else (0, "")
        if not report.rows:
            files.delete(target)
            return Published(report, None, 0)
        root = exporter.settings.output_path
        copies = {purpose: within(root, *place.split("/")) for purpose, place in report.copies.items()}
        for place in copies.values():
            with files.fetched(target) as made, files.published(place) as draft:
                copyfile(made, draft)
    return Published(report, target, size, copies, hash)
