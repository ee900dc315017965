"""All tests over the reports of a dataset: what is tested of which column, and the verdicts put together.

Belongs here: `Plan`, which follows from a schema and limits, and its two halves, tests in series and tests against
neighbours, each on arrays. Does not belong here: reading and writing rows, and their order (ionbeam_dagster.qc).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ionbeam_client.models import parse_duration
from ionbeam_dagster.domain.canonical import HEIGHT_COLUMNS, columns_of, variable_of
from ionbeam_dagster.domain.cf import UnitError, conversion
from ionbeam_dagster.domain.quality import Masks, Test, flags_of, neighbours, series
from ionbeam_dagster.domain.quality.limits import HOUR, Limits

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

LOOK_BACK = timedelta(hours=2)
"""How far before a window its series are looked at."""

SLICE = timedelta(minutes=10)
"""Reports within a slice are compared with each other; of each station its last report there is listened to."""

_SUN_UP, _WARMED = 5.0, 3.0  # degrees; K: a shield that the sun heats, and by how much at least
_ROOM, _OUTDOORS = (17.0, 27.0), 7.0  # degC; K: a room, and how far from it the neighbours must be
MANY_AT_ONE_PLACE = 3  # stations
_MOVED = 1000.0  # m
_WET, _GUSTY = 0.5, 0.5  # K; m s-1: what rounding may do


@dataclass(frozen=True, slots=True)
class Tested:
    """A column with limits; ``value * scale + offset`` is in the limits' unit, and the range that of its period."""

    column: str
    name: str
    limits: Limits
    scale: float
    offset: float
    range: tuple[float, float] | None


@dataclass
class Reports:
    """Reports as arrays, all of one length: seconds since 1970, degrees, metres (NaN: unknown), a number for each
    station, and by column the values in the unit of its limits (NaN: none)."""

    time: Floats
    lat: Floats
    lon: Floats
    height: Floats
    station: Ints
    indoor: Bools
    fixed: Bools
    values: dict[str, Floats]

    def __len__(self) -> int:
        return self.time.size

    def taken(self, rows: npt.NDArray[np.intp] | Bools, columns: Iterable[str] | None = None) -> Reports:
        """Some of the reports, with the values of some `columns` (None: of all)."""
        arrays = {name: getattr(self, name)[rows] for name in ("time", "lat", "lon", "height", "station")}
        values = {column: self.values[column][rows] for column in (self.values if columns is None else columns)}
        return Reports(**arrays, indoor=self.indoor[rows], fixed=self.fixed[rows], values=values)

    @classmethod
    def joined(cls, parts: Sequence[Reports]) -> Reports:
        """Reports one after the other; all have values of the same columns."""
        names = ("time", "lat", "lon", "height", "station", "indoor", "fixed")
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        values = {column: np.concatenate([part.values[column] for part in parts]) for column in parts[0].values}
        return cls(**arrays, values=values)


@dataclass
class Verdicts:
    """By column, the tests that were applied to each report and those that it failed."""

    applied: dict[str, Masks]
    failed: dict[str, Masks]

    @classmethod
    def none(cls, columns: Mapping[str, object], size: int) -> Verdicts:
        return cls(
            {column: np.zeros(size, np.uint32) for column in columns},
            {column: np.zeros(size, np.uint32) for column in columns},
        )

    def add(self, column: str, test: Test, applied: Bools, failed: Bools) -> None:
        self.applied[column][applied] |= np.uint32(test)
        self.failed[column][applied & failed] |= np.uint32(test)


