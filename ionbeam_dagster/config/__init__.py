"""The configuration: the YAML's structure, how it is read, and which sources and datasets follow from it.

    reading.py      text to plain values, with secrets in place
    sections.py     the sections of the platform itself
    validation.py   plain values to settings, faults to sentences
    exporting.py    exporters, and their sections
    resolving.py    sources, datasets and their policies
    checks.py       what of it cannot work together
    schema.py       all of it as JSON Schema, for editors and docs/configuration.md

Belongs here: what assembles the settings of all rooms below. Does not belong here: anything that connects, and the keys
of one source, exporter or store (they stand with it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Self

from ionbeam_client.models import format_duration
from ionbeam_dagster.config.checks import faults as faults_together
from ionbeam_dagster.config.exporting import find_exporters
from ionbeam_dagster.config.reading import CONFIG_VARIABLE, read
from ionbeam_dagster.config.resolving import (
    DatasetSettings,
    SourceSettings,
    resolve_datasets,
    resolve_sources,
    source_configs,
    split,
)
from ionbeam_dagster.config.sections import Automation, Retention, Sections
from ionbeam_dagster.config.validation import validated
from ionbeam_dagster.errors import ConfigError
from ionbeam_dagster.exporters import CycleExporter, Exporter, WindowExporter

_MOST_QUICK = 110_000  # a year of five-minute windows, and some

__all__ = ["CONFIG_VARIABLE", "Automation", "DatasetSettings", "IonbeamConfig", "Retention", "SourceSettings"]


@dataclass(frozen=True, slots=True)
class IonbeamConfig:
    """A checked configuration."""

    path: Path
    sections: Sections
    sources: dict[str, SourceSettings]
    datasets: dict[str, DatasetSettings]
    window_exporters: dict[str, WindowExporter] = field(compare=False)  # what they are made of is compared: sections
    cycle_exporters: dict[str, CycleExporter] = field(compare=False)

    @property
    def exporters(self) -> dict[str, Exporter]:
        """All that are installed, by format, whether a dataset is written by them or not."""
        return {**self.window_exporters, **self.cycle_exporters}

    @property
    def automation(self) -> Automation:
        return self.sections.automation

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read the YAML at `path`, at ``$IONBEAM_CONFIG_PATH``, or the shipped default, which needs no server.

        Raises ConfigError with every fault that was found, a line each.
        """
        path = path or _configured_path()
        own, blocks, faults = split(read(path))
        installed = find_exporters()
        sections, section_faults = validated(installed.sections_model(), own, "")
        configs, block_faults = source_configs(blocks)
        faults += section_faults + block_faults + installed.faults()
        if sections is None or faults:
            raise _refused(path, faults)
        sources, faults = resolve_sources(sections, configs)
        of_windows, of_cycles = installed.made(sections)
        datasets, dataset_faults = resolve_datasets(sources, of_cycles)
        faults += dataset_faults
        faults += faults_together(sections, sources, datasets, installed, {**of_windows, **of_cycles})
        if faults:
            raise _refused(path, faults)
        return cls(path, sections, sources, datasets, of_windows, of_cycles)

    def notes(self, now: datetime) -> list[str]:
        """What a person should know about this configuration although it is valid."""
        of_exporters = dict.fromkeys(note for exporter in self.exporters.values() for note in exporter.notes())
        return [
            *self._notes_of_partitions(now), *self._notes_of_retention(), *self._notes_of_licences(), *of_exporters
        ]  # fmt: skip

    def _notes_of_partitions(self, now: datetime) -> Iterator[str]:
        products = [
            *((f"sources.{name}", one.start, one.end, one.window_size) for name, one in self.sources.items()),
            *((f"dataset {name!r}", one.start, one.end, one.span) for name, one in self.datasets.items()),
        ]
        for key, start, end, span in products:
            count = (min(end or now, now) - start) // span
            if count > _MOST_QUICK:
                yield (
                    f"{key}: has {count:,} windows of {format_duration(span)} since its start {start:%Y-%m-%d}; "
                    "Dagster is quick up to about 100,000: set a later start, or longer windows"
                )

    def _notes_of_licences(self) -> Iterator[str]:
        for name, dataset in self.datasets.items():
            if withheld := [one for one in dataset.sources if not self.sources[one].config.redistribution]:
                yield (
                    f"dataset {name!r} is not served on the web: what {', '.join(withheld)} gives may not be given to "
                    "others (redistribution: false)"
                )

    def _notes_of_retention(self) -> list[str]:
        kept = self.sections.retention
        after_sealing = {"raw": kept.raw, "observations": kept.observations}
        set_keys = [key for key, age in after_sealing.items() if age is not None]
        open_ended = [name for name, dataset in self.datasets.items() if dataset.policy.revise_for is None]
        if not set_keys or not open_ended:
            return []
        return [
            f"retention.{' and retention.'.join(set_keys)} count from when a window is sealed, but windows of "
            f"{', '.join(open_ended)} never are by themselves: give it revise_for, or use `ionbeam seal`"
        ]


def _configured_path() -> Path:
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else Path(str(files("ionbeam_dagster") / "default.yaml"))


def _refused(path: Path, faults: list[str]) -> ConfigError:
    return ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
