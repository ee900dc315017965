"""ODB-2: one file a window, one row an observed value, as ECMWF and its members read it.

Belongs here: the exporter, from a schema to a plan and from dataset files to one that is published. Each of its steps
has a module: mapping.py, writing.py with rows.py and encoder.py, and reading.py. Does not belong here: quality control,
or when an export is made.

The file is encoded by ECMWF's own library, odc, through its C interface, from whole NumPy columns, a frame at a time.
It is read back by the `odc` command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters import ExportPlan, ExportReport
from ionbeam_dagster.exporters.odb.mapping import VarnoMap
from ionbeam_dagster.exporters.odb.reading import OdbError, compare, read_back
from ionbeam_dagster.exporters.odb.settings import OdbCodes, VariableMapping
from ionbeam_dagster.exporters.odb.writing import told_by, united, write
from ionbeam_dagster.stores.publish import published


class OdbExporter:
    """Writes dataset windows as ODB-2.

    `variable_map` replaces the default mapping of the varnos that it names; a variable that it maps goes where it says
    and nowhere else. Heights come from the first of `HEIGHT_COLUMNS` that the dataset has.
    """

    format: ClassVar[str] = "odb"
    extension: ClassVar[str] = "odb"

    def __init__(self, variable_map: Sequence[VariableMapping] = (), codes: OdbCodes | None = None) -> None:
        self._map = VarnoMap(variable_map)
        self._codes = codes or OdbCodes()

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The varno of each variable column of `schema`, or why it has none."""
        targets, left_out = self._map.targets(schema)
        mapped: dict[str, str] = {}
        for target in targets:
            mapped[target.column] = "; ".join(filter(None, (mapped.get(target.column), str(target))))
        return ExportPlan(mapped, left_out)

    def export(self, dataset_file: Path, target: Path) -> ExportReport:
        """Write `target` from a dataset file; see `exporters.Exporter`.

        `seen` tells the rows and the mean of each varno as they were read in the new file, and the bounds of what was
        written; what had to be changed or left out; and who read it.
        """
        return self.export_all([dataset_file], target)

    def export_all(
        self, dataset_files: Sequence[Path], target: Path, about: Mapping[str, str] | None = None
    ) -> ExportReport:
        """The same from several files, in their order, in one `target`; a variable may be missing in some of them.

        `about` stands in the file's properties; without it, what the first of them says of itself.
        """
        from codc import ODCException

        try:
            schema = united([pq.read_schema(file) for file in dataset_files])
            plan = self.plan(schema)
            targets, _ = self._map.targets(schema)
            with published(target) as draft:
                written = write(dataset_files, schema, targets, self._codes, about or told_by(schema), draft)
                if written.rows == 0:
                    draft.unlink(missing_ok=True)
                    target.unlink(missing_ok=True)
                    return ExportReport(rows=0, bytes=0, stations=0, plan=plan)
                seen = read_back(draft, written)
                compare(written, seen)
                size = draft.stat().st_size
        except (OSError, pa.ArrowException, ODCException, OdbError) as error:
            of = ", ".join(map(str, dataset_files))
            raise ExportError(f"{target} was not written from {of}: {error}") from error
        return ExportReport(
            rows=written.rows,
            bytes=size,
            stations=written.station_ids.count,
            plan=plan,
            seen=seen.facts() | written.facts(),
        )
