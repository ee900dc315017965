"""The quarantine: rows that could not be used, each with the reason, where a person finds them.

Belongs here: where they lie, how they are written, found and read. Does not belong here: why a row cannot be used
(domain/canonical.py), or when they may go (pipeline/retention.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.damage import UNREADABLE
from ionbeam_dagster.stores.files import Files, folder_of, name_of, within

REASON = "reason"
"""The column that says why a row could not be used."""
WHOLE = "whole"
"""The column that says whether a row was lost as a whole, or a value of it."""


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """Rows of one raw partition of a source (or of an ingestion of a dataset, of those that InfluxDB refused): whose,
    the location of the file, its bytes, and when it was written."""

    of: str
    location: str
    bytes: int
    written_at: datetime


class QuarantineStore:
    """Files below a folder or prefix: ``<root>/<source>/<source>_<YYYYmmddTHHMMSS>_<span>.parquet``.

    Of what clients send, the name of the ingestion follows; what the time-series server refused lies in
    ``<root>/<dataset>/refused_<ingestion>.parquet``. Rows have the columns that they came with, and a ``reason``.
    Methods raise OSError when the disk refuses, and FilesError when S3 does.
    """

    def __init__(self, files: Files, root: str) -> None:
        self._files = files
        self.root = root

    def path(self, source: str, window: Window, ingestion: str = "") -> str:
        """The location of the rows of a raw partition; of one that a client sent, with its `ingestion`."""
        suffix = f"_{ingestion}" if ingestion else ""
        return within(self.root, source, f"{source}_{window.label}{suffix}.parquet")

    @contextmanager
    def writing(self, location: str) -> Iterator[QuarantineWriter]:
        """Take rejected rows as they come; when the block ends well, they are the file, and without a row there is
        none. When it raises, what was there before is left as it was."""
        with self._files.published(location) as draft, QuarantineWriter(draft) as writer:
            yield writer
        if not writer.rows and self._files.exists(location):
            self._files.delete(location)

    def refused_path(self, dataset: str, ingestion: str) -> str:
        """The location of the rows of an ingestion that the time-series server would not take."""
        return within(self.root, dataset, f"refused_{ingestion}.parquet")

    def refused_since(self, dataset: str, moment: datetime) -> int:
        """How many rows of a dataset the time-series server would not take since `moment`, of whatever windows."""
        begin = within(self.root, dataset, "refused_")
        listed = self._files.listed(within(self.root, dataset)).items()
        return sum(self.count(path) for path, one in listed if path.startswith(begin) and one.modified >= moment)

    def count(self, location: str) -> int:
        """How many rows a file has; 0 where there is none, or it is damaged."""
        try:
            with self._files.parquet(location) as file:
                rows: int = file.metadata.num_rows
                return rows
        except (FileNotFoundError, pa.ArrowInvalid):
            return 0

    def whole(self, location: str) -> int | None:
        """How many rows of a file were lost as a whole; None where there is none, it does not tell or is damaged."""
        try:
            with self._files.parquet(location) as file:
                if WHOLE not in file.schema_arrow.names:
                    return None
                parts = (batch.column(0) for batch in file.iter_batches(columns=[WHOLE]))
                return sum(int(part.true_count) for part in parts)
        except UNREADABLE:
            return None

    def files(self) -> list[QuarantinedFile]:
        """Every file that is there, in order of location."""
        return [
            QuarantinedFile(name_of(folder_of(location)), location, found.size, found.modified)
            for location, found in sorted(self._files.listed(self.root).items())
            if location.endswith(".parquet")
        ]

    def rows(self, location: str) -> Iterator[pa.RecordBatch]:
        """The rows of a file, in batches of bounded size; raises FileNotFoundError for one that is not there."""
        with self._files.parquet(location) as file:
            yield from file.iter_batches()


class QuarantineWriter:
    """The rejected rows of one raw partition, written as they come; `reasons` counts them by kind of reason, and
    `first` is that of the first row."""

    def __init__(self, draft: Path) -> None:
        self._draft = draft
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0
        self.first = ""
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> QuarantineWriter:
        return self

    def add(self, rejected: pl.DataFrame) -> None:
        table = rejected.to_arrow()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._draft, table.schema, compression="zstd")
        self._writer.write_table(table)
        self.first = self.first or str(rejected[REASON].first())
        self.rows += rejected.height
        kind = pl.col(REASON).str.replace_all(r": [^;]*", "")
        self.reasons.update(dict(rejected.group_by(kind).len().iter_rows()))

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
