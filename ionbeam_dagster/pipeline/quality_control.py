"""Quality control of a dataset window: its rows on their way into the dataset file, with the flags of their values.

Belongs here: which rows are looked at, and the order of the work, which keeps memory flat. Rows come by station and are
tested in their series so; neighbours are compared slice of time by slice of time. The rows are written to a scratch
folder once, whole and cut into slices, the slices are judged one by one, and both are brought together again. Does not
belong here: the tests (domain/quality).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ionbeam_dagster.config import DatasetSettings
from ionbeam_dagster.domain.canonical import canonical_schema, point_key
from ionbeam_dagster.domain.decisions import hash_of_inputs
from ionbeam_dagster.domain.quality import Flag
from ionbeam_dagster.domain.quality.chain import (
    LOOK_BACK,
    SLICE,
    Geometry,
    Listened,
    among_neighbours,
    in_series,
    lasting,
)
from ionbeam_dagster.domain.quality.plan import Plan, Reports, Verdicts, quality_columns
from ionbeam_dagster.domain.records import Claim, Compared
from ionbeam_dagster.domain.windows import Window, windows_between
from ionbeam_dagster.stores.ledger import Ledger

_MOST_SLICES = 200
_PART = 100_000
"""Reports of a slice that are compared with what is listened to in it at a time."""

_BLOCK = 50_000
"""Rows that are tested in series at a time, to the end of the station that the last of them is of."""

Scratch = Callable[[], AbstractContextManager[str | Path]]
"""Gives a folder that lasts as long as a block."""

_ARRAYS = ("time", "lat", "lon", "height", "station", "indoor", "fixed")


class Points(Protocol):
    """Where a dataset's rows come from: the time-series store, or what adds to them on their way."""

    def read(self, dataset: str, window: Window, schema: pa.Schema, key: Sequence[str]) -> Iterator[pa.RecordBatch]: ...


@dataclass(frozen=True)
class Network:
    """The rows of one dataset for a window (and what is before it), ordered by station and time."""

    plan: Plan
    key: Sequence[str]
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Controlled:
    """The rows of a window with their flags, what the flags depended on beside the rows, and how many there were."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    compared: Compared
    counted: Callable[[], dict[str, dict[str, int]]]


def controlled(
    series: Points,
    ledger: Ledger,
    dataset: DatasetSettings,
    others: Iterable[DatasetSettings],
    window: Window,
    schema: pa.Schema,
    scratch: Scratch,
) -> Controlled:
    """A window's rows on their way from the store through quality control.

    Values are compared with the rows of the hours before, and with those of `others` that measure the same, as they
    are there now: what arrives later changes no flags of what is built. What they were stands in `compared`.
    A folder of `scratch` is used while the rows pass.
    """
    plan, key = Plan.of(schema, dataset.limits), point_key(schema)
    if not plan.tested:
        return Controlled(schema, series.read(dataset.name, window, schema, key), Compared(), dict)
    before = Window(window.start - LOOK_BACK, window.end)
    own = Network(plan, key, series.read(dataset.name, before, schema, key))
    near = {other.name: found for other in others if (found := _neighbouring(series, ledger, other, window, plan))}
    counts = FlagCounts(plan.tested)
    batches = counts.of(checked(own, [network for network, _ in near.values()], window, schema, scratch))
    compared = Compared(
        limits=sha256(repr(sorted(dataset.limits.items())).encode()).hexdigest(),
        before=hash_of_inputs(_claims(ledger, dataset, Window(before.start, window.start))),
        neighbours={name: inputs for name, (_, inputs) in near.items()},
    )
    return Controlled(plan.schema(schema), batches, compared, counts.by_variable)


def _neighbouring(
    series: Points, ledger: Ledger, dataset: DatasetSettings, window: Window, plan: Plan
) -> tuple[Network, str] | None:
    """Another dataset's rows of a window, if they tell of what `plan` compares, and the hash of its claims."""
    claims = _claims(ledger, dataset, window)
    if not claims:
        return None
    schema = canonical_schema(ledger.metadata_of(claims))
    key, other = point_key(schema), Plan.of(schema, dataset.limits)
    if not plan.listens_to(other):
        return None
    schema = pa.schema([schema.field(name) for name in schema.names if name in {*key, *other.needed}])
    return Network(other, key, series.read(dataset.name, window, schema, key)), hash_of_inputs(claims)


def _claims(ledger: Ledger, dataset: DatasetSettings, range: Window) -> list[Claim]:
    """The claims that touch the dataset's windows in a range, each once."""
    windows = windows_between(range.start, range.end, dataset.span)
    return list({claim.id: claim for one in windows for claim in ledger.claims(dataset.name, one)}.values())


