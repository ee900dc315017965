"""Exporters: each writes one dataset window in one format that leaves the platform.

Belongs here: the interface, what an exporter tells of its work, and one module or package a format. An exporter reads
its file back with a decoder that is not ours before the file is published. Does not belong here: when an export is
made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """Where each column of a dataset goes (`mapped`: column -> its name in the format); which stay behind, and why."""

    mapped: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What came of one export: rows in the format's own sense, the plan it followed, and what the read-back saw.

    `gts_name` is the name under which the file is passed on as a bulletin, if it is.
    """

    rows: int
    bytes: int
    stations: int
    plan: ExportPlan
    seen: dict[str, object] = field(default_factory=dict)
    gts_name: str | None = None


class Exporter(Protocol):
    """Writes dataset windows in one format."""

    format: ClassVar[str]
    extension: ClassVar[str]

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """What will become of the columns of a dataset file's `schema` (domain/canonical.py tells its metadata)."""
        ...

    def export(self, dataset_file: Path, target: Path) -> ExportReport:
        """Write `target` from a dataset file, atomically, after reading it back. No row to export: no file at `target`.

        Raises ExportError; memory does not grow with the file.
        """
        ...