@dataclass(frozen=True)
class Plan:
    """What is tested of the columns of a dataset: of each variable that has limits, by its column's name."""

    tested: dict[str, Tested]
    height: str | None
    metadata: frozenset[str] = field(default=frozenset())

    @classmethod
    def of(cls, schema: pa.Schema, limits: Mapping[str, Limits]) -> Plan:
        found: dict[str, Tested] = {}
        for name in columns_of(schema, "variable"):
            variable = variable_of(schema.field(name))
            chosen = limits.get(variable.standard_name)
            if chosen is None or not pa.types.is_floating(schema.field(name).type):
                continue
            if variable.method not in ("point", "mean", "minimum", "maximum", "sum"):
                continue
            try:
                scale, offset = conversion(variable.cf_unit, chosen.unit)
            except UnitError:
                continue
            hours = parse_duration(variable.period).total_seconds() / HOUR
            found[name] = Tested(name, variable.standard_name, chosen, scale, offset, _range(chosen, hours))
        columns = columns_of(schema, "metadata")
        return cls(found, next((c for c in HEIGHT_COLUMNS if c in columns), None), frozenset(columns))

    @property
    def needed(self) -> set[str]:
        """The columns that the tests look at."""
        described = {"indoor", "mobility"} & self.metadata
        return {"datetime", "lat", "lon", *self.tested, *described, *([self.height] if self.height else [])}

    def listens_to(self, other: Plan) -> bool:
        """Whether `other` measures something that this plan compares with neighbours."""
        compared = {
            one.name for one in self.tested.values() if one.limits.buddy or one.limits.event or one.limits.consistency
        }
        return bool(compared & {one.name for one in other.tested.values()})

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """`schema` with the quality columns of each tested variable behind it."""
        fields: list[pa.Field] = []
        for one in schema:
            of = (one.metadata or {}).get(b"of", b"").decode() or one.name
            if fields and of not in (fields[-1].name, (fields[-1].metadata or {}).get(b"of", b"").decode()):
                fields += self._behind(fields[-1])
            fields.append(one)
        fields += self._behind(fields[-1])
        return pa.schema(fields, metadata=schema.metadata)

    def _behind(self, last: pa.Field) -> list[pa.Field]:
        of = (last.metadata or {}).get(b"of", b"").decode() or last.name
        return quality_fields(of) if of in self.tested else []

    def reports(self, batch: pa.RecordBatch, station: Ints) -> Reports:
        """The reports of a batch of canonical rows, whose stations have the numbers `station`."""
        size = batch.num_rows
        text = {name: batch.column(name) for name in ("indoor", "mobility") if name in self.metadata}
        unknown = np.full(size, np.nan)
        return Reports(
            time=_seconds(batch.column("datetime")),
            lat=batch.column("lat").to_numpy(zero_copy_only=False),
            lon=batch.column("lon").to_numpy(zero_copy_only=False),
            height=_numbers(batch.column(self.height)) if self.height else unknown,
            station=station,
            indoor=_equal(text.get("indoor"), "true", size),
            fixed=_equal(text.get("mobility"), "fixed", size),
            values={
                name: batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) * one.scale + one.offset
                for name, one in self.tested.items()
            },
        )


def in_series(plan: Plan, reports: Reports) -> Verdicts:
    """The tests of reports by themselves and in their series. `reports` are whole stations, ordered by time."""
    verdicts = Verdicts.none(plan.tested, len(reports))
    months = (reports.time * 1e6).astype("datetime64[us]").astype("datetime64[M]").astype(int) % 12 + 1
    strayed = series.moved(reports.lat, reports.lon, reports.station, _MOVED)
    for column, one in plan.tested.items():
        values, limits = reports.values[column], one.limits
        there = np.isfinite(values)
        if one.range:
            verdicts.add(column, Test.GROSS_RANGE, there, series.gross_range(values, *one.range))
        if limits.climatology:
            low, high = np.array(limits.climatology).T
            verdicts.add(column, Test.CLIMATOLOGY, there, series.climatology(values, months.astype(np.int8), low, high))
        _changes(verdicts, column, limits, sane(one, values), reports)
        verdicts.add(column, Test.INDOOR, there & reports.indoor, reports.indoor)
        verdicts.add(column, Test.MOVED, there & reports.fixed, strayed)
    _internal(verdicts, plan, reports)
    return verdicts