def checked(
    own: Network,
    others: Sequence[Network],
    window: Window,
    schema: pa.Schema,
    scratch: Scratch = TemporaryDirectory,
) -> Iterator[pa.RecordBatch]:
    """The rows of `own` within `window`, with their quality columns: those of ``own.plan.schema(schema)``.

    `own` begins `LOOK_BACK` before the window, `others` (neighbours that are listened to) with it.
    """
    with scratch() as folder, ExitStack() as stack:
        slices = _Slices(Path(folder), window, own.plan)
        spool = Path(folder) / "rows.arrow"
        numbers = StationNumbers()
        with pa.OSFile(str(spool), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in _whole_stations(own.batches, own.key):
                writer.write_batch(batch)
                slices.add(own.plan.with_changes(own.plan.reports(batch, numbers.of(batch, own.key))), mine=True)
        for other in others:
            numbers.next_dataset()
            for batch in _whole_stations(other.batches, other.key):
                theirs = other.plan.with_changes(other.plan.reports(batch, numbers.of(batch, other.key)))
                slices.add(_as_seen_by(own.plan, other.plan, theirs))
        slices.judge()
        rows = stack.enter_context(pa.ipc.open_stream(stack.enter_context(pa.OSFile(str(spool)))))
        result = own.plan.schema(schema)
        for block in rows:
            yield from _judged(block, own, slices, result)


def _judged(block: pa.RecordBatch, own: Network, slices: _Slices, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    reports = own.plan.reports(block, StationNumbers().of(block, own.key))
    verdicts = in_series(own.plan, reports)
    inside = np.flatnonzero(slices.inside(reports))
    if not inside.size:
        return
    kept = reports.taken(inside)
    among = slices.next(kept)
    lasts = lasting(own.plan, kept, among)
    columns: dict[str, pa.Array] = {}
    rows = block.take(pa.array(inside))
    for name in rows.schema.names:
        columns[name] = rows.column(name)
    for column in own.plan.tested:
        together = Verdicts(
            {column: verdicts.applied[column][inside] | among.applied[column] | lasts.applied[column]},
            {column: verdicts.failed[column][inside] | among.failed[column] | lasts.failed[column]},
            {column: among.deviation[column]},
        )
        names = [f"{column}__{kind}" for kind in ("flag", "tests_applied", "tests_failed")]
        columns |= dict(zip(names, quality_columns(kept, together, column), strict=True))
    yield pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


class FlagCounts:
    """How many values of each variable have which flag, counted as the rows pass."""

    def __init__(self, variables: Iterable[str]) -> None:
        self._counts = {column: np.zeros(max(Flag) + 1, np.int64) for column in variables}

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for column, counts in self._counts.items():
                flags = batch.column(f"{column}__flag").to_numpy()
                counts += np.bincount(flags, minlength=counts.size)
            yield batch

    def by_variable(self) -> dict[str, dict[str, int]]:
        """By variable and flag, in words."""
        return {
            column: {flag.name.lower(): int(counts[flag]) for flag in Flag} for column, counts in self._counts.items()
        }


def flags_in(dataset_file: Path, variables: Iterable[str]) -> dict[str, dict[str, int]]:
    """How many values of each of these variables have which flag in a dataset file."""
    counts = FlagCounts(variables)
    columns = [f"{column}__flag" for column in counts.by_variable()]
    with pq.ParquetFile(dataset_file) as file:
        for _ in counts.of(file.iter_batches(columns=columns) if columns else ()):
            pass
    return counts.by_variable()


class StationNumbers:
    """A number for each station of rows that come ordered by station."""

    def __init__(self) -> None:
        self._last: pl.DataFrame | None = None
        self._number = 0

    def next_dataset(self) -> None:
        self._last = None
        self._number += 1

    def of(self, batch: pa.RecordBatch, key: Sequence[str]) -> npt.NDArray[np.intp]:
        if not batch.num_rows:
            return np.zeros(0, np.intp)
        keys = pl.DataFrame(pl.from_arrow(batch.select(list(key))))
        changes = keys.select(pl.any_horizontal(pl.all().ne_missing(pl.all().shift()))).to_series().to_numpy().copy()
        changes[0] = self._last is None or not keys.head(1).equals(self._last)
        numbers = self._number + np.cumsum(changes)
        self._last, self._number = keys.tail(1), int(numbers[-1])
        return np.asarray(numbers, np.intp)


class _Slices:
    """The reports of a window by slices of time, and what came of them."""

    def __init__(self, folder: Path, window: Window, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._start = window.start.timestamp()
        self._end = window.end.timestamp()
        self._length = max(SLICE, window.span / _MOST_SLICES, timedelta(seconds=1)).total_seconds()
        self._taken: Counter[int] = Counter()

    def inside(self, reports: Reports) -> npt.NDArray[np.bool_]:
        return np.asarray((reports.time >= self._start) & (reports.time < self._end))

    def add(self, reports: Reports, mine: bool = False) -> None:
        reports = reports.taken(self.inside(reports))
        for number, rows in _groups(self._of(reports)):
            with self._path(number, "own" if mine else "others").open("ab") as file:
                np.save(file, self._stacked(reports.taken(rows)))

    def judge(self) -> None:
        """Compare the reports of each slice with each other; afterwards `next` tells what came of them."""
        geometry = Geometry()
        for path in sorted(self._folder.glob("own_*")):
            number = int(path.name.split("_")[1])
            listened = Listened.to(self._plan, self._parts(number, "own", "others"), geometry)
            first = 0
            with self._verdicts(number).open("wb") as file:
                for part in self._parts(number, "own"):
                    file.write(self._masks(among_neighbours(self._plan, listened, part, first)).tobytes())
                    first += len(part)

    def next(self, reports: Reports) -> Verdicts:
        """What came of the next reports, in the order in which they were added."""
        verdicts = Verdicts.none(self._plan.tested, len(reports))
        width = 3 * len(self._plan.tested)
        for number, rows in _groups(self._of(reports)):
            begin = self._taken[number]
            self._taken[number] += rows.size
            # Read rather than mapped: what is mapped counts as ours for as long as there is room.
            masks = np.fromfile(self._verdicts(number), np.uint32, rows.size * width, offset=begin * width * 4)
            for column, (applied, failed, deviation) in zip(
                self._plan.tested, masks.reshape(rows.size, -1, 3).transpose(1, 2, 0), strict=True
            ):
                verdicts.applied[column][rows], verdicts.failed[column][rows] = applied, failed
                verdicts.deviation[column][rows] = np.ascontiguousarray(deviation).view(np.float32)
        return verdicts

    def _of(self, reports: Reports) -> npt.NDArray[np.intp]:
        return ((reports.time - self._start) // self._length).astype(np.intp)

    def _path(self, number: int, whose: str) -> Path:
        return self._folder / f"{whose}_{number}"

    def _verdicts(self, number: int) -> Path:
        return self._folder / f"verdicts_{number}"

    def _stacked(self, reports: Reports) -> npt.NDArray[np.float64]:
        arrays = [getattr(reports, name) for name in _ARRAYS] + [reports.values[name] for name in self._plan.kept]
        return np.stack([array.astype(np.float64) for array in arrays])

    def _unstacked(self, stacked: npt.NDArray[np.float64]) -> Reports:
        time, lat, lon, height, station, indoor, fixed = stacked[: len(_ARRAYS)]
        values = dict(zip(self._plan.kept, stacked[len(_ARRAYS) :], strict=True))
        return Reports(time, lat, lon, height, station.astype(np.intp), indoor > 0, fixed > 0, values)

    def _masks(self, verdicts: Verdicts) -> npt.NDArray[np.uint32]:
        """Row by row: of each column the tests applied, those failed, and the bits of the deviation."""
        told = [
            of
            for c in self._plan.tested
            for of in (verdicts.applied[c], verdicts.failed[c], verdicts.deviation[c].view(np.uint32))
        ]
        return np.stack(told, axis=1)

    def _parts(self, number: int, *whose: str) -> Iterator[Reports]:
        """The reports of a slice, some at a time."""
        waiting: list[npt.NDArray[np.float64]] = []
        for path in (self._path(number, one) for one in whose):
            if not path.exists():
                continue
            with path.open("rb") as file:
                end = path.stat().st_size
                while file.tell() < end:
                    waiting.append(np.load(file))
                    if sum(some.shape[1] for some in waiting) >= _PART:
                        yield self._unstacked(np.concatenate(waiting, axis=1))
                        waiting = []
        if waiting:
            yield self._unstacked(np.concatenate(waiting, axis=1))


def _as_seen_by(plan: Plan, other: Plan, reports: Reports) -> Reports:
    """Another dataset's reports with the columns of this one: of each, the first comparable one that has a value."""
    values = {name: np.full(len(reports), np.nan) for name in plan.kept}
    for column, one in plan.tested.items():
        for theirs in (other.tested[name] for name in other.comparable(one)):
            for mine, name in ((column, theirs.column), (one.change, theirs.change)):
                if mine in values and name in reports.values:
                    values[mine] = np.where(np.isfinite(values[mine]), values[mine], reports.values[name])
    return replace(reports, values=values)


def _groups(numbers: npt.NDArray[np.intp]) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Each number with the places where it stands, in order."""
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    for rows in np.split(order, cuts):
        if rows.size:
            yield int(numbers[rows[0]]), rows


def _whole_stations(batches: Iterable[pa.RecordBatch], key: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows in blocks that end where a station does."""
    numbers, waiting, held, of = StationNumbers(), [], 0, []
    for batch in batches:
        waiting.append(batch)
        of.append(numbers.of(batch, key))
        held += batch.num_rows
        if held >= _BLOCK:
            table, stations = pa.Table.from_batches(waiting).combine_chunks(), np.concatenate(of)
            cut = int(np.searchsorted(stations, stations[-1])) if stations.size else 0
            if cut:
                yield table.slice(0, cut).to_batches()[0]
            rest = table.slice(cut)
            waiting, of, held = rest.to_batches(), [stations[cut:]], rest.num_rows
    if held:
        yield pa.Table.from_batches(waiting).combine_chunks().to_batches()[0]
