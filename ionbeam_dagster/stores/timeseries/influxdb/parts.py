"""What an ingestion has in InfluxDB: its parts, hour by hour, and the layers in which they lie.

Belongs here: the record of them, and what is seen of several. Does not belong here: how they are asked for (bucket.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.canonical import EARLIEST, LATEST
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.stores.timeseries import TIME

PARTS = "ionbeam.parts"  # no dataset's name has a dot
EVER = Window(EARLIEST, LATEST)


@dataclass(frozen=True, slots=True)
class Part:
    """What one attempt to write an ingestion has in one hour of one layer.

    Its times lie in [first, last], in microseconds since 1970. `number` counts the attempts to write the ingestion.
    """

    ingestion: str
    attempt: str
    number: int
    arrival: int
    datetime: datetime  # the hour
    first: int
    last: int
    rows: int
    layer: str
    ready: bool | None = None
    retired: bool | None = None

    def overlaps(self, other: Part) -> bool:
        return self.datetime == other.datetime and self.first <= other.last and other.first <= self.last


PART_TAGS = ["dataset", "ingestion", "attempt"]
PART_SCHEMA = pa.schema(
    [("ingestion", pa.string()), ("attempt", pa.string()), ("number", pa.int64()), ("arrival", pa.int64()),
     (TIME, pa.timestamp("us", tz="UTC")), ("first", pa.int64()), ("last", pa.int64()), ("rows", pa.int64()),
     ("layer", pa.string()), ("ready", pa.bool_()), ("retired", pa.bool_())]
)  # fmt: skip
PART_FRAME = pl.DataFrame(PART_SCHEMA.empty_table()).schema


def visible(parts: Iterable[Part]) -> list[Part]:
    """Of each ingestion the parts of the latest attempt that is ready."""
    latest: dict[str, tuple[int, str]] = {}
    ready = [part for part in parts if part.ready and not part.retired]
    for part in ready:
        latest[part.ingestion] = max(latest.get(part.ingestion, (0, "")), (part.number, part.attempt))
    return [part for part in ready if (part.number, part.attempt) == latest[part.ingestion]]
