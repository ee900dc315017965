"""The configuration: the YAML's structure, how it is read, and which sources and datasets follow from it.

    reading.py      text to plain values, with secrets in place
    sections.py     the sections of the platform itself
    validation.py   plain values to settings, faults to sentences
    resolving.py    sources, datasets and their policies
    checks.py       what of it cannot work together
    schema.py       all of it as JSON Schema, for editors and docs/configuration.md

Belongs here: what assembles the settings of all rooms below. Does not belong here: anything that connects, and the keys
of one source, exporter or store (they stand with it).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from ionbeam_dagster.config.checks import faults as faults_together
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

__all__ = ["CONFIG_VARIABLE", "Automation", "DatasetSettings", "IonbeamConfig", "Retention", "SourceSettings"]


@dataclass(frozen=True, slots=True)
class IonbeamConfig:
    """A checked configuration."""

    path: Path
    sections: Sections
    sources: dict[str, SourceSettings]
    datasets: dict[str, DatasetSettings]

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
        sections, section_faults = validated(Sections, own, "")
        configs, block_faults = source_configs(blocks)
        faults += section_faults + block_faults
        if sections is None or faults:
            raise _refused(path, faults)
        sources, faults = resolve_sources(sections, configs)
        datasets, dataset_faults = resolve_datasets(sources)
        faults += dataset_faults + faults_together(sections, sources, datasets)
        if faults:
            raise _refused(path, faults)
        return cls(path, sections, sources, datasets)

    def notes(self) -> list[str]:
        """What a person should know about this configuration although it is valid."""
        notes = self._notes_of_retention()
        service = self.sections.projections.pygeoapi_service
        if service.config_path is not None and find_spec("pygeoapi") is None:
            notes.append(
                "projections.pygeoapi_service.config_path is set, but PyGeoAPI is not installed: its "
                "configuration is not written; pip install 'ionbeam-dagster[edr]'"
            )
        return notes

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
