"""Export: the latest revision of a dataset window into one file of a format.

Belongs here: publishing what an exporter wrote, once, and remembering it; that there is no file where there is no row.
Does not belong here: any format (exporters), or the windows of a cycle (cycles.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import copyfile

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.records import BuiltRevision, ExportFacts, ExportRecord
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.errors import ExportError, PipelineError
from ionbeam_dagster.exporters import Exporter, ExportReport, WindowExporter
from ionbeam_dagster.pipeline import damage
from ionbeam_dagster.pipeline.platform import Platform, written_to
from ionbeam_dagster.pipeline.shown import Shown, fingerprint, from_when, shown
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

    def without(self, views: Sequence[Shown]) -> Published:
        """With what others are not shown, of the `views` that it was made of, among what its report left out."""
        hidden = {name: why for view in views for name, why in view.hidden.items()}
        rows = sum(view.left_out for view in views)
        if not hidden and not rows:
            return self
        plan = replace(self.report.plan, left_out={**self.report.plan.left_out, **hidden})
        told = {**self.report.read_back, "rows left out by privacy.drive_ends": rows} if rows else self.report.read_back
        return replace(self, report=replace(self.report, plan=plan, read_back=told))


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
        return _export(platform, dataset, exporter, window)


def _export(platform: Platform, dataset: DatasetSettings, exporter: WindowExporter, window: Window) -> Exported:
    name, format = dataset.name, exporter.format
    latest = platform.ledger.latest_revision(name, window)
    if latest is None or not platform.files.exists(latest.path):
        raise PipelineError(f"{name} {window}: there is no dataset file; materialise {name}/dataset first")
    check_shown_by_now(platform, dataset, format, window)
    target = platform.export_path(name, format, window)
    with checked(platform, latest) as dataset_file, shown(platform, dataset, format, dataset_file) as view:
        made = publish(platform.files, exporter, target, lambda draft: exporter.export(view.path, draft))
    made = made.without([view])
    number = latest.revision.number
    facts = ExportFacts(made.report.rows, made.report.stations, made.bytes, hash=made.hash)
    record = ExportRecord(name, window, format, number, made.path, facts, made_by(platform, dataset, format))
    platform.ledger.record_export(record)
    return Exported(name, window, format, number, made)


def check_shown_by_now(platform: Platform, dataset: DatasetSettings, format: str, window: Window) -> None:
    """Refuse, with a PipelineError, to show a window, or cycle, before its time."""
    begins = from_when(dataset, format, window)
    if begins is not None and platform.now() < begins:
        raise PipelineError(
            f"{dataset.name} {window}: may be shown as {format} from {begins:%Y-%m-%d %H:%M} on (privacy.delay), "
            "and is exported then"
        )


def made_by(platform: Platform, dataset: DatasetSettings, format: str) -> str:
    """What tells exports that are to be made again: the exporter with its settings, and what is shown."""
    of_exporter, of_rules = platform.config.exporters[format].fingerprint, fingerprint(platform, dataset, format)
    return f"{of_exporter} {of_rules}".strip()


def shows_otherwise(platform: Platform, made: ExportRecord) -> bool:
    """Whether an export shows more or less than it is to show by now."""
    return made.made_by.partition(" ")[2] != fingerprint(platform, platform.dataset(made.dataset), made.format)


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
    return made is not None and made.made_by not in ("", made_by(platform, platform.dataset(dataset), format))


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
