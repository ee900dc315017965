"""Stations that are forgotten, and names that are shown in the place of others.

Belongs here: marks of ids that cannot be read back without the key of the installation. Does not belong here: where the
key and the marks are kept (stores/privacy.py), or what is removed of a station (pipeline/forgetting).

A mark is an HMAC-SHA-256 (RFC 2104) of an id: whoever has it and not the key cannot even try out ids.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import polars as pl
import pyarrow as pa

from ionbeam_dagster.domain.canonical import STATION
from ionbeam_dagster.domain.raw_values import as_text

_LOG = logging.getLogger(__name__)


def mark_of(key: bytes, purpose: str, *names: str) -> str:
    """64 hexadecimal digits that stand for `names`, others for each `purpose` and `key`."""
    told = "\0".join([purpose, *names]).encode("utf-8", "surrogatepass")
    return hmac.new(key, told, sha256).hexdigest()


@dataclass(frozen=True)
class Forgotten:
    """The stations of `source` that are forgotten, by their `marks`."""

    source: str = ""
    key: bytes = b""
    marks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.marks)

    def among(self, stations: pl.Series) -> pl.Series:
        """Whether each of these ids is that of a station that is forgotten; an id that is null is not."""
        different = stations.unique().drop_nulls()
        gone = [name for name in different if mark_of(self.key, "forgotten", self.source, name) in self.marks]
        return stations.is_in(gone).fill_null(False)

    def left(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows, with the column STATION, that are of no such station."""
        return rows if not self or STATION not in rows.columns else rows.filter(~self.among(as_text(rows[STATION])))

    def left_of_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The same of a raw batch."""
        if not self or STATION not in batch.schema.names:
            return batch
        gone = self.among(as_text(pl.Series(STATION, batch.column(STATION))))
        return batch.filter((~gone).to_arrow()) if gone.any() else batch


NOBODY = Forgotten()


class Left:
    """What is left of batches of a source without the stations that are forgotten; `out` counts the rows of these."""

    def __init__(self, forgotten: Forgotten) -> None:
        self._forgotten = forgotten
        self.out = 0

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            left = self._forgotten.left_of_batch(batch)
            self.out += batch.num_rows - left.num_rows
            yield left

    def tell(self, of: str) -> None:
        if self.out:
            _LOG.info("%s: %d rows of stations that are forgotten were left out", of, self.out)
