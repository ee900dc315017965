"""Exporters: each writes a dataset window, or an analysis cycle of windows, in one format that leaves the platform.

Belongs here: `WindowExporter` and `CycleExporter`, the bases of them all, what an exporter tells of its work, how they
are found (entry points), and one module or package a format. An exporter writes a plain file and reads it back with a
decoder that is not ours. Does not belong here: when an export is made, or how it is published (pipeline). A third party
adds a format by registering a subclass under the entry-point group ``ionbeam.exporters`` (docs/writing-an-exporter.md).
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from hashlib import sha256
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol

import pyarrow as pa

from ionbeam_client.models import format_duration
from ionbeam_dagster.domain.cycles import check_nesting
from ionbeam_dagster.domain.decisions import Policy
from ionbeam_dagster.exporters.settings import CycleSettings, ExporterSettings
from ionbeam_dagster.stores.contents import Contents
from ionbeam_dagster.stores.files import uri_of

ENTRY_POINTS = "ionbeam.exporters"
WEB = "pygeoapi"
"""The format that is served on the web."""
BY_DEFAULT = ("odb", WEB)
"""The formats of a dataset whose sources do not say which."""
TAKEN = frozenset({"dataset", "raw", "observations", "request", "stations"})
"""No format may have these names: ``<dataset>/<name>`` is a step of the platform in Dagster."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """Where each column of a dataset goes (`mapped`: column -> its name in the format); which stay behind, and why."""

    mapped: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What came of one export: rows in the format's own sense, different stations, and the plan it followed.

    `read_back` is what the foreign decoder read in the new file, and whatever else a person should see of it on the
    export's page in Dagster. `copies` are other places of the same file, below the exporter's `output_path`, each by
    what it is for: the pipeline publishes them, too. Where there are no rows, there is no file.

    `not_passed` says in a sentence each which of the exporter's `checks` this file does not pass.
    """

    rows: int
    stations: int
    plan: ExportPlan
    read_back: Mapping[str, object] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    not_passed: Mapping[str, str] = field(default_factory=dict)


class ExportedDataset(Protocol):
    """What an exporter may know of a dataset that is configured to be written by it."""

    @property
    def name(self) -> str: ...

    @property
    def span(self) -> timedelta: ...

    @property
    def policy(self) -> Policy: ...


class Exporter(ABC):
    """What exporters of windows and of cycles have in common. Making one connects to nothing and reads nothing.

    `format` is the name in `exports:`, of the entry point, of the folder and of the asset; `title` says in a few words
    what it is and for whom; `media_type` is that of its files, and `kinds` are the tags of its asset. `version` is to
    change whenever the same dataset would become other bytes: `fingerprint` tells by it which exports are to be made
    again.

    `checks` are what it looks at in every file that it writes: the name of each, which becomes an asset check in
    Dagster, and in a sentence what a file that passes it is like. A file that does not pass is published all the same,
    with a warning; what must not be published is an ExportError.
    """

    Settings: ClassVar[type[ExporterSettings]] = ExporterSettings
    format: ClassVar[str]
    title: ClassVar[str]
    extension: ClassVar[str]
    media_type: ClassVar[str] = "application/octet-stream"
    kinds: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[str]
    span: ClassVar[Literal["window", "cycle"]]
    checks: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, settings: ExporterSettings | None = None) -> None:
        self.settings = settings or self.Settings()

    @classmethod
    def section(cls) -> str:
        """The key of its settings below ``projections``; exporters that give the same one share its settings."""
        return f"{cls.format}_service"

    @classmethod
    def lacking(cls) -> str | None:
        """What is to be installed before it can write, and how; None where nothing is."""
        return None

    @property
    def fingerprint(self) -> str:
        """A short hash of the format, its `version` and those settings on which the content of files depends."""
        settings = self.settings.model_dump(mode="json", exclude=set(self.settings.apart_from_content))
        told = json.dumps([self.format, self.version, settings], sort_keys=True)
        return sha256(told.encode()).hexdigest()[:12]

    def configuration_faults(self, datasets: Sequence[ExportedDataset], data_path: str) -> list[str]:
        """What of its section does not fit the `datasets` that it is to write, which stand at `data_path`."""
        faults = self.faults(datasets)
        path = self.settings.input_path
        if path is not None and uri_of(path) != uri_of(data_path):
            faults.append(
                f"projections.{self.section()}.input_path: {path} is not where datasets are written; right would be "
                f"{data_path} (dataset_aggregator.data_path), or leave it out"
            )
        return faults

    def faults(self, datasets: Sequence[ExportedDataset]) -> list[str]:
        """The exporter's own checks of its settings together with the datasets that it is to write; a line a fault."""
        return []

    def notes(self) -> list[str]:
        """What a person should know about its settings although they are valid."""
        return []

    def shared_names(self, stations: Mapping[str, str | None]) -> dict[str, list[str]]:
        """Which of a dataset's stations this format would call the same, by what it calls them. `stations` are their
        ids, with the WIGOS id that is known beside each."""
        return {}

    @abstractmethod
    def plan(self, schema: pa.Schema) -> ExportPlan:
        """What will become of the columns of a dataset file's `schema` (domain/canonical.py tells its metadata)."""

    @classmethod
    @abstractmethod
    def describe(cls, path: Path) -> Contents | None:
        """What is inside a file of this format, for a person; None where it is of another one.

        Raises UnknownFile where it is one of this format but cannot be read.
        """