def _changes(verdicts: Verdicts, column: str, limits: Limits, values: Floats, reports: Reports) -> None:
    """Step, spike and persistence among the values that are there; those out of range are not."""
    known = np.flatnonzero(np.isfinite(values))
    kept, times, station = values[known], reports.time[known], reports.station[known]

    def add(test: Test, applied: Bools, failed: Bools) -> None:
        whole = np.zeros((2, values.size), np.bool_)
        whole[0, known], whole[1, known] = applied, failed
        verdicts.add(column, test, whole[0], whole[1])

    spikes = np.zeros(kept.size, np.bool_)
    if limits.spike is not None:
        applied = series.has_before(times, station, HOUR) & series.has_after(times, station, HOUR)
        spikes = series.spike(kept, times, station, limits.spike, HOUR)
        add(Test.SPIKE, applied, spikes)
    if limits.step is not None:
        smooth = np.flatnonzero(~spikes)  # the way back from a spike is no step
        jumps, applied = np.zeros((2, kept.size), np.bool_)
        of = times[smooth], station[smooth]
        jumps[smooth] = series.step(kept[smooth], *of, limits.step, HOUR)
        applied[smooth] = series.has_before(*of, HOUR)
        add(Test.STEP, applied, jumps)
    if limits.persistence is not None:
        steady = np.zeros(kept.size, np.bool_)
        if limits.steady_from is not None:
            steady |= kept >= limits.steady_from
        if limits.steady_at is not None:
            steady |= kept == limits.steady_at
        over = LOOK_BACK.total_seconds()
        failed = series.persistence(kept, times, station, limits.persistence, over, steady)
        add(Test.PERSISTENCE, series.reaches_back(times, station, over) & ~steady, failed)


def _internal(verdicts: Verdicts, plan: Plan, reports: Reports) -> None:
    """Pairs of quantities at one level that bound each other: both values of a contradiction are suspect."""
    pairs = [
        ("air_temperature", "dew_point_temperature", series.dew_point_above_temperature, _WET),
        ("wind_speed", "wind_speed_of_gust", series.gust_below_mean, _GUSTY),
    ]
    for first, second, contradict, tolerance in pairs:
        for one in (t for t in plan.tested.values() if t.name == first):
            for other in (t for t in plan.tested.values() if t.name == second and _level(t) == _level(one)):
                a, b = (sane(t, reports.values[t.column]) for t in (one, other))
                both = np.isfinite(a) & np.isfinite(b)
                failed = contradict(a, b, tolerance)
                for column in (one.column, other.column):
                    verdicts.add(column, Test.INTERNAL_CONSISTENCY, both, failed)


@dataclass(frozen=True)
class Listened:
    """What is listened to in one slice: by column, one report of each station, with where it stands in the slice.

    No other report counts in a test, so that a slice may be tested in parts. `consistency` is what was found of these
    reports, which alone are tested so; `crowded` are the places, as ``lat + lon j``, with too many stations.
    """

    reports: dict[str, Reports]
    rows: dict[str, Ints]
    consistency: dict[str, neighbours.Consistency]
    crowded: npt.NDArray[np.complex128]


def listened_to(plan: Plan, parts: Iterable[Reports]) -> Listened:
    """What is listened to among all `parts` of a slice, in their order."""
    lasts: dict[str, list[tuple[Reports, Ints]]] = {column: [] for column in plan.tested}
    spots, first = [], 0
    for part in parts:
        for column, one in plan.tested.items():
            usable = _usable(one, part)
            last = usable[_last_of_station(part.taken(usable, []))]
            lasts[column].append((part.taken(last, [column]), last + first))
        spots.append(np.stack([part.lat, part.lon, part.station], axis=1)[_moves(part)])
        first += len(part)
    reports, rows, consistency = {}, {}, {}
    for column, one in plan.tested.items():
        found = Reports.joined([some for some, _ in lasts[column]])
        heard = np.flatnonzero(_last_of_station(found) & ~found.indoor)
        reports[column], rows[column] = found.taken(heard), np.concatenate([rows for _, rows in lasts[column]])[heard]
        if given := one.limits.consistency:
            told = reports[column]
            consistency[column] = neighbours.spatial_consistency(
                places_of(told), told.values[column], **given.model_dump()
            )
    lat, lon, station = np.concatenate(spots).T
    many = series.default_position(lat, lon, station.astype(np.intp), MANY_AT_ONE_PLACE)
    return Listened(reports, rows, consistency, np.unique((lat + 1j * lon)[many]))


