"""What leaves the platform of a dataset: its rows as others may see them.

Belongs here: the one place through which dataset files go on their way out: to exporters, and so to the web, and to
clients of the broker. Does not belong here: the rules (domain/privacy.py), or what is made of what is shown.

A file that is shown has the columns, the order by station and time, and the footer of a dataset file. Memory: a row
group, and two places a station. Where stations have pseudonyms, rows are sorted by these anew, in a temporary folder:
the order of the others would tell of the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import STATION, columns_of, point_key
from ionbeam_dagster.domain.geo import great_circle
from ionbeam_dagster.domain.privacy import Privacy, in_squares, pseudonyms
from ionbeam_dagster.domain.windows import Window
from ionbeam_dagster.pipeline.platform import Platform
from ionbeam_dagster.stores.timeseries.segments import SegmentStore

_GROUP = 100_000
_FIRST, _LAST = ("first_lat", "first_lon"), ("last_lat", "last_lon")


@dataclass(slots=True)
class Shown:
    """A file as others may see it, and what they do not see: columns, each with the reason, and `left_out` rows."""

    path: Path
    hidden: dict[str, str] = field(default_factory=dict)
    left_out: int = 0


def rules_for(dataset: DatasetSettings, door: str) -> Privacy | None:
    """The rules of a dataset at a door, a format of exports or the bus; None where there are none."""
    rules = dataset.privacy
    return None if rules is None or door in rules.exact_in else rules


def fingerprint(platform: Platform, dataset: DatasetSettings, door: str) -> str:
    """What tells what is shown at a door from what was shown by other rules; empty where all is shown as it is."""
    rules = rules_for(dataset, door)
    return rules.fingerprint(platform.privacy.key()) if rules is not None and rules.changes_rows else ""


def from_when(dataset: DatasetSettings, door: str, window: Window) -> datetime | None:
    """The moment before which a window is not to be shown at a door; None: it may be at once."""
    rules = rules_for(dataset, door)
    return window.end + rules.delay if rules is not None and rules.delay else None


@contextmanager
def shown(platform: Platform, dataset: DatasetSettings, door: str, dataset_file: Path) -> Iterator[Shown]:
    """A dataset file as it is shown at a door, for as long as the block lasts; the file itself where there is no rule.

    Raises PrivacyError where the key of the pseudonyms cannot be used.
    """
    rules = rules_for(dataset, door)
    if rules is None or not rules.changes_rows:
        yield Shown(dataset_file)
        return
    with platform.files.scratch() as folder:
        view = _View(rules, platform.privacy.key(), dataset.name, dataset_file)
        made = Shown(folder / dataset_file.name, view.hidden)
        rows = view.in_order(folder) if rules.station_id == "pseudonym" else view.batches()
        with pq.ParquetWriter(made.path, view.schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_table(pa.Table.from_batches([batch]).cast(view.schema), row_group_size=_GROUP)
        made.left_out = view.left_out
        yield made


class _View:
    """The rows of a dataset file by the rules."""

    def __init__(self, rules: Privacy, key: bytes, dataset: str, file: Path) -> None:
        self._rules, self._key, self._dataset, self._file = rules, key, dataset, file
        whole = pq.read_schema(file)
        self._station = point_key(whole)
        described = columns_of(whole, "metadata")
        self.hidden = dict.fromkeys(rules.hidden(described), "may name its station (privacy.station_id)")
        self.hidden |= {name: "left out by privacy.drop" for name in rules.drop if name in whole.names}
        gone = {name.encode() for name in self.hidden}
        fields = [one for one in whole if one.name.encode() not in gone and (one.metadata or {}).get(b"of") not in gone]
        if STATION not in whole.names:  # what told stations apart no longer does
            fields.append(pa.field(STATION, pa.string(), metadata={"role": "metadata"}))
        self.schema = pa.schema(fields, metadata=whole.metadata)
        self._ends = self._ends_of_drives() if rules.drive_ends else None
        self.left_out = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        for rows in self._rows():
            table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self.schema)
            yield from table.combine_chunks().to_batches()

    def in_order(self, folder: Path) -> Iterator[pa.RecordBatch]:
        """The same, sorted by the names that are shown."""
        store = SegmentStore(folder / "sorted")
        if store.write("shown", "all", 0, self._rows(), [STATION]):
            time = pl.col("datetime")
            found = pl.scan_parquet(self._file, glob=False).select(time.min(), last=time.max()).collect()
            first, last = found.row(0)
            yield from store.read("shown", Window(first, last + timedelta.resolution), self.schema, [STATION])

    def _rows(self) -> Iterator[pl.DataFrame]:
        with pq.ParquetFile(self._file, pre_buffer=False) as file:
            for batch in file.iter_batches(_GROUP):
                rows = self._without_ends(pl.DataFrame(pl.from_arrow(batch)))
                self.left_out += batch.num_rows - rows.height
                if rows.height:
                    yield self._placed(self._named(rows)).select(self.schema.names)

    def _named(self, rows: pl.DataFrame) -> pl.DataFrame:
        if STATION in rows.columns and self._rules.station_id == "as is":
            return rows
        names = pl.concat_str(pl.col(self._station).cast(pl.String).fill_null(""), separator="\0")
        told = rows.select(pl.col(STATION) if STATION in rows.columns else names).to_series()
        return rows.with_columns(pseudonyms(told, self._key, self._dataset).alias(STATION))

    def _placed(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._rules.position == "exact":
            return rows
        lat, lon = in_squares(rows["lat"].to_numpy(), rows["lon"].to_numpy(), self._rules.position)
        return rows.with_columns(pl.Series("lat", lat), pl.Series("lon", lon))

    def _ends_of_drives(self) -> pl.DataFrame:
        """Where each station is first and last in the file."""
        by_time = pl.scan_parquet(self._file, glob=False).select({*self._key_columns(), "datetime", "lat", "lon"})
        ends = [
            pl.col(axis).sort_by("datetime").get(place).alias(name)
            for names, place in ((_FIRST, 0), (_LAST, -1))
            for axis, name in zip(("lat", "lon"), names, strict=True)
        ]
        return by_time.group_by(self._key_columns()).agg(ends).collect(engine="streaming")

    def _key_columns(self) -> Sequence[str]:
        """What tells drives apart: the station, or all that describes it."""
        return [name for name in self._station if name not in ("lat", "lon")]

    def _without_ends(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self._ends is None:
            return rows
        found = rows.join(self._ends, on=self._key_columns(), how="left", nulls_equal=True, maintain_order="left")
        lat, lon = rows["lat"].to_numpy(), rows["lon"].to_numpy()
        near = np.zeros(rows.height, bool)
        for names in (_FIRST, _LAST):
            there = [found[name].to_numpy() for name in names]
            near |= great_circle(lat, lon, there[0], there[1]) <= self._rules.drive_ends
        return rows.filter(~near)