class WindowExporter(Exporter):
    """Writes a file for each window of a dataset."""

    span = "window"

    @abstractmethod
    def export(self, dataset_file: Path, draft: Path) -> ExportReport:
        """Write `draft` from a dataset file, and read it back.

        It is no concern of the exporter who else reads or writes at the place that the file gets later. Raises
        ExportError with the reason; memory does not grow with the file. What needs room beside the draft, takes it from
        `stores.publish.room_beside`.
        """


class CycleExporter(Exporter):
    """Writes a file for each analysis cycle of six hours, from the windows in it."""

    Settings: ClassVar[type[CycleSettings]] = CycleSettings
    settings: CycleSettings
    span = "cycle"

    @abstractmethod
    def export(self, dataset_files: Sequence[Path], draft: Path, about: Mapping[str, str]) -> ExportReport:
        """The same from several dataset files, in the order of time; a variable may be missing in some of them.

        `about` says of what the file is: dataset, window_start and window_end of the cycle, analysis, revision,
        windows, lacking, inputs and software. The same files and the same `about` give the same bytes.
        """

    def configuration_faults(self, datasets: Sequence[ExportedDataset], data_path: str) -> list[str]:
        own = super().configuration_faults(datasets, data_path)
        return [*own, *(fault for dataset in datasets for fault in self._cycle_faults(dataset))]

    def _cycle_faults(self, dataset: ExportedDataset) -> list[str]:
        """Windows of which some would be in two analysis cycles, or that would all be late for theirs."""
        faults = []
        try:
            check_nesting(dataset.span)
        except ValueError as error:
            faults.append(f"dataset {dataset.name!r}: exports has {self.format}, but aggregation_span {error}")
        cut_off = self.settings.cycle_cut_off
        wait = max(dataset.policy.subject_to_change, dataset.policy.lateness)
        if wait >= cut_off:
            faults.append(
                f"projections.{self.section()}.cycle_cut_off: {format_duration(cut_off)} is not longer than the "
                f"{format_duration(wait)} that windows of {dataset.name!r} wait for what is still to come: each cycle "
                "would lack its last windows; lengthen it"
            )
        return faults


def installed_exporters() -> dict[str, EntryPoint]:
    """The formats that are installed, by name."""
    return dict(_declared(tuple(sys.path)))


@cache  # looking through all installed packages takes longer than reading a configuration
def _declared(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def loaded(point: EntryPoint) -> type[WindowExporter] | type[CycleExporter]:
    """The exporter of an entry point; raises ImportError that says what is wrong with it."""
    try:
        found = point.load()
    except Exception as error:  # whatever a third party's module does
        raise ImportError(f"{point.value} cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, (WindowExporter, CycleExporter))):
        raise ImportError(f"{point.value} is neither a WindowExporter nor a CycleExporter")
    if found.format != point.name or not point.name.isidentifier() or point.name in TAKEN:
        raise ImportError(
            f"{point.value} has the format {found.format!r}; it must be the name of its entry point, {point.name!r}, "
            f"of letters, digits and '_', and none of {', '.join(sorted(TAKEN))}"
        )
    return found