def among_neighbours(plan: Plan, listened: Listened, part: Reports, first: int = 0) -> Verdicts:
    """The tests of a part of a slice, which begins at its report number `first`, against what is `listened` to.

    Values out of range are neither tested nor listened to, nor are those of indoor stations listened to.
    """
    verdicts = Verdicts.none(plan.tested, len(part))
    crowded = np.isin(part.lat + 1j * part.lon, listened.crowded)
    for column, one in plan.tested.items():
        verdicts.add(column, Test.POSITION, np.isfinite(part.values[column]), crowded)
        heard, where = listened.reports[column], listened.rows[column] - first
        usable = _usable(one, part)
        quiet = usable[~np.isin(usable, where)]
        if len(heard) + quiet.size:
            reports = Reports.joined([heard, part.taken(quiet, [column])])
            rows = np.concatenate([where, quiet])
            _against(verdicts, one, reports, rows, len(heard), listened.consistency.get(column))
    return verdicts


def comparable(one: Tested, reports: Reports) -> tuple[Ints, Bools]:
    """Which reports of a slice are compared in one quantity, and which of these are listened to."""
    usable = _usable(one, reports)
    return usable, _last_of_station(reports.taken(usable, [])) & ~reports.indoor[usable]


def _usable(one: Tested, reports: Reports) -> Ints:
    return np.flatnonzero(np.isfinite(sane(one, reports.values[one.column])))


def _moves(reports: Reports) -> Bools:
    """Which reports are not from where the one before them is, by the same station."""
    moves = np.ones(len(reports), np.bool_)
    moves[1:] = False
    for column in (reports.lat, reports.lon, reports.station):
        moves[1:] |= column[1:] != column[:-1]
    return moves


def _against(
    verdicts: Verdicts,
    one: Tested,
    reports: Reports,
    rows: Ints,
    heard: int,
    consistency: neighbours.Consistency | None,
) -> None:
    """The neighbour tests of one column; the first `heard` of `reports` are listened to.

    `rows` says where each of `reports` stands in what the verdicts are of; those that stand elsewhere get none.
    """
    places, speaking = places_of(reports), np.arange(len(reports)) < heard
    column, limits = one.column, one.limits
    values, size = reports.values[column], verdicts.applied[column].size
    tested = (rows >= 0) & (rows < size)

    def add(test: Test, applied: Bools, failed: Bools) -> None:
        applied, failed = applied & tested, failed & tested
        whole = np.zeros((2, size), np.bool_)
        whole[0, rows[applied]], whole[1, rows[failed]] = True, True
        verdicts.add(column, test, whole[0], whole[1])

    everywhere = np.ones(values.size, np.bool_)
    if limits.buddy is not None:
        given = limits.buddy
        alone = neighbours.isolation(places, given.radius, given.num_min, speaking)
        add(Test.ISOLATION, everywhere, alone)
        found = neighbours.buddy(places, values, speaking=speaking, **given.model_dump())
        add(Test.BUDDY, np.isfinite(found.deviation), found.failed)
        if one.name == "air_temperature":
            _why_too_warm(add, reports, values, found)
    if limits.event is not None:
        judged, failed = neighbours.buddy_event(places, values, speaking=speaking, **limits.event.model_dump())
        add(Test.BUDDY_EVENT, judged, failed)
    if consistency is not None:
        judged, failed = np.zeros((2, values.size), np.bool_)
        judged[:heard], failed[:heard] = np.isfinite(consistency.score), consistency.failed
        add(Test.SPATIAL_CONSISTENCY, judged, failed)


