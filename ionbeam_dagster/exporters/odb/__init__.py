"""ODB-2: one file a window or an analysis cycle, one row an observed value, as ECMWF and its members read it.

Belongs here: the exporters, from a schema to a plan and from dataset files to one file that was read back. Each of the
steps has a module: mapping.py, writing.py with rows.py and encoder.py, and reading.py. Does not belong here: quality
control, or when an export is made.

The file is encoded by ECMWF's own library, odc, through its C interface, from whole NumPy columns, a frame at a time.
It is read back by the `odc` command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import ExportError, UnknownFile
from ionbeam_dagster.exporters import CycleExporter, Exporter, ExportPlan, ExportReport, WindowExporter
from ionbeam_dagster.exporters.odb.mapping import VarnoMap
from ionbeam_dagster.exporters.odb.reading import OdbError, compare, describe_odb, read_back
from ionbeam_dagster.exporters.odb.settings import OdbSettings
from ionbeam_dagster.exporters.odb.station_ids import shared_statids
from ionbeam_dagster.exporters.odb.writing import properties_of, united, write
from ionbeam_dagster.stores.contents import Contents, begins_with


class OdbBase(Exporter):
    """What both forms have in common.

    `variable_map` replaces the default mapping of the varnos that it names; a variable that it maps goes where it says
    and nowhere else. Heights come from the first of `HEIGHT_COLUMNS` that the dataset has.
    """

    Settings: ClassVar[type[OdbSettings]] = OdbSettings
    extension = "odb"
    kinds = ("odb",)
    version = "2"

    def __init__(self, settings: OdbSettings | None = None) -> None:
        self.settings: OdbSettings = settings or OdbSettings()
        self._map = VarnoMap(self.settings.variable_map)

    @classmethod
    def section(cls) -> str:
        return "odb_service"

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The varno of each variable column of `schema`, or why it has none."""
        targets, left_out = self._map.targets(schema)
        mapped: dict[str, str] = {}
        for target in targets:
            mapped[target.column] = "; ".join(filter(None, (mapped.get(target.column), str(target))))
        return ExportPlan(mapped, left_out)

    def varnos(self, schema: pa.Schema) -> list[tuple[str, int]]:
        """Each column of `schema` that is written, with its varno; a column of several is there several times."""
        return sorted({(target.column, target.varno.number) for target in self._map.targets(schema)[0]})

    def shared_names(self, stations: Mapping[str, str | None]) -> dict[str, list[str]]:
        return shared_statids(stations)

    @classmethod
    def describe(cls, path: Path) -> Contents | None:
        """Its varnos, and what it says of itself."""
        if not begins_with(path, b"ODA", at=2):
            return None
        try:
            facts, columns = describe_odb(path)
        except OdbError as error:
            raise UnknownFile(str(error)) from error
        return Contents("ODB-2 export", {"bytes": f"{path.stat().st_size:,}"} | facts, columns)

    def _written(self, dataset_files: Sequence[Path], draft: Path, about: Mapping[str, str] | None) -> ExportReport:
        """`about` stands in the file's properties; without it, what the first dataset file says of itself.

        `read_back` tells the rows and the mean of each varno as they were read in the new file, and the bounds of what
        was written; what had to be changed or left out; and who read it.
        """
        from codc import ODCException

        try:
            schema = united([pq.read_schema(file) for file in dataset_files])
            plan = self.plan(schema)
            targets, _ = self._map.targets(schema)
            properties = about or properties_of(schema)
            written = write(dataset_files, schema, targets, self.settings.codes, properties, draft)
            if written.rows == 0:
                return ExportReport(rows=0, stations=0, plan=plan)
            read = read_back(draft, written)
            compare(written, read)
        except (OSError, pa.ArrowException, ODCException, OdbError) as error:
            of = ", ".join(map(str, dataset_files))
            raise ExportError(f"was not written from {of}: {error}") from error
        return ExportReport(
            rows=written.rows,
            stations=written.station_ids.count,
            plan=plan,
            read_back=read.facts() | written.facts(),
        )


class OdbExporter(OdbBase, WindowExporter):
    """Writes dataset windows as ODB-2."""

    format = "odb"
    title = "ODB-2, for data assimilation and verification at ECMWF and its members: one row a measured value"

    def export(self, dataset_file: Path, draft: Path) -> ExportReport:
        """Write `draft` from a dataset file; see `exporters.WindowExporter`."""
        return self._written([dataset_file], draft, None)


class OdbCycleExporter(OdbBase, CycleExporter):
    """Writes analysis cycles as ODB-2."""

    Settings: ClassVar[type[OdbSettings]] = OdbSettings
    settings: OdbSettings
    format = "odb_cycle"
    title = "ODB-2, for data assimilation: one row a measured value"

    def export(self, dataset_files: Sequence[Path], draft: Path, about: Mapping[str, str]) -> ExportReport:
        """Write `draft` from several dataset files; see `exporters.CycleExporter`."""
        return self._written(dataset_files, draft, about)
