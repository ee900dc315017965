"""BUFR edition 4: one file a window, one subset a report, in compressed messages of many subsets.

Belongs here: the exporter, from a dataset file to one that was read back, by way of the modules beside it: columns find
elements (mapping), rows become columns of integers (reports), these become messages (messages, packing), and eccodes
reads them back (reading). Does not belong here: those steps, quality control, or when an export is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.errors import ExportError, UnknownFile
from ionbeam_dagster.exporters import ExportedDataset, ExportPlan, ExportReport, WindowExporter
from ionbeam_dagster.exporters.bufr.mapping import forms_of, plan_of
from ionbeam_dagster.exporters.bufr.messages import About, BufrError, write_messages
from ionbeam_dagster.exporters.bufr.reading import describe_bufr, read_back
from ionbeam_dagster.exporters.bufr.settings import (
    MOST_BYTES_OF_A_BULLETIN,
    BufrService,
    BufrSettings,
    gts_file_name,
)
from ionbeam_dagster.exporters.bufr.templates import eccodes
from ionbeam_dagster.stores.contents import Contents, begins_with


class BufrExporter(WindowExporter):
    """Writes dataset windows as BUFR.

    Fixed stations go into 3 07 092, mobile ones into 3 07 090 (both from 3 01 150 on), particulate matter and gases of
    either into a list of their own. The typical time of a message is the start of its window, the time of a subset that
    of its row, to the minute. Where a sender is configured, a copy of each file lies below ``gts``, under the name by
    which the GTS takes it.
    """

    Settings: ClassVar[type[BufrService]] = BufrService
    format = "bufr"
    title = "BUFR edition 4, for the GTS and WIS2: compressed messages of many reports"
    extension = "bufr"
    media_type = "application/bufr"
    kinds = ("bufr",)
    version = "2"
    checks: ClassVar[Mapping[str, str]] = {
        "gts_size": f"a file for the GTS has at most {MOST_BYTES_OF_A_BULLETIN:,} bytes, the most of a bulletin in BUFR"
    }

    def __init__(self, settings: BufrService | None = None) -> None:
        self.settings: BufrService = settings or BufrService()

    @property
    def _sender(self) -> BufrSettings:
        return self.settings.settings

    @classmethod
    def lacking(cls) -> str | None:
        return None if find_spec("eccodes") is not None else "eccodes; pip install 'ionbeam-dagster[bufr]'"

    def faults(self, datasets: Sequence[ExportedDataset]) -> list[str]:
        """A message switch knows a bulletin by its heading and time: two datasets may not send under one heading."""
        place = f"projections.{self.section()}.settings.headings"
        sending = [dataset.name for dataset in datasets]
        faults = [
            f"{place}: no dataset {name!r} writes BUFR; those that do are {', '.join(sending) or 'none'}"
            for name in self._sender.headings
            if name not in sending
        ]
        if self._sender.cccc is None:
            return faults
        under: dict[str, list[str]] = {}
        for name in sending:
            under.setdefault(self._sender.heading_of(name), []).append(name)
        return faults + [
            f"{place}: {' and '.join(names)} would send bulletins of the same names, {heading} {self._sender.cccc}; "
            f"give each dataset a heading of its own, for example {names[-1]}: "
            f"{heading[:4]}{(int(heading[4:]) + 1) % 100:02}"
            for heading, names in under.items()
            if len(names) > 1
        ]

    def plan(self, schema: pa.Schema) -> ExportPlan:
        """The descriptors of each variable column of `schema`, or why it has none; needs eccodes (ExportError)."""
        return plan_of(schema, forms_of(schema))

    def export(self, dataset_file: Path, draft: Path) -> ExportReport:
        """Write `draft` from a dataset file; see `exporters.WindowExporter`. It is read back by eccodes."""
        library = eccodes()
        try:
            with pq.ParquetFile(dataset_file, pre_buffer=False, buffer_size=1 << 18) as source:
                schema = source.schema_arrow
                forms = forms_of(schema)
                plan = plan_of(schema, forms)
                about = About.of(schema)
                written = write_messages(source, forms, about, self._sender, draft)
            if not written.messages:
                return ExportReport(rows=0, stations=0, plan=plan, read_back=written.facts())
            read = read_back(draft, written)
        except (OSError, pa.ArrowException, library.CodesInternalError, BufrError) as error:
            raise ExportError(f"was not written from {dataset_file}: {error}") from error
        return ExportReport(
            rows=written.subsets.total(),
            stations=written.stations,
            plan=plan,
            read_back=read | written.facts(),
            copies=self._copies(about),
            not_passed=self._too_large(draft),
        )

    def _copies(self, about: About) -> dict[str, str]:
        if self._sender.cccc is None:
            return {}
        name = gts_file_name(self._sender, about.dataset, about.start, about.revision)
        return {"for the GTS": f"gts/{about.dataset}/{name}"}

    def _too_large(self, draft: Path) -> dict[str, str]:
        size = draft.stat().st_size
        if self._sender.cccc is None or size <= MOST_BYTES_OF_A_BULLETIN:
            return {}
        return {
            "gts_size": f"the file for the GTS has {size:,} bytes, but a bulletin may have "
            f"{MOST_BYTES_OF_A_BULLETIN:,}: a message switch may refuse it; a shorter aggregation_span, or two "
            "datasets with a heading each, make smaller ones"
        }

    @classmethod
    def describe(cls, path: Path) -> Contents | None:
        """Its messages and elements."""
        if not begins_with(path, b"BUFR"):
            return None
        try:
            facts, columns = describe_bufr(path)
        except (BufrError, ExportError) as error:
            raise UnknownFile(str(error)) from error
        return Contents("BUFR export", {"bytes": f"{path.stat().st_size:,}"} | facts, columns)
