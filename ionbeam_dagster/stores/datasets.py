"""Dataset windows: the canonical Parquet files, one immutable file a revision."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.domain.canonical import point_key
from ionbeam_dagster.domain.records import Provenance
from ionbeam_dagster.domain.windows import Window, window_from_label
from ionbeam_dagster.stores.damage import UNREADABLE, is_of_the_file, read_through
from ionbeam_dagster.stores.files import Files, name_of, within
from ionbeam_dagster.stores.publish import DAMAGED, file_hash

PROVENANCE = b"ionbeam"
_ROW_GROUP = 100_000


@dataclass(frozen=True, slots=True)
class DatasetFile:
    path: str
    rows: int
    stations: int
    bytes: int
    hash: str


@dataclass(frozen=True, slots=True)
class FoundRevision:
    """A revision as the footer of its file tells of it.

    `fault` says why the file is no good ("": nothing is known against it). Of one whose footer is damaged no more than
    its window and number are known, and it has no `inputs`.
    """

    provenance: Provenance
    files: Files
    path: str
    rows: int = 0
    fault: str = ""

    def read_through(self) -> tuple[int, str]:
        """The number of its different stations, and its SHA-256; raises one of UNREADABLE where a page is damaged."""
        with self.files.fetched(self.path) as file:
            read_through(file)
            key = pl.struct(point_key(pq.read_schema(file)))
            stations = pl.scan_parquet(file, glob=False).select(key.n_unique()).collect().item()
            return int(stations), file_hash(file)


class DatasetStore:
    """Dataset files under a folder or prefix:

    ``<root>/<dataset>/<dataset>_<YYYYmmddTHHMMSS>_<span>_r<revision>.parquet``
    """

    def __init__(self, files: Files, root: str) -> None:
        self._files = files
        self._root = root

    def folder(self, dataset: str) -> str:
        return within(self._root, dataset)

    def path(self, dataset: str, window: Window, number: int) -> str:
        return within(self._root, dataset, f"{dataset}_{window.label}_r{number}.parquet")

    def write(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch], provenance: Provenance) -> DatasetFile:
        """Write one revision from rows ordered by station and time; same rows, same provenance: same bytes."""
        path = self.path(provenance.dataset, provenance.window, provenance.number)
        described = schema.with_metadata({PROVENANCE: json.dumps(provenance.to_json(), sort_keys=True).encode()})
        counted = _Stations(point_key(schema))
        rows = 0
        with self._files.published(path) as draft:
            with pq.ParquetWriter(draft, described, compression="zstd") as writer:
                for table in _in_groups(schema, batches):
                    writer.write_table(table.cast(described), row_group_size=_ROW_GROUP)
                    counted.add(table)
                    rows += table.num_rows
            size, hash = draft.stat().st_size, file_hash(draft)
        return DatasetFile(path, rows, counted.number, size, hash)

    def latest(self, dataset: str) -> Iterator[FoundRevision]:
        """The latest revision of every window that has a file here, also one that was set aside, in order of time.

        Where its footer is damaged, the one before it whose footer is not comes first: it knows of claims.
        """
        named = re.compile(rf"{re.escape(dataset)}_(\d{{8}}T\d{{6}}_P\w+)_r(\d+)\.parquet({re.escape(DAMAGED)})?")
        windows: dict[str, dict[int, str]] = {}
        for path in self._files.under(within(self._root, dataset)):
            if found := named.fullmatch(name_of(path)):
                label, number, _ = found.groups()
                windows.setdefault(label, {}).setdefault(int(number), path)  # what was set aside sorts behind
        for label, paths in windows.items():
            yield from reversed(list(self._newest(dataset, label, paths)))

    def _newest(self, dataset: str, label: str, paths: Mapping[int, str]) -> Iterator[FoundRevision]:
        for number, path in sorted(paths.items(), reverse=True):
            found = self._found(dataset, label, number, path)
            yield found
            if found.provenance.inputs:
                return

    def _found(self, dataset: str, label: str, number: int, path: str) -> FoundRevision:
        try:
            with self._files.parquet(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
            written = Provenance.from_json(json.loads(schema.metadata[PROVENANCE]))
        except (*UNREADABLE, LookupError, ValueError, TypeError) as error:
            if not is_of_the_file(error):
                raise
            nothing = Provenance(dataset, window_from_label(label), number, inputs="")
            return FoundRevision(nothing, self._files, path, fault=str(error))
        fault = "it was set aside" if path.endswith(DAMAGED) else ""
        return FoundRevision(replace(written, dataset=dataset, number=number), self._files, path, rows, fault)


def _in_groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Row groups of one size whatever the batches were: how the store cut them must not show in the file."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += batch.num_rows
        if held >= _ROW_GROUP:
            table = pa.Table.from_batches(waiting, schema)
            whole = held // _ROW_GROUP * _ROW_GROUP
            yield table.slice(0, whole)
            waiting, held = table.slice(whole).to_batches(), held - whole
    if held:
        yield pa.Table.from_batches(waiting, schema)


class _Stations:
    """Counts the different keys of rows that come ordered by them."""

    def __init__(self, key: list[str]) -> None:
        self._key = key
        self._last: pl.DataFrame | None = None
        self.number = 0

    def add(self, table: pa.Table) -> None:
        keys = pl.DataFrame(pl.from_arrow(table.select(self._key))).unique(maintain_order=True)
        repeated = self._last is not None and keys.head(1).equals(self._last)
        self.number += keys.height - int(repeated)
        self._last = keys.tail(1)
