"""Soundness: what in a dataset file keeps it from being exported, told from its footer.

Belongs here: faults of the file that would go on into every export: its columns, and rows off the globe. Does not
belong here: quality control of values, or how checks are shown (orchestration/checks.py).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import TIME, variables_of

Ranges = dict[str, tuple[Any, Any]]
"""The least and greatest value of each column."""


def is_sound(file: pq.ParquetFile) -> bool:
    """Whether a dataset file may be exported."""
    schema, ranges = file.schema_arrow, ranges_of(file)
    return not schema_faults(schema) and not off_the_globe(ranges)


def ranges_of(file: pq.ParquetFile) -> Ranges:
    """The least and greatest value of every column that has any, from the footer."""
    found: Ranges = {}
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if column.statistics is None or not column.statistics.has_min_max:
                continue
            least, greatest = found.get(column.path_in_schema, (column.statistics.min, column.statistics.max))
            found[column.path_in_schema] = min(least, column.statistics.min), max(greatest, column.statistics.max)
    return found


def schema_faults(schema: pa.Schema) -> list[str]:
    """What is wrong with the columns of a dataset file, a sentence each."""
    wanted = {"datetime": TIME, "lat": pa.float64(), "lon": pa.float64()}
    faults = [
        f"column {name!r} should be there as {kind}"
        for name, kind in wanted.items()
        if name not in schema.names or schema.field(name).type != kind
    ]
    try:
        list(variables_of(schema))
    except ValueError as error:
        faults.append(str(error))
    return faults


def off_the_globe(ranges: Ranges) -> list[str]:
    """Which coordinates (degrees) no place on Earth has, a sentence each."""
    return [
        f"{name} reaches from {ranges[name][0]} to {ranges[name][1]}"
        for name, limit in (("lat", 90.0), ("lon", 180.0))
        if name in ranges and not (-limit <= ranges[name][0] and ranges[name][1] <= limit)
    ]
