"""The exporters that are installed, and their sections below ``projections``.

Belongs here: how the YAML's structure follows from what is installed. Does not belong here: the keys of an exporter,
and its own checks (they stand with it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ConfigDict, Field, create_model

from ionbeam_dagster.config.sections import Sections
from ionbeam_dagster.exporters import (
    CycleExporter,
    ExportedDataset,
    Exporter,
    WindowExporter,
    installed_exporters,
    loaded,
)
from ionbeam_dagster.exporters.settings import ExporterSettings
from ionbeam_dagster.settings import Settings


class _NotKnown(ExporterSettings):
    """The settings of an exporter that cannot be imported."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class InstalledExporters:
    """The types of exporters by format, and of those that cannot be imported the reason: they harm who uses them."""

    types: Mapping[str, type[WindowExporter] | type[CycleExporter]]
    broken: Mapping[str, str]

    def sections_model(self) -> type[Sections]:
        """The structure of the YAML with a section for each exporter; those that give the same one share it.

        What the section of a broken one may hold, nobody knows: it harms nobody who does not use the exporter.
        """
        of_section: dict[str, type[ExporterSettings]] = {f"{name}_service": _NotKnown for name in self.broken}
        of_section |= {exporter.section(): exporter.Settings for exporter in self.types.values()}
        return _sections_model(tuple(sorted(of_section.items(), key=lambda one: one[0])))

    def faults(self) -> list[str]:
        """What keeps the exporters from being configured at all."""
        if not self.types and not self.broken:  # code that is newer than its installation
            return ["no exporter is installed, not even the platform's own; install it again (pip install -e .)"]
        owners: dict[str, type[Exporter]] = {}
        return [
            f"projections.{exporter.section()}: belongs to {exporter.format} and to an exporter with other settings"
            for exporter in self.types.values()
            if owners.setdefault(exporter.section(), exporter).Settings is not exporter.Settings
        ]

    def made(self, sections: Sections) -> tuple[dict[str, WindowExporter], dict[str, CycleExporter]]:
        """The exporters of windows and those of cycles, by format, each with its section."""
        of_windows: dict[str, WindowExporter] = {}
        of_cycles: dict[str, CycleExporter] = {}
        for name, exporter in self.types.items():
            settings = getattr(sections.projections, exporter.section())
            if issubclass(exporter, CycleExporter):
                of_cycles[name] = exporter(settings)
            elif issubclass(exporter, WindowExporter):
                of_windows[name] = exporter(settings)
        return of_windows, of_cycles

    def use_faults(self, key: str, exports: tuple[str, ...]) -> Iterator[str]:
        """What is wrong with the formats that the `exports` of a source's block name."""
        unknown = sorted({*exports} - self.types.keys() - self.broken.keys())
        if unknown:
            yield f"{key}.exports: {', '.join(unknown)} not known; choose from {', '.join(sorted(self.types))}"
        yield from (f"{key}.exports: {self.broken[name]}" for name in exports if name in self.broken)
        for name in exports:
            if name in self.types and (lacking := self.types[name].lacking()):
                yield f"{key}.exports: {name} needs {lacking}"


@cache  # the same configuration, read twice, is equal
def _sections_model(settings: tuple[tuple[str, type[ExporterSettings]], ...]) -> type[Sections]:
    fields: dict[str, Any] = {
        section: (model, Field(default=model(), description=(model.__doc__ or "").split("\n")[0]))
        for section, model in settings
    }
    projections = create_model("Projections", __base__=Settings, **fields)
    described = Field(default=projections(), description="Where exports are written, and how.")
    return create_model("Sections", __base__=Sections, projections=(projections, described))


def find_exporters() -> InstalledExporters:
    """What is installed now. One that cannot be imported is told to who names it, and by `ionbeam config check`."""
    types: dict[str, type[WindowExporter] | type[CycleExporter]] = {}
    broken: dict[str, str] = {}
    for name, point in installed_exporters().items():
        try:
            types[name] = loaded(point)
        except ImportError as error:
            broken[name] = str(error)
    return InstalledExporters(types, broken)


def exporter_faults(
    exporters: Mapping[str, Exporter], datasets: Mapping[str, tuple[ExportedDataset, tuple[str, ...]]], data_path: str
) -> list[str]:
    """What of the exporters' sections does not fit the `datasets`, each with its formats, that they are to write."""
    found: list[str] = []
    for name, exporter in exporters.items():
        written = [dataset for dataset, formats in datasets.values() if name in formats]
        found += exporter.configuration_faults(written, data_path)
    return list(dict.fromkeys(found))  # exporters of one section find the same
