"""Files that are tables with columns of their own types: Parquet.

Belongs here: formats that need no word of how their cells are written. Does not belong here: lines of text
(csv_files.py), and what becomes of rows (rows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import polars as pl
import pyarrow.parquet as pq

from ionbeam_dagster.sources.files.readers import (
    PROBLEM,
    ROW,
    Place,
    TableReader,
    Unreadable,
    listed,
    near_names,
    refusals,
)
from ionbeam_dagster.stores.publish import file_hash

ROWS_AT_ONCE = 128 * 1024


class ParquetReader(TableReader):
    """Parquet; a part is one row group, ``(its number, the number of its first row)``."""

    def parts(self, path: Path, whole_lines: bool = False) -> Iterator[tuple[Place, str]]:
        with refusals():
            content = file_hash(path)[:16]
            with pq.ParquetFile(path) as file:
                found = file.schema_arrow.names
                missing = [column for column in self.wanted(path) if column not in found]
                if missing:
                    raise Unreadable(
                        f"has no column {listed(missing)}; it has {listed(found)}{near_names(missing, found)}; "
                        "correct the YAML or the file"
                    )
                row = 1
                for number in range(file.num_row_groups):
                    yield (number, row), content
                    row += file.metadata.row_group(number).num_rows

    def columns(self, path: Path) -> list[str]:
        with refusals(), pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)

    def read(self, path: Path, places: Iterable[Place], columns: Sequence[str]) -> Iterator[tuple[Place, pl.DataFrame]]:
        with refusals(), pq.ParquetFile(path) as file:
            for place in places:
                number, row = place
                there = [column for column in columns if column in file.schema_arrow.names]
                absent = [pl.lit(None, pl.String).alias(column) for column in columns if column not in there]
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[number], columns=there):
                    frame = cast(pl.DataFrame, pl.from_arrow(batch)).with_columns(*absent)
                    yield (
                        place,
                        frame.with_columns(
                            pl.int_range(row, row + frame.height, dtype=pl.Int64).alias(ROW),
                            pl.lit(None, pl.String).alias(PROBLEM),
                        ),
                    )
                    row += frame.height
