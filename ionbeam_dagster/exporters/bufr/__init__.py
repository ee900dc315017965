"""BUFR edition 4: one file a window, one subset a report, in compressed messages of many subsets.

Belongs here: the exporter, from a dataset file to a published one, by way of the modules beside it: columns find
elements (mapping), rows become columns of integers (reports), these become messages (messages, packing), and eccodes
reads them back (reading). Does not belong here: those steps, quality control, or when an export is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import ExportError
from ionbeam_dagster.exporters import ExportPlan, ExportReport
from ionbeam_dagster.exporters.bufr.mapping import forms_of, plan_of
from ionbeam_dagster.exporters.bufr.messages import About, BufrError, write_messages
from ionbeam_dagster.exporters.bufr.reading import read_back
from ionbeam_dagster.exporters.bufr.settings import BufrSettings, gts_file_name
from ionbeam_dagster.exporters.bufr.templates import eccodes
from ionbeam_dagster.stores.publish import published


class BufrExporter:
    """Writes dataset windows as BUFR.

    Fixed stations go into 3 07 092, mobile ones into 3 07 090 (both from 3 01 150 on), particulate matter and gases of
    either into a list of their own. The typical time of a message is the start of its window, the time of a subset that
    of its row, to the minute.
    """

    format: ClassVar[str] = "bufr"
    extension: ClassVar[str] = "bufr"

    def __init__(self, settings: BufrSettings | None = None) -> None:
        self._settings = settings or BufrSettings()

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The descriptors of each variable column of `schema`, or why it has none; needs eccodes (ExportError)."""
        return plan_of(schema, forms_of(schema))

    def export(self, dataset_file: Path, target: Path) -> ExportReport:
        """Write `target` from a dataset file; see `exporters.Exporter`. `seen` is what eccodes read in the new file."""
        library = eccodes()
        try:
            with pq.ParquetFile(dataset_file, pre_buffer=False, buffer_size=1 << 18) as source:
                schema = source.schema_arrow
                forms = forms_of(schema)
                plan = plan_of(schema, forms)
                about = About.of(schema)
                with published(target) as draft:
                    written = write_messages(source, forms, about, self._settings, draft)
                    if not written.messages:
                        draft.unlink(missing_ok=True)
                        target.unlink(missing_ok=True)
                        return ExportReport(rows=0, bytes=0, stations=0, plan=plan, seen=written.facts())
                    read = read_back(draft, written)
                    size = draft.stat().st_size
        except (OSError, pa.ArrowException, library.CodesInternalError, BufrError) as error:
            raise ExportError(f"{target} was not written from {dataset_file}: {error}") from error
        return ExportReport(
            rows=written.subsets.total(),
            bytes=size,
            stations=written.stations,
            plan=plan,
            seen=read | written.facts(),
            gts_name=self._gts_name(about),
        )

    def _gts_name(self, about: About) -> str | None:
        if self._settings.cccc is None:
            return None
        return gts_file_name(self._settings, about.dataset, about.start, about.revision)