def _why_too_warm(add: object, reports: Reports, values: Floats, found: neighbours.Buddies) -> None:
    """Suspicions that explain why a temperature is not its neighbours': the sun on a shield, or a room."""
    assert callable(add)
    compared = np.isfinite(found.deviation)
    above = values - found.mean
    sunny = series.sun_elevation(reports.lat, reports.lon, reports.time) > _SUN_UP
    add(Test.RADIATION, compared & sunny, found.failed & (above > _WARMED) & sunny)
    in_room = (values >= _ROOM[0]) & (values <= _ROOM[1]) & (np.abs(above) > _OUTDOORS)
    add(Test.INDOOR, compared, found.failed & in_room)


def places_of(reports: Reports) -> neighbours.Places:
    return neighbours.Places(reports.lat, reports.lon, reports.height, reports.station)


def quality_fields(variable: str) -> list[pa.Field]:
    """The quality columns of the canonical variable `variable`: CF ancillary variables of it."""
    tests = {
        "flag_masks": ", ".join(str(int(test)) for test in Test),
        "flag_meanings": " ".join(test.name.lower() for test in Test if test.name),
    }
    values = {
        "standard_name": "aggregate_quality_flag",
        "flag_values": "1, 2, 3, 4, 9",
        "flag_meanings": "pass not_evaluated suspect fail missing",
    }
    return [
        _field(variable, "flag", pa.uint8(), values),
        _field(variable, "tests_applied", pa.uint32(), {"standard_name": "status_flag", **tests}),
        _field(variable, "tests_failed", pa.uint32(), {"standard_name": "quality_flag", **tests}),
    ]


def quality_columns(reports: Reports, verdicts: Verdicts, column: str) -> list[pa.Array]:
    """The arrays of `quality_fields` for one variable."""
    applied, failed = verdicts.applied[column], verdicts.failed[column]
    flags = flags_of(applied, failed, ~np.isfinite(reports.values[column]))
    return [pa.array(flags), pa.array(applied), pa.array(failed)]


def _field(variable: str, kind: str, arrow_type: pa.DataType, attributes: Mapping[str, str]) -> pa.Field:
    metadata = {"role": "quality", "of": variable, "kind": kind, **attributes}
    return pa.field(f"{variable}__{kind}", arrow_type, metadata=metadata)


def _range(limits: Limits, hours: float) -> tuple[float, float] | None:
    if limits.range is None or not limits.per_hour:
        return limits.range
    low, high = limits.range
    return low * hours, high * max(hours, 1 / 60)


def sane(one: Tested, values: Floats) -> Floats:
    """The values without those out of range, which would condemn what they are compared with."""
    return values if one.range is None else np.where(series.gross_range(values, *one.range), np.nan, values)


def _level(one: Tested) -> str:
    return one.column.split("__")[2]


def _last_of_station(reports: Reports) -> Bools:
    order = np.lexsort((reports.time, reports.station))
    last = np.ones(order.size, np.bool_)
    last[:-1] = np.diff(reports.station[order]) != 0
    chosen = np.zeros(order.size, np.bool_)
    chosen[order[last]] = True
    return chosen


def _seconds(times: pa.Array) -> Floats:
    return np.asarray(times.cast(pa.int64()).to_numpy(zero_copy_only=False) / 1e6)


def _numbers(texts: pa.Array) -> Floats:
    read = pl.Series(pl.from_arrow(texts)).cast(pl.Float64, strict=False).to_numpy()
    return np.where(np.isfinite(read), read, np.nan)


def _equal(texts: pa.Array | None, wanted: str, size: int) -> Bools:
    if texts is None:
        return np.zeros(size, np.bool_)
    return np.asarray((pl.Series(pl.from_arrow(texts)) == wanted).fill_null(False).to_numpy(), np.bool_)
